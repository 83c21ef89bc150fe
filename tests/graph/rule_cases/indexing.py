"""Picking, joining and moving indices."""

from __future__ import annotations

from typing import Any

import torch

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import BOTH, X, aten


def _before(axis: int, bound: int) -> Any:
    """How many of the first ``bound`` indices of an axis of the first input are kept."""
    return lambda kept: {"cut": int((kept[0, axis] < bound).sum())}


INDEXING = [
    Case("slice", lambda x, cut: x[:, :cut], [X], adapt=_before(1, 3)),
    Case("slice", lambda x, cut: x[cut:], [X], "start", adapt=_before(0, 1)),
    Case("slice", lambda x, cut: x.narrow(1, 0, cut), [X], "narrow", adapt=_before(1, 2)),
    Case(
        "slice",
        lambda x, cut: x.view(len(x), 2, -1)[:, :, :cut],
        [(2, 6)],
        "columns of a split axis",
        adapt=lambda kept: {"cut": int((kept[0, 1] < 2).sum())},
    ),
    Case("slice", lambda x: x.view(len(x), 3, -1)[:, 1:], [(2, 6)], "rows of a split axis"),
    Case("slice", lambda x: x[:, :1], [X], "length one", pinned={(0, 1): [0]}),
    Case("slice_copy", lambda x, cut: aten.slice_copy(x, 1, 0, cut), [X], adapt=_before(1, 3)),
    Case("select", lambda x: x[1], [X], pinned={(0, 0): [0, 1]}),
    Case("select", lambda x: x[:, -2], [X], "negative", pinned={(0, 1): [2, 3]}),
    Case("select", lambda x: x.view(len(x), 2, -1)[:, 1], [(2, 6)], "row of a split axis"),
    Case(
        "select", lambda x: x.view(len(x), 2, -1)[:, :, 0], [(2, 6)], "column of a split axis", pinned={(0, 1): [0, 3]}
    ),
    Case("select_copy", lambda x: aten.select_copy(x, 1, 0), [X], pinned={(0, 1): [0]}),
    Case("unbind", lambda x: x.unbind(1), [X], pinned={(0, 1): ALL}),
    Case("unbind", lambda x: x.view(len(x), 2, -1).unbind(1), [(2, 6)], "rows of a split axis"),
    Case("unbind_copy", lambda x: aten.unbind_copy(x, 1), [X], pinned={(0, 1): ALL}),
    Case("split", lambda x: x.chunk(2, 1), [(3, 8)], "chunk"),
    Case("split", lambda x: x.split(x.shape[0] // 3), [(9, 2)]),
    Case("split_with_sizes", lambda x: x.split([x.shape[1] // 3, x.shape[1] // 3 * 2], -1), [(2, 9)]),
    Case("unsafe_split", lambda x: x.unsafe_split(x.shape[1] // 2, 1), [(3, 8)]),
    Case("unsafe_split_with_sizes", lambda x: x.unsafe_split_with_sizes([x.shape[1] // 2] * 2, 1), [(3, 8)]),
    Case("split_copy", lambda x: aten.split_copy(x, x.shape[1] // 2, 1), [(3, 8)]),
    Case("split_with_sizes_copy", lambda x: aten.split_with_sizes_copy(x, [x.shape[1] // 2] * 2, 1), [(3, 8)]),
    Case("split", lambda x: x.view(len(x), 2, -1).chunk(2, 2), [(2, 12)], "columns of a split axis"),
    Case("split", lambda x: x.view(len(x), 4, -1).chunk(2, 1), [(2, 12)], "rows of a split axis"),
    Case("cat", lambda x, y: torch.cat([x, y], -1), [X, (3, 2)]),
    Case("cat", lambda x, y: torch.cat([x, x, y]), [X, (2, 4)], "twice the same"),
    Case("cat", lambda x: torch.cat([torch.zeros(0, dtype=x.dtype), x], 1), [X], "an empty one"),
    Case("cat", lambda x, y: torch.cat([x, y], 1), [X, (3, 1)], "length one"),
    Case("cat", lambda x, y: torch.cat([x.view(len(x), 2, -1), y.view(len(y), 2, -1)], 2), [(2, 6), (2, 4)], "columns"),
    Case("cat", lambda x, y: torch.cat([x.view(len(x), 2, -1), y.view(len(y), 3, -1)], 1), [(2, 6), (2, 9)], "rows"),
    Case("stack", lambda x, y: torch.stack([x, y], 1), [X, X]),
    Case("stack", lambda x, y: torch.stack([x, y], -1), [X, X], "last"),
    Case("flip", lambda x: x.flip(0, -1), [X]),
    Case("roll", lambda x: x.roll(1, 1), [X], pinned={(0, 1): [3]}),
    Case("roll", lambda x: x.roll((-2, 3), (-1, 0)), [X], "two dimensions", pinned={(0, 0): ALL, (0, 1): [0, 1]}),
    Case("roll", lambda x: x.roll((0, 1), (0, 1)), [X], "by nothing", pinned={(0, 1): [3]}),
    Case("roll", lambda x: x.roll(5, 1), [X], "more than once round", pinned={(0, 1): ALL}),
    Case("roll", lambda x: x.roll(1), [X], "flat", pinned={(0, 0): ALL, (0, 1): ALL}),
    Case("narrow_copy", lambda x: torch.narrow_copy(x, 1, 1, 2), [X], pinned={(0, 1): ALL}),
    *(Case("rot90", lambda x, k=k: x.rot90(k, (0, 2)), [(2, 3, 4)], str(k)) for k in (1, 2, 3, 4)),
    Case("rot90", lambda x: x.view(len(x), 2, -1).rot90(-1, (2, 1)), [(2, 6)], "rows and columns"),
    Case(
        "slice_scatter",
        lambda x, y: x.slice_scatter(y, 1, 1, 3),
        [X, (3, 2)],
        pinned={(0, 1): ALL, (1, 1): ALL},
    ),
    Case("select_scatter", lambda x, y: x.select_scatter(y, 1, 2), [(3, 4, 2), (3, 2)], pinned={(0, 1): ALL}),
    Case("unfold", lambda x: x.unfold(1, 2, 1), [(2, 4, 3)], pinned={(0, 1): ALL}),
    Case("unfold", lambda x: x.view(len(x), 2, -1).unfold(1, 1, 1), [(2, 6)], "rows"),
    Case("unfold_copy", lambda x: torch.unfold_copy(x, 1, 2, 1), [(2, 4, 3)], pinned={(0, 1): ALL}),
    Case(
        "unfold_backward",
        lambda x: aten.unfold_backward(x, [x.shape[0], 6, x.shape[2]], 1, 3, 2),
        [(2, 2, 4, 3)],
        pinned={(0, 1): ALL, (0, 3): ALL},
    ),
    Case("as_strided", lambda x: x.as_strided((2, 2), (4, 1)), [X], pinned=BOTH),
    Case(
        "as_strided",
        lambda x: x.as_strided((len(x), 2, 2), (x.stride(0), 1, 1)),
        [X],
        "sizes and strides read from it",
        pinned={(0, 1): ALL},
        resizable=True,
    ),
    Case(
        "as_strided",
        lambda x: x.as_strided((x.shape[0], 2, 3, x.shape[2]), (x.stride(0), 2 * x.stride(1), *x.stride()[1:])),
        [(2, 5, 3)],
        "windows in the middle",
        pinned={(0, 1): ALL},
        resizable=True,
    ),
    Case("as_strided", lambda x: x.as_strided(x.shape, x.stride()), [X], "itself", resizable=True),
    Case("as_strided", lambda x: x.as_strided(x.shape, x.stride()), [X], "itself, by numbers", pinned=BOTH),
    Case(
        "as_strided",
        lambda x: x.as_strided((x.shape[2], 4, 2, x.shape[0]), (1, x.stride(1), x.stride(1), x.stride(0))),
        [(2, 5, 3)],
        "named by the caller",
        pinned={(0, 1): ALL},
        flexible=frozenset({0, 3}),
    ),
    Case("as_strided", lambda x: x.t().as_strided_(x.shape, x.stride()), [X], "in place", flexible=frozenset({0, 1})),
    Case("as_strided", lambda x: torch.cos(x).as_strided_((2, 2), (4, 1)), [X], "in place, by numbers", pinned=BOTH),
    Case("as_strided_copy", lambda x: aten.as_strided_copy(x, (2, 2), (4, 1)), [X], pinned=BOTH),
    Case(
        "as_strided_scatter",
        lambda x, y: x.as_strided_scatter(y, (2, 2), (4, 1)),
        [X, (2, 2)],
        pinned=BOTH | {(1, 0): ALL, (1, 1): ALL},
    ),
]

CASES = [*INDEXING]

"""Picking, joining and moving indices."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import ROWS, X, aten, bools, integers


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
    Case("index_select", lambda x: x.index_select(0, ROWS), [X], pinned={(0, 0): ALL}),
    Case(
        "index_select",
        lambda x, i: x.index_select(1, i),
        [X, integers(2, high=4)],
        "labelled index",
        pinned={(0, 1): ALL, (1, 0): ALL},
    ),
    Case("index", lambda x: x[ROWS], [X], pinned={(0, 0): ALL}),
    Case("index", lambda x: x[:, ROWS, :, ROWS], [(2, 3, 4, 3)], "not adjacent", pinned={(0, 1): ALL, (0, 3): ALL}),
    Case("index", lambda x: x[:, ROWS[:, None], ROWS], [(2, 3, 4)], "adjacent", pinned={(0, 1): ALL, (0, 2): ALL}),
    Case("index", lambda x: x[:, torch.tensor([True, False, True])], [(2, 3, 4)], "mask", pinned={(0, 1): ALL}),
    Case(
        "index",
        lambda x: x[torch.tensor([[True, False, True], [True, True, False]])],
        [(2, 3, 4)],
        "wide mask",
        pinned={(0, 0): ALL, (0, 1): ALL},
    ),
    Case(
        "index",
        lambda x, i: x[:, i],
        [(2, 3, 4), integers(2, 2, high=3)],
        "labelled index",
        pinned={(0, 1): ALL, (1, 0): ALL, (1, 1): ALL},
    ),
    Case("_unsafe_index", lambda x: aten._unsafe_index(x, [None, ROWS]), [X], pinned={(0, 1): ALL}),
    Case("index_put", lambda x, y: torch.index_put(x, (ROWS,), y), [X, (2, 4)], pinned={(0, 0): ALL, (1, 0): ALL}),
    Case(
        "index_put",
        lambda x, y: aten.index_put(x, [None, ROWS], y),
        [(2, 3, 4), (2, 2, 4)],
        "a later dimension",
        pinned={(0, 1): ALL, (1, 1): ALL},
    ),
    Case(
        "index_put",
        lambda x, y: aten.index_put(x, [ROWS, None, ROWS], y),
        [(3, 4, 3), (2, 4)],
        "not adjacent",
        pinned={(0, 0): ALL, (0, 2): ALL, (1, 0): ALL},
    ),
    Case("index_put", lambda x, y: x.__setitem__(bools(3), y) or x, [X, (4,)], "mask", pinned={(0, 0): ALL}),
    Case(
        "index_put",
        lambda x: aten.index_put(x, [None, ROWS], torch.tensor(0.5, dtype=x.dtype)),
        [X],
        "a number",
        pinned={(0, 1): ALL},
    ),
    Case("_index_put_impl", lambda x, y: aten._index_put_impl(x, [ROWS], y), [X, (4,)], pinned={(0, 0): ALL}),
    Case(
        "_unsafe_index_put",
        lambda x, y: aten._unsafe_index_put(x, [ROWS], y),
        [X, (2, 4)],
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("gather", lambda x, i: x.gather(1, i), [X, integers(3, 2, high=4)], pinned={(0, 1): ALL, (1, 1): ALL}),
    Case(
        "gather",
        lambda x, i: x.gather(1, i),
        [X, integers(2, 2, high=4)],
        "shorter",
        pinned={(0, 0): ALL, (0, 1): ALL, (1, 0): ALL, (1, 1): ALL},
    ),
    Case(
        "scatter",
        lambda x, i, y: x.scatter(1, i, y),
        [X, torch.tensor([[0, 2]] * 3), (3, 2)],
        pinned={(0, 1): ALL, (1, 1): ALL, (2, 1): ALL},
    ),
    Case(
        "scatter",
        lambda x, i: x.scatter(0, i, 0.5),
        [X, integers(2, 4, high=3)],
        "a number",
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case(
        "scatter_add",
        lambda x, i, y: x.scatter_add(0, i, y),
        [X, integers(2, 4, high=3), (2, 4)],
        pinned={(0, 0): ALL, (1, 0): ALL, (2, 0): ALL},
    ),
    Case(
        "scatter_reduce",
        lambda x, i, y: x.scatter_reduce(0, i, y, "amax"),
        [X, integers(2, 4, high=3), (2, 4)],
        pinned={(0, 0): ALL, (1, 0): ALL, (2, 0): ALL},
    ),
    Case("index_add", lambda x, y: x.index_add(0, ROWS, y), [X, (2, 4)], pinned={(0, 0): ALL, (1, 0): ALL}),
    Case("index_copy", lambda x, y: x.index_copy(0, ROWS, y), [X, (2, 4)], pinned={(0, 0): ALL, (1, 0): ALL}),
    Case(
        "index_add",
        lambda x, i, y: x.index_add(1, i, y),
        [X, ROWS, (3, 2)],
        "labelled index",
        pinned={(0, 1): ALL, (1, 0): ALL, (2, 1): ALL},
    ),
    Case("index_fill", lambda x: x.index_fill(1, ROWS, 0.5), [X], pinned={(0, 1): ALL}),
    Case("embedding", lambda w: F.embedding(torch.tensor([[2, 0, 1], [1, 1, 0]]), w), [X], pinned={(0, 0): ALL}),
    Case(
        "embedding",
        lambda i, w: F.embedding(i, w),
        [integers(2, 3, high=3), X],
        "labelled index",
        pinned={(0, 0): ALL, (0, 1): ALL, (1, 0): ALL},
    ),
    *(
        Case(
            "_embedding_bag_forward_only",
            lambda w, m=m: F.embedding_bag(torch.tensor([[2, 0, 1], [1, 1, 0]]), w, mode=m),
            [X],
            m,
            pinned={(0, 0): ALL},
        )
        for m in ("sum", "mean", "max")
    ),
    Case("_embedding_bag", lambda w: aten._embedding_bag(w, ROWS, torch.tensor([0, 1]))[0], [X], pinned={(0, 0): ALL}),
    Case(
        "_embedding_bag_forward_only",
        lambda w, s: F.embedding_bag(torch.tensor([[2, 0, 1], [1, 1, 0]]), w, mode="sum", per_sample_weights=s),
        [X, (2, 3)],
        "weighted",
        pinned={(0, 0): ALL, (1, 0): ALL, (1, 1): ALL},
    ),
    Case("unfold", lambda x: x.unfold(1, 2, 1), [(2, 4, 3)], pinned={(0, 1): ALL}),
    Case("diagonal", lambda x: x.diagonal(0, 0, 2), [(3, 4, 3)], pinned={(0, 0): ALL, (0, 2): ALL}),
    Case("diagonal", torch.diagonal, [(3, 3)], "default", pinned={(0, 0): ALL, (0, 1): ALL}),
    Case("diagonal_copy", aten.diagonal_copy, [(3, 3)], pinned={(0, 0): ALL, (0, 1): ALL}),
    Case("diag_embed", torch.diag_embed, [X], pinned={(0, 1): ALL}),
    Case("diag_embed", lambda x: torch.diag_embed(x, 0, 0, 2), [X], "dims", pinned={(0, 1): ALL}),
    Case("tril", torch.tril, [(2, 3, 3)], pinned={(0, 1): ALL, (0, 2): ALL}),
    Case("triu", torch.triu, [(2, 3, 3)], pinned={(0, 1): ALL, (0, 2): ALL}),
    Case("as_strided", lambda x: x.as_strided((2, 2), (4, 1)), [X], pinned={(0, 0): ALL, (0, 1): ALL}),
    Case("as_strided_copy", lambda x: aten.as_strided_copy(x, (2, 2), (4, 1)), [X], pinned={(0, 0): ALL, (0, 1): ALL}),
]

CASES = [*INDEXING]

"""Indices read from data: gathers, scatters, embeddings."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import BOTH, ROWS, X, aten, bools, integers


def _index_reduce(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "index_reduce\\(\\) is in beta")
        return x.index_reduce(0, ROWS, y, "amax")


CASES = [
    Case("index_select", lambda x: x.index_select(0, ROWS), [X], pinned={(0, 0): ALL}),
    Case(
        "index_select",
        lambda x, i: x.index_select(1, i),
        [X, integers(2, high=4)],
        "labelled index",
        pinned={(0, 1): ALL},
    ),
    Case("take", lambda x: x.take(ROWS), [X], pinned=BOTH),
    Case("take", torch.take, [X, integers(2, 3, high=12)], "labelled index", pinned=BOTH),
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
        pinned={(0, 1): ALL},
    ),
    Case(
        "index",
        lambda x, i, j: x[i[:, None], :, j],
        [(3, 2, 4), integers(3, high=3), integers(2, high=4)],
        "labelled indices, not adjacent",
        pinned={(0, 0): ALL, (0, 2): ALL},
    ),
    Case(
        "index",
        lambda x, i, j: x[i, j],
        [(3, 4), integers(3, high=3), integers(3, high=4)],
        "labelled indices that meet",
        pinned=BOTH,
    ),
    Case(
        "index",
        lambda x, i: x[i, ROWS],
        [X, integers(2, high=3)],
        "labelled index that meets another",
        pinned=BOTH | {(1, 0): ALL},
    ),
    Case(
        "index",
        lambda x, i: x[i, torch.tensor([True, False, True, False])],
        [X, integers(2, high=3)],
        "labelled index that meets a mask",
        pinned=BOTH | {(1, 0): ALL},
    ),
    Case(
        "index",
        lambda x, m: x[m].sum(0),
        [X, bools(3)],
        "labelled mask",
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("index", lambda x: x.view(len(x), 2, -1)[:, ROWS % 2], [(2, 6)], "rows of a split axis"),
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
    Case(
        "index_put",
        lambda x, i, y: torch.index_put(x, (i,), y),
        [X, torch.tensor([0, 2]), (2, 4)],
        "labelled index",
        pinned={(0, 0): ALL, (1, 0): ALL, (2, 0): ALL},
    ),
    Case(
        "index_put",
        lambda x, y: torch.index_put(x, (ROWS,), y, accumulate=True),
        [X, (2, 4)],
        "added",
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("index_put", lambda x, y: x.__setitem__(bools(3), y) or x, [X, (4,)], "mask", pinned={(0, 0): ALL}),
    Case(
        "index_put",
        lambda x: aten.index_put(x, [None, ROWS], torch.tensor(0.5, dtype=x.dtype)),
        [X],
        "a number",
        pinned={(0, 1): ALL},
    ),
    Case("index_put", lambda x: x.__setitem__(x > 0, 0.5) or x, [X], "one value where it is positive"),
    Case("index_put", lambda x, y: x.__setitem__(y > 0, 0.5) or x, [X, X], "one value where another is positive"),
    Case(
        "index_put",
        lambda x, y: x.__setitem__(x > 0, y[0, 0]) or x,
        [X, X],
        "one value of a tensor",
        pinned={(1, 0): [0], (1, 1): [0]},
    ),
    Case("_index_put_impl", lambda x, y: aten._index_put_impl(x, [ROWS], y), [X, (4,)], pinned={(0, 0): ALL}),
    Case(
        "_unsafe_index_put",
        lambda x, y: aten._unsafe_index_put(x, [ROWS], y),
        [X, (2, 4)],
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("gather", lambda x, i: x.gather(1, i), [X, integers(3, 2, high=4)], pinned={(0, 1): ALL}),
    Case(
        "gather",
        lambda x, i: x.gather(1, i),
        [X, integers(2, 2, high=4)],
        "shorter",
        pinned={(0, 0): ALL, (0, 1): ALL, (1, 0): ALL},
    ),
    Case(
        "gather",
        lambda x, i: x.gather(0, i[:, None].expand(-1, x.shape[1])),
        [X, integers(2, high=3)],
        "expanded",
        pinned={(0, 0): ALL},
    ),
    Case(
        "gather",
        lambda x, i: x.take_along_dim(i[:, None], 0),
        [X, integers(2, high=3)],
        "take_along_dim",
        pinned={(0, 0): ALL},
    ),
    Case(
        "gather",
        lambda x, i: x.view(len(x), 2, -1).gather(1, i.view(len(i), 2, -1)),
        [(2, 6), integers(2, 6, high=2)],
        "rows of a split axis",
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
    Case(
        "index_reduce",
        _index_reduce,
        [X, (2, 4)],
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("index_fill", lambda x: x.index_fill(1, ROWS, 0.5), [X], pinned={(0, 1): ALL}),
    Case("embedding", lambda w: F.embedding(torch.tensor([[2, 0, 1], [1, 1, 0]]), w), [X], pinned={(0, 0): ALL}),
    Case(
        "embedding",
        lambda i, w: F.embedding(i, w),
        [integers(2, 3, high=3), X],
        "labelled index",
        pinned={(1, 0): ALL},
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
    Case(
        "masked_scatter",
        lambda x, m, y: x.masked_scatter(m, y),
        [X, bools(*X), X],
        pinned={(i, a): ALL for i in range(3) for a in (0, 1)},
    ),
    Case(
        "masked_scatter",
        lambda x, m, y: x.masked_scatter(m[..., None].expand_as(x), y),
        [(2, 3, 4), torch.tensor([[True, False, True], [False, True, False]]), X],
        "whole rows, expanded",
        pinned=dict.fromkeys(((0, 0), (0, 1), (1, 0), (1, 1), (2, 0)), ALL),
    ),
    Case(
        "masked_scatter",
        lambda x, y: x.masked_scatter(torch.tensor([True, False, True])[:, None], y),
        [X, (2, 4)],
        "whole rows",
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case(
        "masked_scatter",
        lambda x, y: x.masked_scatter(torch.tensor([True, False, True])[:, None], y),
        [X, (4, 2)],
        "values in other rows",
        pinned=BOTH | {(1, 0): ALL, (1, 1): ALL},
    ),
    Case(
        "segment_reduce",
        lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([1, 2])),
        [X],
        pinned={(0, 0): ALL},
    ),
    Case(
        "segment_reduce",
        lambda x, n: torch.segment_reduce(x, "max", lengths=n, axis=0, unsafe=True),
        [X, torch.tensor([1, 2])],
        "labelled lengths",
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
]

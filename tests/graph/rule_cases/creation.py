"""Tensors made from others, and what is read from data."""

from __future__ import annotations

import torch

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import BOTH, ROWS, X, bools, integers, positive

DATA = [
    *(
        Case(f"new_{name}", lambda x, name=name: getattr(x, f"new_{name}")((2, 3)), [X], deaf=[0])
        for name in ("zeros", "ones")
    ),
    Case("new_full", lambda x: x.new_full((2, 3), 1.0), [X], deaf=[0]),
    Case("new_empty zero", lambda x: x.new_empty((2, 3)).zero_(), [X], deaf=[0]),
    Case("new_empty_strided zero", lambda x: x.new_empty_strided((2, 3), (3, 1)).zero_(), [X], deaf=[0]),
    Case("nonzero", lambda x: torch.cat([x.nonzero(), torch.zeros(12, 2)])[:12], [bools(*X)], pinned=BOTH),
    Case("multinomial", lambda x: x.multinomial(2), [positive(*X)], pinned=BOTH, random=True),
    Case("bincount", lambda x: torch.bincount(x, minlength=9), [integers(6)], pinned={(0, 0): ALL}),
    Case("_unique2", lambda x: torch.cat([torch.unique(x), torch.zeros(9)])[:9], [integers(6)], pinned={(0, 0): ALL}),
    Case(
        "searchsorted",
        lambda x, y: torch.searchsorted(x.sort().values.detach(), y),
        [(5,), (3,)],
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("bucketize", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0, 1])), [X], pinned=BOTH),
    Case(
        "repeat_interleave",
        lambda x, r: x.repeat_interleave(r, 0).sum(0),
        [X, integers(3)],
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("histc", lambda x: x.histc(5, -2, 2), [X], pinned=BOTH),
    Case("take", lambda x: x.take(ROWS), [X], pinned=BOTH),
    Case("masked_select", lambda x: x.masked_select(torch.eye(3, 4) > 0), [X], pinned=BOTH),
    Case(
        "masked_scatter",
        lambda x, m, y: x.masked_scatter(m, y),
        [X, bools(*X), X],
        pinned={(i, a): ALL for i in range(3) for a in (0, 1)},
    ),
]

CASES = [*DATA]

"""Tensors made from others, and what is read from data."""

from __future__ import annotations

import torch

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import BOTH, ROWS, X, aten, bools, integers, normal, positive

SORTED = normal(*X).sort().values

DATA = [
    *(
        Case(f"new_{name}", lambda x, name=name: getattr(x, f"new_{name}")((2, 3)), [X], deaf=[0])
        for name in ("zeros", "ones")
    ),
    Case("new_full", lambda x: x.new_full((2, 3), 1.0), [X], deaf=[0]),
    Case("new_empty zero", lambda x: x.new_empty((2, 3)).zero_(), [X], deaf=[0]),
    Case("new_empty_strided zero", lambda x: x.new_empty_strided((2, 3), (3, 1)).zero_(), [X], deaf=[0]),
    Case("nonzero", lambda x: torch.cat([x.nonzero(), torch.zeros(12, 2)])[:12], [bools(*X)], pinned=BOTH),
    Case("bincount", lambda x: torch.bincount(x, minlength=9), [integers(6)], pinned={(0, 0): ALL}),
    Case("_unique2", lambda x: torch.cat([torch.unique(x), torch.zeros(9)])[:9], [integers(6)], pinned={(0, 0): ALL}),
    Case(
        "repeat_interleave",
        lambda x, r: x.repeat_interleave(r, 0).sum(0),
        [X, integers(3)],
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case("histc", lambda x: x.histc(5, -2, 2), [X], pinned=BOTH),
    Case("masked_select", lambda x: x.masked_select(torch.eye(3, 4) > 0), [X], pinned=BOTH),
    Case("nonzero_static", lambda x: x.nonzero_static(size=6), [bools(*X)], pinned=BOTH),
    *(
        Case(name, lambda x, f=f: torch.cat([f(x), torch.zeros(9)])[:9], [integers(6)], pinned={(0, 0): ALL})
        for name, f in (
            ("_unique", lambda x: aten._unique(x)[0]),
            ("unique_consecutive", torch.unique_consecutive),
            ("unique_dim", lambda x: x.unique(dim=0)),
            ("unique_dim_consecutive", lambda x: aten.unique_dim_consecutive(x, 0)[0]),
        )
    ),
    Case("histogram", lambda x: x.histogram(5, range=(-2.0, 2.0)).hist, [X], pinned=BOTH),
    Case("put", lambda x, y: x.put(ROWS, y), [X, (2,)], pinned=BOTH | {(1, 0): ALL}),
]

INSIDE_TORCH = [
    *(
        Case(name, lambda x, f=f: x + f(x.shape), [X], "inside torch", resizable=True)
        for name, f in (("zeros", torch.zeros), ("ones", torch.ones), ("full", lambda s: torch.full(s, 2.0)))
    ),
    *(
        Case(name, lambda x, f=f: x + f(x.shape), [X], "inside torch", resizable=True, random=True)
        for name, f in (("rand", torch.rand), ("randn", torch.randn))
    ),
    Case("empty bernoulli", lambda x: x * torch.empty(x.shape).bernoulli_(), [X], resizable=True, random=True),
    Case(
        "new_empty bernoulli",
        lambda x: x * x.new_empty((len(x), x.shape[1], 1)).bernoulli_(),
        [(2, 3, 4)],
        "inside torch",
        resizable=True,
        random=True,
    ),
    Case("arange", lambda x: x + torch.arange(x.shape[1]), [X], pinned={(0, 1): ALL}, resizable=True),
    Case("linspace", lambda x: x + torch.linspace(0, 1, x.shape[1]), [X], pinned={(0, 1): ALL}, resizable=True),
    Case("logspace", lambda x: x + torch.logspace(0, 1, x.shape[1]), [X], pinned={(0, 1): ALL}, resizable=True),
    Case("eye", lambda x: x + torch.eye(*x.shape), [X], pinned=BOTH, resizable=True),
]

LOOKED_UP = [
    Case("multinomial", lambda x: x.multinomial(2), [positive(*X)], pinned={(0, 1): ALL}, random=True),
    Case(
        "searchsorted",
        lambda x, y: torch.searchsorted(x.sort().values, y),
        [(5,), (2, 3)],
        pinned={(0, 0): ALL},
    ),
    Case("searchsorted", torch.searchsorted, [SORTED, (3, 5)], "rows", pinned={(0, 1): ALL}),
    Case(
        "searchsorted",
        lambda x, y, s: torch.searchsorted(x, y, sorter=s),
        [X, (3, 5), normal(*X).argsort()],
        "sorter",
        pinned={(0, 1): ALL, (2, 1): ALL},
    ),
    Case("searchsorted", lambda x: torch.searchsorted(x.sort().values, 0.1), [(5,)], "a number", pinned={(0, 0): ALL}),
    Case("bucketize", lambda x: torch.bucketize(x, torch.tensor([-1.0, 0, 1])), [X]),
    Case("bucketize", torch.bucketize, [X, torch.arange(3.0) - 1], "labelled bounds", pinned={(1, 0): ALL}),
    Case("isin", torch.isin, [integers(*X), torch.tensor([0, 3])], pinned={(1, 0): ALL}),
    Case("isin", lambda x: torch.isin(2, x), [integers(4)], "a number", pinned={(0, 0): ALL}),
]

CASES = [*DATA, *INSIDE_TORCH, *LOOKED_UP]

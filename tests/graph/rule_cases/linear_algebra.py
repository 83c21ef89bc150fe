"""Matrices as a whole, solvers, and products of other forms than the usual ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import X, aten, normal

BATCH = (2, 3, 3)
MATRIX = {(0, 1): ALL, (0, 2): ALL}
EVERYTHING = {(i, a): ALL for i in (0, 1) for a in (0, 1, 2)}
TRIPLE = {(i, a): ALL for i, rank in enumerate((3, 2, 3)) for a in range(rank)}
DEFINITE = normal(*BATCH) @ normal(*BATCH).mT + torch.eye(3)
LOWER = normal(*BATCH).tril() + 3 * torch.eye(3)


def _values(decomposition: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The part of a decomposition that is the same on every machine."""
    return lambda x: decomposition(x)[0].abs()


WHOLE = [
    Case("_linalg_det", torch.linalg.det, [BATCH], pinned=MATRIX),
    Case("_linalg_slogdet", lambda x: torch.linalg.slogdet(x).logabsdet, [BATCH], pinned=MATRIX),
    Case("linalg_inv_ex", torch.linalg.inv, [DEFINITE], pinned=MATRIX),
    Case("linalg_pinv", torch.linalg.pinv, [(2, 4, 3)], pinned=MATRIX),
    Case("cholesky_inverse", torch.cholesky_inverse, [LOWER], pinned=MATRIX),
    *(
        Case(name, lambda x, f=f: f(x @ x.mT + torch.eye(3)), [BATCH], pinned={(0, 1): ALL})
        for name, f in (("linalg_cholesky_ex", torch.linalg.cholesky), ("cholesky", aten.cholesky))
    ),
    Case("linalg_lu", torch.linalg.lu, [DEFINITE], pinned=MATRIX),
    Case("linalg_lu_factor_ex", lambda x: torch.linalg.lu_factor(x)[0], [DEFINITE], pinned=MATRIX),
    Case(
        "lu_unpack",
        lambda x, p: torch.lu_unpack(x, p)[1],
        [DEFINITE, torch.tensor([[1, 2, 3]] * 2, dtype=torch.int32)],
        pinned=MATRIX | {(0, 0): ALL, (1, 0): ALL, (1, 1): ALL},
        deaf=[1],
    ),
    Case("linalg_ldl_factor_ex", lambda x: torch.linalg.ldl_factor(x)[0], [DEFINITE], pinned=MATRIX),
    Case(
        "linalg_ldl_solve",
        lambda x, b: torch.linalg.ldl_solve(x, torch.tensor([[1, 2, 3]] * len(x), dtype=torch.int32), b),
        [LOWER, (2, 3, 4)],
        pinned=EVERYTHING,
    ),
    Case("linalg_qr", _values(torch.linalg.qr), [(2, 4, 3)], pinned=MATRIX),
    Case("geqrf", _values(torch.geqrf), [(2, 4, 3)], pinned=MATRIX),
    Case(
        "linalg_householder_product",
        torch.linalg.householder_product,
        [(2, 4, 3), (2, 3)],
        pinned=MATRIX | {(0, 0): ALL, (1, 0): ALL, (1, 1): ALL},
    ),
    Case("ormqr", torch.ormqr, [(2, 4, 3), (2, 3), (2, 4, 5)], pinned=TRIPLE),
    Case("linalg_eig", lambda x: torch.linalg.eig(x)[0].abs(), [DEFINITE], pinned=MATRIX),
    Case("_linalg_eigvals", lambda x: aten._linalg_eigvals(x).abs(), [DEFINITE], pinned=MATRIX),
    Case("_linalg_eigh", lambda x: torch.linalg.eigh(x)[0], [DEFINITE], pinned=MATRIX),
    Case("_linalg_svd", lambda x: torch.linalg.svd(x)[1], [(2, 4, 3)], pinned=MATRIX),
    Case("linalg_lstsq", lambda a, b: torch.linalg.lstsq(a, b)[0], [(2, 4, 3), (2, 4, 2)], pinned=EVERYTHING),
    Case("linalg_matrix_exp", torch.linalg.matrix_exp, [BATCH], pinned=MATRIX),
]

RIGHT = MATRIX | {(1, 1): ALL}
SOLVERS = [
    Case("_linalg_solve_ex", torch.linalg.solve, [DEFINITE, (2, 3, 4)], pinned=RIGHT),
    Case(
        "_linalg_solve_ex",
        lambda a, b: torch.linalg.solve(a, b, left=False),
        [DEFINITE, (2, 4, 3)],
        "from the right",
        pinned=MATRIX | {(1, 2): ALL},
    ),
    Case(
        "_linalg_solve_ex",
        torch.linalg.solve,
        [DEFINITE[0], (3,)],
        "a vector",
        pinned={(0, 0): ALL, (0, 1): ALL, (1, 0): ALL},
    ),
    Case(
        "linalg_solve_triangular",
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=False),
        [LOWER, (2, 3, 4)],
        pinned=RIGHT,
    ),
    Case(
        "linalg_solve_triangular",
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=False),
        [LOWER[0], (2, 3, 4)],
        "one matrix for a batch",
        pinned={(0, 0): ALL, (0, 1): ALL, (1, 1): ALL},
    ),
    Case(
        "triangular_solve",
        lambda b, a: aten.triangular_solve(b, a, False)[0],
        [(2, 3, 4), LOWER],
        pinned={(0, 1): ALL, (1, 1): ALL, (1, 2): ALL},
    ),
    Case(
        "cholesky_solve",
        torch.cholesky_solve,
        [(2, 3, 4), LOWER],
        pinned={(0, 1): ALL, (1, 1): ALL, (1, 2): ALL},
    ),
    Case(
        "linalg_lu_solve",
        lambda a, b: torch.linalg.lu_solve(a, torch.tensor([[1, 2, 3]] * len(a), dtype=torch.int32), b),
        [DEFINITE, (2, 3, 4)],
        pinned=RIGHT,
    ),
]

OTHERS = [
    Case("linalg_cross", torch.linalg.cross, [(4, 3), (4, 3)], pinned={(0, 1): ALL, (1, 1): ALL}),
    Case("dist", torch.dist, [X, X]),
    Case("dist", lambda x, y: torch.dist(x, y, 1), [X, (4,)], "broadcast", mixed=[(0, 0)]),
    Case("dist", lambda x, y: torch.dist(x, y, -1), [X, X], "negative", mixed=[(0, 0), (0, 1), (1, 0), (1, 1)]),
    Case("_pdist_forward", lambda x: torch.pdist(x, 1), [X], pinned={(0, 0): ALL}),
]

OFFSETS = torch.tensor([2, 2, 5], dtype=torch.int32)
NEIGHBOURS = torch.tensor([[1.0, 0, 2], [0, 3, 1]], dtype=torch.float64).to_sparse()
PRODUCTS = [
    Case(
        "conv_tbc",
        torch.conv_tbc,
        [(5, 2, 3), (2, 3, 4), (4,)],
        pinned={(0, 0): ALL, (1, 0): ALL},
        macs=4 * 2 * 2 * 3 * 4,
    ),
    Case(
        "_sparse_addmm",
        lambda y: torch.sparse.mm(NEIGHBOURS, y),
        [(3, 4)],
        pinned={(0, 0): ALL},
        macs=2 * 3 * 4,
    ),
    Case(
        "_sparse_addmm",
        lambda x, y: torch.sparse.addmm(x, NEIGHBOURS, y),
        [(4,), (3, 4)],
        "added",
        pinned={(1, 0): ALL},
        macs=2 * 3 * 4,
    ),
    Case(
        "_grouped_mm",
        lambda x, w: torch._grouped_mm(x, w.mT, offs=OFFSETS),
        [normal(5, 8).float(), normal(3, 6, 8).float()],
        pinned={(0, 0): ALL, (1, 0): ALL},
        macs=5 * 8 * 6,
    ),
    Case(
        "_grouped_mm",
        lambda x, w, i: torch._grouped_mm(x.T, w, offs=i),
        [normal(4, 8).float(), normal(3, 4, 8).float(), torch.tensor([2, 4, 8], dtype=torch.int32)],
        "labelled counts, other memory formats",
        pinned={(0, 1): ALL, (1, 0): ALL, (2, 0): ALL},
        macs=8 * 4 * 8,
    ),
    Case(
        "_grouped_mm",
        lambda x, w: torch._grouped_mm(x, w),
        [normal(3, 5, 4).float(), normal(3, 4, 8).float()],
        "a batch",
        pinned=EVERYTHING,
        macs=0,
    ),
]

CASES = [*WHOLE, *SOLVERS, *OTHERS]

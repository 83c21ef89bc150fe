"""Matrices as a whole: factorisations, inverses and solvers; and products of other forms than the usual ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factors
from secateur.graph.rules.base import Extents, Masked, OpCall, Term, names, rule

# what is done to a matrix: the operators that do it
WHOLE = {
    "a determinant": names("_linalg_det _linalg_slogdet"),
    "a matrix inverse": names("linalg_inv_ex linalg_pinv cholesky_inverse"),
    "a Cholesky factorisation": names("linalg_cholesky_ex cholesky"),
    "an LU factorisation": names("linalg_lu linalg_lu_factor_ex lu_unpack linalg_ldl_factor_ex linalg_ldl_solve"),
    "a QR factorisation": names("linalg_qr geqrf ormqr linalg_householder_product"),
    "an eigenvalue decomposition": names("linalg_eig _linalg_eigvals _linalg_eigh"),
    "a singular value decomposition": names("_linalg_svd"),
    "a least-squares solution": names("linalg_lstsq"),
    "a matrix exponential": names("linalg_matrix_exp"),
}


def _whole(call: OpCall, *, what: str) -> Sequence[Factors]:
    """Every element depends on the whole matrix, which must stay; each index of a batch has its own."""
    reason = f"{what} over its channels"
    matrix, *others = call.tensors()
    if others:
        call.fix_all(call.tensors(), reason)
        return [() for _ in call.outputs]
    batch = call.fix_dims(call.labels_of(matrix), [matrix.dim() - 2, matrix.dim() - 1], reason)
    return [batch for _ in call.outputs]


for _what, _operators in WHOLE.items():
    rule(*_operators, what=_what)(_whole)

# operator: (the matrix, the right-hand sides)
SOLVERS = {
    "_linalg_solve_ex": ("A", "B"),
    "linalg_solve_triangular": ("self", "B"),
    "triangular_solve": ("A", "self"),
    "cholesky_solve": ("input2", "self"),
    "linalg_lu_solve": ("LU", "B"),
}


def _solve(call: OpCall, *, matrix: str, sides: str) -> Sequence[Factors]:
    """Unknowns and equations must stay; each right-hand side has its own solution."""
    what = "a system of linear equations over its channels"
    matrices, right = call[matrix], call[sides]
    others = [t for t in call.tensors() if t is not matrices and t is not right]
    if right.dim() < matrices.dim():
        call.fix_all(call.tensors(), what)
        return [() for _ in call.outputs]
    call.fix_all(others, what)
    equations = -2 if call.arguments.get("left", True) else -1
    operands = []
    for tensor, dims in ((matrices, (-2, -1)), (right, (equations,))):
        kept = call.fix_dims(call.labels_of(tensor), [tensor.dim() + d for d in dims], what)
        extents = [1 if d - tensor.dim() in dims else n for d, n in enumerate(tensor.shape)]
        operands.append(Operand.broadcast(kept, extents, call.out.dim()))
    return [algebra.align(call.facts, operands, call.site), *[() for _ in call.outputs[1:]]]


for _name, (_matrix, _sides) in SOLVERS.items():
    rule(_name, matrix=_matrix, sides=_sides)(_solve)


@rule("linalg_cross")
def cross(call: OpCall) -> Sequence[Factors]:
    """Products of three coordinates, which must stay."""
    labels = call.aligned([call["self"], call["other"]], call.out.dim())
    return [call.fix_dims(labels, [call["dim"] % call.out.dim()], "coordinates of a cross product")]


@rule("dist")
def dist(call: OpCall) -> Sequence[Factors]:
    """The norm of a difference: indices that are zero in both add nothing, those that only one has do."""
    tensors = [call["self"], call["other"]]
    rank = max(t.dim() for t in tensors)
    for factor in call.aligned(tensors, rank):
        back = [{d + rank - t.dim(): d for d in range(t.dim()) if t.shape[d] > 1} for t in tensors]
        if call["p"] < 0 or not all(set(factor.dims) <= set(to) for to in back):
            call.mix((factor,), f"norm of order {call['p']} over channels")
        else:
            call.masked.extend(Masked(t, factor.moved(to)) for t, to in zip(tensors, back, strict=True))
    return [()]


@rule("_pdist_forward")
def pdist(call: OpCall) -> Sequence[Factors]:
    """Distances between rows, which are paired by position: rows stay, indices that are zero in both add nothing."""
    columns = call.fix_dims(call.factors("self"), [0], "rows paired by position")
    call.masked.extend(Masked(call["self"], f) for f in columns)
    return [()]


@rule("_sparse_addmm")
def sparse_product(call: OpCall) -> Sequence[Factors]:
    """A sparse matrix, of neighbours in a graph, say, times a dense one, added to another where that counts."""
    labels = call.contract("kn,mk->mn", call.term(call["mat2"]), call.term(call["mat1"]))
    return [call.add_last(labels, call["self"] if call["beta"] else None)]


@rule("conv_tbc")
def conv_tbc(call: OpCall) -> Sequence[Factors]:
    """A convolution over time of (time, batch, channels)."""
    inputs, kernel = call["self"], call["weight"]
    steps = call.fix_dims(call.factors("self"), [0], "position under a kernel")
    weight = call.fix_dims(call.factors("weight"), [0], "kernel position")
    first = Term(tuple(f.moved({1: 0, 2: 1}) for f in steps), tuple(inputs.shape[1:]), None)
    second = Term(tuple(f.moved({1: 0, 2: 1}) for f in weight), tuple(kernel.shape[1:]), None)
    labels = call.contract("bi,io->bo", first, second)
    (extents,) = call.macs
    call.macs[:] = [Extents(extents.constant * kernel.shape[0] * call.out.shape[0], extents.arrays)]
    call.masked.extend(Masked(inputs, f) for f in steps if f.free == 2)
    if call.is_weight(kernel):
        call.consumed.extend(f.labels for f in weight if f.free == 1)
        call.produced.extend(f.labels for f in weight if f.free == 2)
    return [call.add_last(tuple(f.moved([1, 2]) for f in labels), call["bias"])]


@rule("_grouped_mm", "transformers.grouped_mm_fallback")
def grouped_mm(call: OpCall) -> Sequence[Factors]:
    """Rows sorted by expert, each times its expert's matrix: (rows, k), (experts, k, n) -> (rows, n)."""
    rows, experts = (call.arguments[n] for n in (("self", "mat2") if "self" in call.arguments else ("input", "weight")))
    others = [t for t in call.tensors() if t is not rows and t is not experts]
    if (rows.dim(), experts.dim(), len(others)) != (2, 3, 1):
        call.fix_all(call.tensors(), "a product of matrices in other layouts than (rows, k), (experts, k, n)")
        return [()]
    call.fix_all(others, "counts of rows for each expert")
    counted = call.fix_dims(call.labels_of(rows), [0], "rows counted for each expert")
    passed = call.fix_dims(call.labels_of(experts), [0], "an expert, chosen by its number")
    if call.name == "aten._grouped_mm":
        _keep_aligned(call, rows, counted)
        _keep_aligned(call, experts, passed)
    weight = Term(tuple(f.moved({1: 0, 2: 1}) for f in passed), tuple(experts.shape[1:]), experts)
    return [call.contract("sk,kn->sn", Term(counted, tuple(rows.shape), rows), weight)]


_ALIGNMENT = 16
"""Bytes: the kernel takes only matrices whose rows begin at multiples of it."""


def _keep_aligned(call: OpCall, tensor: torch.Tensor, factors: Factors) -> None:
    """The dimension that lies consecutively in memory keeps a multiple of some number: as many of each share of it."""
    shares = _ALIGNMENT // tensor.element_size()
    for factor in factors:
        if tensor.stride(factor.free) == 1:
            call.facts.balance(factor.labels.reshape(shares, -1), f"rows of a multiple of 16 bytes ({call.site})")

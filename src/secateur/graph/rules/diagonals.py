"""Two dimensions paired by position: diagonals, triangles, blocks on a diagonal.

Where both are pruned, the same index leaves both, and every pair keeps its order; an offset counts positions, which
must stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import NONE, Factor, Factors, Labels
from secateur.graph.rules.base import Masked, OpCall, rule

PAIRED = "paired with another dimension by position"


def _pair(call: OpCall, factors: Factors, dims: tuple[int, int], *, exact: bool) -> tuple[Labels | None, Factors]:
    """(the labels of the pair, the labels of other dimensions); unless ``exact``, and both are pruned, all stay."""
    on = {f.free: f for f in factors if f.free in dims}
    rest = call.fix_dims(tuple(f for f in factors if f.free not in dims), dims, PAIRED)
    found = [algebra.collapse(call.facts, on[d], d, f"{PAIRED} ({call.site})") for d in dims if d in on]
    if len(found) == 2 and exact and len(found[0].labels) == len(found[1].labels):
        call.facts.equate(found[0].labels, found[1].labels, PAIRED)
        return found[0].labels, rest
    for factor in found:
        call.fix(factor.labels, PAIRED)
    return None, rest


def _on(labels: Labels | None, *dims: int) -> Factors:
    return () if labels is None else tuple(Factor((d,), labels) for d in dims)


@rule("tril", "triu")
def triangles(call: OpCall) -> Sequence[Factors]:
    """Elements below or above the diagonal, with or without it."""
    rank, diagonal = call["self"].dim(), call["diagonal"]
    dims = (rank - 2, rank - 1)
    exact = diagonal in ((0, -1) if call.name == "aten.tril" else (0, 1))
    labels, rest = _pair(call, call.factors("self"), dims, exact=exact)
    return [(*_on(labels, *dims), *rest)]


@rule("diagonal", "diagonal_copy")
def diagonal(call: OpCall) -> Sequence[Factors]:
    """The pair becomes the last dimension."""
    rank = call["self"].dim()
    dims = (call["dim1"] % rank, call["dim2"] % rank)
    labels, rest = _pair(call, call.factors("self"), dims, exact=call["offset"] == 0)
    return [(*algebra.renumber_without(rest, dims, rank), *_on(labels, rank - 2))]


@rule("trace")
def trace(call: OpCall) -> Sequence[Factors]:
    """The sum of the diagonal: a removed index and a zero add the same."""
    labels, _ = _pair(call, call.factors("self"), (0, 1), exact=True)
    for factor in _on(labels, 0):
        call.masked.append(Masked(call["self"], factor))
        if call.is_weight(call["self"]):
            call.consumed.append(factor.labels)
    return [()]


@rule("diag_embed")
def diag_embed(call: OpCall) -> Sequence[Factors]:
    """The last dimension is spread on the diagonal of a pair."""
    rank = call.out.dim()
    pair = (call["dim1"] % rank, call["dim2"] % rank)
    others = [d for d in range(rank) if d not in pair]
    spread, rest = [], []
    for factor in call.factors("self"):
        if rank - 2 in factor.dims:
            spread.append(algebra.collapse(call.facts, factor, rank - 2, f"spread on a diagonal ({call.site})").labels)
        else:
            rest.append(factor.moved(others))
    if call["offset"]:
        for labels in spread:
            call.fix(labels, "spread beside a diagonal")
        return [tuple(rest)]
    return [(*rest, *(f for labels in spread for f in _on(labels, *pair)))]


@rule("diagonal_scatter")
def diagonal_scatter(call: OpCall) -> Sequence[Factors]:
    """Values written on a diagonal."""
    rank = call["self"].dim()
    dims = (call["dim1"] % rank, call["dim2"] % rank)
    labels, rest = _pair(call, call.factors("self"), dims, exact=call["offset"] == 0)
    others = [d for d in range(rank) if d not in dims]
    source = call.factors("src")
    if labels is None:
        source = call.fix_dims(source, [rank - 2], PAIRED)
    source = tuple(f.moved([*others, dims[0]]) for f in source)
    extents = tuple(1 if d == dims[1] else n for d, n in enumerate(call["self"].shape))
    base = Operand((*_on(labels, dims[0]), *rest), tuple(call["self"].shape))
    together = algebra.align(call.facts, [base, Operand(source, extents)], call.site)
    return [(*together, *_on(labels, dims[1]))]


@rule("block_diag")
def block_diag(call: OpCall) -> Sequence[Factors]:
    """Matrices along a diagonal: rows and columns are joined, each in order."""
    call.record_produced(call["tensors"])
    rows, columns = [], []
    for tensor in call["tensors"]:
        shape = (1, 1, *tensor.shape)[-2:]
        found = [np.full(n, NONE) for n in shape]
        for factor in call.labels_of(tensor):
            place = factor.free + 2 - tensor.dim()
            found[place] = algebra.collapse(call.facts, factor, factor.free, f"rows joined ({call.site})").labels
        rows.append(found[0])
        columns.append(found[1])
    joined = (Factor((d,), np.concatenate(parts)) for d, parts in enumerate((rows, columns)))
    return [tuple(done for factor in joined for done in algebra.squeezed(factor))]

"""Picking, joining and moving indices: slices, splits, concatenation, gathers, rolls and flips."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

import numpy as np
import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Counted, EqualCounts, Factor, Factors
from secateur.graph.rules.base import OpCall, rule


@rule("slice", "slice_copy")
def slice_(call: OpCall) -> Sequence[Factors]:
    """Indices start, start + step, ... of one dimension."""
    dim = call.dim()
    size = call["self"].shape[dim]
    index = np.arange(size)[slice(call["start"], call["end"], call["step"])]
    return [algebra.take(call.facts, call.factors("self"), dim, index)]


@rule("select", "select_copy")
def select(call: OpCall) -> Sequence[Factors]:
    """One index of one dimension; where that dimension is pruned, the index and those before it must stay."""
    dim, rank = call.dim(), call["self"].dim()
    position = call["index"] % call["self"].shape[dim]
    factors = call.factors("self")
    for factor in factors:
        if factor.free == dim:
            call.fix(factor.labels[..., : position + 1], f"index {position} selected by its number")
    return [algebra.select(call.facts, factors, dim, position, rank)]


@rule("unbind", "unbind_copy")
def unbind(call: OpCall) -> Sequence[Factors]:
    """Every index of one dimension, each a tensor of its own."""
    dim, rank = call.dim(), call["self"].dim()
    factors = call.factors("self")
    for factor in factors:
        if factor.free == dim:
            call.fix(factor.labels, "unbound into one tensor per index")
    return [algebra.select(call.facts, factors, dim, i, rank) for i in range(len(call.outputs))]


@rule("split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes", "chunk", "split_copy", "tensor_split")
def split(call: OpCall) -> Sequence[Factors]:
    """Consecutive pieces, whose lengths keep their proportions."""
    dim = call.dim()
    factors = call.factors("self")
    sizes = [out.shape[dim] for out in call.outputs]
    ends = np.cumsum(sizes)
    pieces = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    for factor in factors:
        if factor.free == dim:
            _keep_proportions(call, factor, pieces)
    return [algebra.take(call.facts, factors, dim, piece) for piece in pieces]


def _keep_proportions(call: OpCall, factor: Factor, pieces: list[np.ndarray]) -> None:
    whole = lcm(*(len(p) for p in pieces if len(p)))
    rows = factor.labels.reshape(-1, factor.labels.shape[-1])
    reason = f"pieces keep their proportions ({call.site})"
    entries = tuple(Counted(row[p], whole // len(p)) for p in pieces if len(p) for row in rows)
    call.facts.counts.append(EqualCounts(entries, reason))


@rule("cat", "concatenate", "concat")
def cat(call: OpCall) -> Sequence[Factors]:
    """Tensors joined along one dimension; empty one-dimensional ones, which torch skips, are skipped."""
    tensors = [t for t in call["tensors"] if not (t.dim() == 1 and t.shape[0] == 0)]
    call.record_produced(tensors)
    dim = call["dim"] % call.out.dim()
    parts = [call.labels_of(t) for t in tensors]
    return [algebra.join(call.facts, parts, [t.shape[dim] for t in tensors], dim, call.site)]


@rule("stack")
def stack(call: OpCall) -> Sequence[Factors]:
    """Tensors joined along a new dimension: equal indices of each leave together."""
    call.record_produced(call["tensors"])
    at = call["dim"] % call.out.dim()
    operands = []
    for tensor in call["tensors"]:
        factors = tuple(f.moved([d + (d >= at) for d in range(tensor.dim())]) for f in call.labels_of(tensor))
        operands.append(Operand(factors, (*tensor.shape[:at], 1, *tensor.shape[at:])))
    return [algebra.align(call.facts, operands, call.site)]


@rule("flip")
def flip(call: OpCall) -> Sequence[Factors]:
    """Dimensions reversed."""
    factors = call.factors("self")
    rank = call["self"].dim()
    for dim in {d % rank for d in call["dims"]}:
        factors = algebra.take(call.facts, factors, dim, np.arange(call["self"].shape[dim])[::-1])
    return [factors]


@rule("roll")
def roll(call: OpCall) -> Sequence[Factors]:
    """Dimensions rotated by a fixed number of places, or all of them flattened if no dimension is named.

    What is rotated round the end must stay, so that the rotation by a number means the same after pruning.
    """
    factors = call.factors("self")
    rank = call["self"].dim()
    if not call["dims"]:
        return [call.fix_dims(factors, range(rank), "rolled as one flat axis")]
    for dim, shift in zip(call["dims"], call["shifts"], strict=True):
        place = dim % rank
        size = call["self"].shape[place]
        if shift % size:
            _fix_rolled(call, factors, place, shift)
        factors = algebra.take(call.facts, factors, place, np.roll(np.arange(size), shift))
    return [factors]


def _fix_rolled(call: OpCall, factors: Factors, dim: int, shift: int) -> None:
    for factor in factors:
        if factor.free == dim:
            moved = factor.labels[..., -shift:] if shift > 0 else factor.labels[..., :-shift]
            call.fix(moved, f"rolled round the end by {shift}")


@rule("index_select")
def index_select(call: OpCall) -> Sequence[Factors]:
    """Indices named by a tensor: those of a pruned dimension must all stay."""
    factors = call.factors("self")
    dim = call.dim()
    kept = call.fix_dims(factors, [dim], "picked by an index tensor")
    call.fix_dims(call.factors("index"), [0], "used as an index")
    return [kept]


@rule("index", "_unsafe_index", "index_put", "_index_put_impl", "_unsafe_index_put")
def index(call: OpCall) -> Sequence[Factors]:
    """Advanced indexing: pruned dimensions that are indexed must stay, the others pass."""
    rank = call["self"].dim()
    used, position = [], 0
    for item in call["indices"]:
        if item is None:
            position += 1
            continue
        width = item.dim() if item.dtype in (torch.bool, torch.uint8) else 1
        used.extend(range(position, position + width))
        position += width
        for factor in call.labels_of(item):
            call.fix(factor.labels, "used as an index")
    factors = call.fix_dims(call.factors("self"), used, "picked by an index tensor")
    if "values" in call.arguments:
        return [_written(call, factors)]
    return [_after_indexing(factors, used, rank, call)]


def _after_indexing(factors: Factors, used: list[int], rank: int, call: OpCall) -> Factors:
    """Advanced indices that are adjacent are replaced in place; otherwise their result comes first."""
    adjacent = used == list(range(used[0], used[-1] + 1)) if used else True
    new_dims = call.out.dim() - (rank - len(used))
    start = used[0] if used and adjacent else 0
    to = {}
    for new, old in enumerate(d for d in range(rank) if d not in used):
        to[old] = new if new < start else new + new_dims
    return tuple(f.moved(to) for f in factors)


def _written(call: OpCall, factors: Factors) -> Factors:
    """Values written at index tensors: trailing dimensions that aren't indexed must agree."""
    values = call["values"]
    rank = call["self"].dim()
    first = next((d for d in range(rank) if d >= len(call["indices"])), rank)
    shift = rank - values.dim()
    theirs = tuple(f.moved([d + shift for d in range(values.dim())]) for f in call.labels_of(values))
    outside = tuple(f for f in theirs if min(f.dims) >= first)
    for factor in theirs:
        if min(factor.dims) < first:
            call.fix(factor.labels, "written at indices named by a tensor")
    extents = (1,) * shift + tuple(values.shape)
    extents = tuple(1 if d < first else n for d, n in enumerate(extents))
    operands = [Operand(factors, tuple(call["self"].shape)), Operand(outside, extents)]
    return algebra.align(call.facts, operands, call.site)


@rule("gather", "take_along_dim")
def gather(call: OpCall) -> Sequence[Factors]:
    """Indices along one dimension are read from data; those of the other dimensions meet index by index."""
    dim = call.dim()
    source = call.fix_dims(call.factors("self"), [dim], "gathered by an index tensor")
    where = call.fix_dims(call.factors("index"), [dim], "used as an index")
    shape = list(call["index"].shape)
    same = [1 if d == dim or n != call["self"].shape[d] else n for d, n in enumerate(shape)]
    shorter = [d for d, n in enumerate(shape) if d != dim and n != call["self"].shape[d]]
    source = call.fix_dims(source, shorter, "gathered from in part")
    return [algebra.align(call.facts, [Operand(source, tuple(same)), Operand(where, tuple(same))], call.site)]


@rule("scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy", "index_fill")
def scatter(call: OpCall) -> Sequence[Factors]:
    """Writes along one dimension at positions read from data; the other dimensions must agree."""
    dim = call.dim()
    operands = []
    for tensor in call.tensors():
        factors = call.fix_dims(call.labels_of(tensor), [dim], "scattered by an index tensor")
        if tensor.dim() == call.out.dim():
            extents = tuple(1 if d == dim else n for d, n in enumerate(tensor.shape))
            operands.append(Operand(factors, extents))
    return [algebra.align(call.facts, operands, call.site)]


@rule("embedding")
def embedding(call: OpCall) -> Sequence[Factors]:
    """Rows of a table, picked by data: the rows stay, the width passes."""
    weight = call.fix_dims(call.factors("weight"), [0], "row of an embedding table")
    indices = call["indices"]
    call.fix_dims(call.factors("indices"), range(indices.dim()), "used as an index")
    call.produced.extend(f.labels for f in weight)
    return [tuple(f.moved({1: indices.dim()}) for f in weight)]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: OpCall) -> Sequence[Factors]:
    """Sums or means of rows of a table: the rows stay, the width passes."""
    weight = call.fix_dims(call.factors("weight"), [0], "row of an embedding table")
    call.produced.extend(f.labels for f in weight)
    return [weight, *[() for _ in call.outputs[1:]]]


@rule("unfold")
def unfold(call: OpCall) -> Sequence[Factors]:
    """Sliding windows along one dimension, which must stay; the windows become the last dimension."""
    dim = call.dim("dimension")
    return [call.fix_dims(call.factors("self"), [dim], "cut into sliding windows")]


@rule("diagonal", "diagonal_copy", "diag_embed", "tril", "triu")
def triangles(call: OpCall) -> Sequence[Factors]:
    """Triangles and diagonals pair two dimensions by position: both must stay."""
    rank = call["self"].dim()
    a = call.arguments.get("dim1", -2) % rank if rank else 0
    b = call.arguments.get("dim2", -1) % rank if rank else 0
    factors = call.fix_dims(call.factors("self"), [a, b], "paired with another dimension by position")
    if call.name in ("aten.diagonal", "aten.diagonal_copy"):
        return [algebra.renumber_without(factors, [a, b], rank)]
    if call.name == "aten.diag_embed":
        return [call.fix_dims(factors, range(rank), "spread on a diagonal")]
    return [factors]


@rule("as_strided", "as_strided_copy")
def as_strided(call: OpCall) -> Sequence[Factors]:
    """Raw strides: nothing is known of the result, so everything stays."""
    rank = call["self"].dim()
    return [call.fix_dims(call.factors("self"), range(rank), "addressed by raw strides")]



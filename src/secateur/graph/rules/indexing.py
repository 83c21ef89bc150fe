"""Picking, joining and moving indices: slices, splits, concatenation, gathers, rolls and flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """One index of one dimension; where that dimension is pruned, it and those that it is counted from must stay."""
    dim, rank = call.dim(), call["self"].dim()
    index = call["index"]
    factors = call.factors("self")
    for factor in factors:
        if factor.free == dim:
            counted = slice(index, None) if index < 0 else slice(index + 1)
            call.fix(factor.labels[..., counted], f"index {index} selected by its number")
    return [algebra.select(call.facts, factors, dim, index % call["self"].shape[dim], rank)]


@rule("unbind", "unbind_copy")
def unbind(call: OpCall) -> Sequence[Factors]:
    """Every index of one dimension, each a tensor of its own."""
    dim, rank = call.dim(), call["self"].dim()
    factors = call.factors("self")
    for factor in factors:
        if factor.free == dim:
            call.fix(factor.labels, "unbound into one tensor per index")
    return [algebra.select(call.facts, factors, dim, i, rank) for i in range(len(call.outputs))]


@rule("split", "unsafe_split", "split_copy", "split_with_sizes", "unsafe_split_with_sizes", "split_with_sizes_copy")
def split(call: OpCall) -> Sequence[Factors]:
    """Consecutive pieces, whose lengths keep their proportions unless each is given its own."""
    dim = call.dim()
    factors = call.factors("self")
    sizes = [out.shape[dim] for out in call.outputs]
    ends = np.cumsum(sizes)
    pieces = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    for factor in factors:
        if factor.free == dim and not call.sized:
            _keep_proportions(call, factor, pieces)
    return [algebra.take(call.facts, factors, dim, piece) for piece in pieces]


def _keep_proportions(call: OpCall, factor: Factor, pieces: list[np.ndarray]) -> None:
    whole = lcm(*(len(p) for p in pieces if len(p)))
    rows = factor.labels.reshape(-1, factor.labels.shape[-1])
    reason = f"pieces keep their proportions ({call.site})"
    entries = tuple(Counted(row[p], whole // len(p)) for p in pieces if len(p) for row in rows)
    call.facts.counts.append(EqualCounts(entries, reason))


@rule("cat")
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
        _fix_rolled(call, factors, place, shift)
        factors = algebra.take(call.facts, factors, place, np.roll(np.arange(call["self"].shape[place]), shift))
    return [factors]


def _fix_rolled(call: OpCall, factors: Factors, dim: int, shift: int) -> None:
    """Pin what goes round the end: everything, if the shift is longer than the dimension."""
    for factor in factors:
        if factor.free == dim and shift:
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


@rule("index", "_unsafe_index")
def index(call: OpCall) -> Sequence[Factors]:
    """Advanced indexing: pruned dimensions that are indexed must stay, the others pass."""
    place = _Indexed.by(call)
    factors = call.fix_dims(call.factors("self"), place.used, "picked by an index tensor")
    return [tuple(f.moved(place.to) for f in factors)]


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: OpCall) -> Sequence[Factors]:
    """Values written at index tensors: dimensions that aren't indexed must agree."""
    place = _Indexed.by(call)
    factors = call.fix_dims(call.factors("self"), place.used, "written at indices named by a tensor")
    values = call["values"]
    back = {new - place.rank + values.dim(): old for old, new in place.to.items()}
    indexed = [d for d in range(values.dim()) if d not in back]
    theirs = call.fix_dims(call.labels_of(values), indexed, "written at indices named by a tensor")
    extents = [1] * call["self"].dim()
    for d, old in back.items():
        extents[old] = values.shape[d] if d >= 0 else 1
    written = Operand(tuple(f.moved(back) for f in theirs), tuple(extents))
    return [algebra.align(call.facts, [Operand(factors, tuple(call["self"].shape)), written], call.site)]


@dataclass(frozen=True, slots=True)
class _Indexed:
    """What advanced indexing does to dimensions.

    Attributes:
        used: the dimensions that are indexed.
        to: where each of the others is in the result.
        rank: dimensions of the result.
    """

    used: tuple[int, ...]
    to: dict[int, int]
    rank: int

    @classmethod
    def by(cls, call: OpCall) -> _Indexed:
        """Adjacent index tensors are replaced in place by their own dimensions; otherwise these come first."""
        used: list[int] = []
        position, own = 0, 0
        for item in call["indices"]:
            width = 1
            if item is not None:
                mask = item.dtype in (torch.bool, torch.uint8)
                width = item.dim() if mask else 1
                own = max(own, 1 if mask else item.dim())
                used.extend(range(position, position + width))
                call.fix_dims(call.labels_of(item), range(item.dim()), "used as an index")
            position += width
        adjacent = used == list(range(used[0], used[-1] + 1))
        start = used[0] if adjacent else 0
        others = [d for d in range(call["self"].dim()) if d not in used]
        to = {old: new if new < start else new + own for new, old in enumerate(others)}
        return cls(tuple(used), to, len(others) + own)


@rule("gather")
def gather(call: OpCall) -> Sequence[Factors]:
    """Indices along one dimension are read from data; those of the other dimensions meet index by index."""
    return [_meet(call, [call["self"], call["index"]], "gathered by an index tensor")]


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(call: OpCall) -> Sequence[Factors]:
    """Writes along one dimension at positions read from data; the other dimensions must agree."""
    return [_meet(call, call.tensors(), "scattered by an index tensor")]


@rule("index_add", "index_copy", "index_fill")
def index_add(call: OpCall) -> Sequence[Factors]:
    """The same, at positions that are one list for all the other dimensions."""
    call.fix_dims(call.factors("index"), [0], "used as an index")
    written = [t for name in ("self", "source") if (t := call.arguments.get(name)) is not None]
    return [_meet(call, written, "written at indices named by a tensor")]


def _meet(call: OpCall, tensors: Sequence[torch.Tensor], what: str) -> Factors:
    """Labels of tensors that meet index by index but for ``dim``; where one is shorter, by number, so all stay."""
    shapes = [tuple(t.shape) for t in tensors]
    dim = call.dim()
    pinned = [d for d in range(len(shapes[0])) if d == dim or len({shape[d] for shape in shapes}) > 1]
    extents = tuple(1 if d in pinned else n for d, n in enumerate(shapes[0]))
    operands = [Operand(call.fix_dims(call.labels_of(t), pinned, what), extents) for t in tensors]
    return algebra.align(call.facts, operands, call.site)


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
    for name in ("indices", "offsets", "per_sample_weights"):
        call.fix_dims(call.factors(name), [0], "used as an index")
    call.produced.extend(f.labels for f in weight)
    return [weight, *[() for _ in call.outputs[1:]]]


@rule("unfold")
def unfold(call: OpCall) -> Sequence[Factors]:
    """Sliding windows along one dimension, which must stay; the windows become the last dimension."""
    dim = call.dim("dimension")
    return [call.fix_dims(call.factors("self"), [dim], "cut into sliding windows")]


@rule("tril", "triu")
def triangles(call: OpCall) -> Sequence[Factors]:
    """The last two dimensions are paired by position: both must stay."""
    rank = call["self"].dim()
    return [call.fix_dims(call.factors("self"), [rank - 2, rank - 1], "paired with another dimension by position")]


@rule("diagonal", "diagonal_copy")
def diagonal(call: OpCall) -> Sequence[Factors]:
    """Two dimensions paired by position become the last one: both must stay."""
    rank = call["self"].dim()
    dims = [call["dim1"] % rank, call["dim2"] % rank]
    factors = call.fix_dims(call.factors("self"), dims, "paired with another dimension by position")
    return [algebra.renumber_without(factors, dims, rank)]


@rule("diag_embed")
def diag_embed(call: OpCall) -> Sequence[Factors]:
    """The last dimension is spread on a diagonal of two: it must stay."""
    rank = call.out.dim()
    pair = {call["dim1"] % rank, call["dim2"] % rank}
    factors = call.fix_dims(call.factors("self"), [rank - 2], "spread on a diagonal")
    others = [d for d in range(rank) if d not in pair]
    return [tuple(f.moved(others) for f in factors)]


@rule("as_strided", "as_strided_copy")
def as_strided(call: OpCall) -> Sequence[Factors]:
    """Raw strides: nothing is known of the result, so everything stays."""
    rank = call["self"].dim()
    return [call.fix_dims(call.factors("self"), range(rank), "addressed by raw strides")]

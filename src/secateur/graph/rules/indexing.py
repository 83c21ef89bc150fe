"""Picking, joining and moving indices by their number: slices, splits, concatenation, windows, rolls and flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm

import numpy as np
import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Counted, EqualCounts, Factor, Factors, Facts
from secateur.graph.rules.base import OpCall, rule


@rule("slice", "slice_copy")
def slice_(call: OpCall) -> Sequence[Factors]:
    """Indices start, start + step, ... of one dimension."""
    dim = call.dim()
    size = call["self"].shape[dim]
    index = np.arange(size)[slice(call["start"], call["end"], call["step"])]
    return [algebra.take(call.facts, call.factors("self"), dim, index)]


@rule("narrow_copy")
def narrow_copy(call: OpCall) -> Sequence[Factors]:
    """Some indices of one dimension, their numbers given: all must stay."""
    return [call.fix_dims(call.factors("self"), [call.dim()], "cut by number")]


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


@rule("rot90")
def rot90(call: OpCall) -> Sequence[Factors]:
    """Two dimensions turned by quarters: flipped, and, an odd number of times, exchanged."""
    factors = call.factors("self")
    rank, turns = call["self"].dim(), call["k"] % 4
    first, second = (d % rank for d in call["dims"])
    for dim in {1: [second], 2: [first, second], 3: [first]}.get(turns, []):
        factors = algebra.take(call.facts, factors, dim, np.arange(call["self"].shape[dim])[::-1])
    order = list(range(rank))
    if turns % 2:
        order[first], order[second] = second, first
    return [algebra.permute(factors, order)]


@rule("slice_scatter", "select_scatter")
def slice_scatter(call: OpCall) -> Sequence[Factors]:
    """Values written over some indices of one dimension, given by number: these stay, the other dimensions agree."""
    dim, rank = call.dim(), call["self"].dim()
    what = "written over by number"
    source, shape = call.factors("src"), list(call["self"].shape)
    if call.name == "aten.select_scatter":
        source = tuple(f.moved([d + (d >= dim) for d in range(rank - 1)]) for f in source)
    shape[dim] = 1
    operands = [Operand(call.fix_dims(f, [dim], what), tuple(shape)) for f in (call.factors("self"), source)]
    return [algebra.align(call.facts, operands, call.site)]


@rule("unfold", "unfold_copy")
def unfold(call: OpCall) -> Sequence[Factors]:
    """Sliding windows along one dimension, which must stay; the windows become the last dimension."""
    dim = call.dim("dimension")
    return [call.fix_dims(call.factors("self"), [dim], "cut into sliding windows")]


@rule("unfold_backward")
def unfold_backward(call: OpCall) -> Sequence[Factors]:
    """Sliding windows, along the last dimension, added up where they overlap."""
    last = call["grad_in"].dim() - 1
    dims = [call["dim"] % last, last]
    return [call.fix_dims(call.factors("grad_in"), dims, "sliding windows put together")]


BY_STRIDES = "addressed by raw strides"


@rule("as_strided", "as_strided_copy")
def as_strided(call: OpCall) -> Sequence[Factors]:
    """Raw strides: nothing is known of the result, so everything stays.

    Where sizes and strides are known to follow the tensor's, some dimensions pass: those that the code names, or,
    inside torch's own functions, the first and the last that keep both.
    """
    source, out = call["self"], call.out
    before, after = (list(zip(t.shape, t.stride(), strict=True)) for t in (source, out))
    to: dict[int, int] = {}
    if call.flexible is not None:
        to = {before.index(after[dim]): dim for dim in call.flexible}
    elif call.resizable and source.storage_offset() == out.storage_offset():
        first = _as_long(before, after)
        last = min(_as_long(before[::-1], after[::-1]), min(len(before), len(after)) - first)
        to = {d: d for d in range(first)} | {len(before) - d: len(after) - d for d in range(1, last + 1)}
    else:
        fix_memory(call.facts, call.labels_of, source, f"{BY_STRIDES} ({call.site})")
    changed = [d for d in range(source.dim()) if d not in to]
    return [tuple(f.moved(to) for f in call.fix_dims(call.factors("self"), changed, BY_STRIDES))]


def _as_long(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> int:
    """How many items two lists have in common at their beginnings."""
    differing = (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return next(differing, min(len(first), len(second)))


@rule("as_strided_scatter")
def as_strided_scatter(call: OpCall) -> Sequence[Factors]:
    """Values written to raw strides: everything stays."""
    fix_memory(call.facts, call.labels_of, call["self"], f"{BY_STRIDES} ({call.site})")
    call.fix_all(call.tensors(), BY_STRIDES)
    return [() for _ in call.outputs]


def fix_memory(facts: Facts, labels_of: Callable[[torch.Tensor], Factors], tensor: torch.Tensor, reason: str) -> None:
    """Pin everything that lies in a tensor's memory, also outside of the tensor, if it is a part of another."""
    while torch._C._functorch.is_batchedtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    whole = tensor if tensor._base is None else tensor._base
    if whole.untyped_storage().nbytes() > whole.numel() * whole.itemsize:
        # Whose the rest is isn't known any more.
        facts.fix(np.arange(facts.size), reason)
    for part in (tensor, whole):
        for factor in labels_of(part):
            facts.fix(factor.labels, reason)

"""Indices read from data: gathers, scatters, embeddings.

What is picked from, or written to, must stay, since places are counted in it. The list of places itself may shrink: its
labels become those of what is picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factors
from secateur.graph.rules.base import OpCall, rule

PICKED = "picked by an index tensor"
WRITTEN = "written at indices named by a tensor"


@rule("index_select")
def index_select(call: OpCall) -> Sequence[Factors]:
    """Indices of one dimension, named by a tensor."""
    dim = call.dim()
    kept = call.fix_dims(call.factors("self"), [dim], PICKED)
    return [(*kept, *(f.moved([dim]) for f in call.factors("index") if call["self"].dim()))]


@rule("take")
def take(call: OpCall) -> Sequence[Factors]:
    """Elements of the flattened tensor."""
    call.fix_all([call["self"]], PICKED)
    return [call.factors("index")]


@rule("index", "_unsafe_index")
def index(call: OpCall) -> Sequence[Factors]:
    """Advanced indexing: pruned dimensions that are indexed must stay, the others pass."""
    place = _Indexed.by(call)
    factors = call.fix_dims(call.factors("self"), place.used, PICKED)
    listed = algebra.align(call.facts, place.lists(call), call.site)
    own = range(place.start, place.start + place.own)
    return [(*(f.moved(place.to) for f in factors), *(f.moved(own) for f in listed))]


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: OpCall) -> Sequence[Factors]:
    """Values written at index tensors: dimensions that aren't indexed must agree.

    One value, written wherever a mask of all dimensions says so, is element-wise.
    """
    if _fills_a_mask(call):
        call.fix_all([call["values"]], WRITTEN)
        return [call.aligned([call["self"], call["indices"][0]], call["self"].dim())]
    place = _Indexed.by(call)
    call.fix_all((i for i in call["indices"] if i is not None), "used as an index")
    factors = call.fix_dims(call.factors("self"), place.used, WRITTEN)
    values = call["values"]
    rank = len(place.to) + place.own
    back = {new - rank + values.dim(): old for old, new in place.to.items()}
    indexed = [d for d in range(values.dim()) if d not in back]
    theirs = call.fix_dims(call.labels_of(values), indexed, WRITTEN)
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
        start: the first dimension of the result that the index tensors make.
        own: how many they make.
    """

    used: tuple[int, ...]
    to: dict[int, int]
    start: int
    own: int

    @classmethod
    def by(cls, call: OpCall) -> _Indexed:
        """Adjacent index tensors are replaced in place by their own dimensions; otherwise these come first."""
        used: list[int] = []
        position, own = 0, 0
        for item in call["indices"]:
            width = 1
            if item is not None:
                width = item.dim() if _is_mask(item) else 1
                own = max(own, 1 if _is_mask(item) else item.dim())
                used.extend(range(position, position + width))
            position += width
        adjacent = used and used == list(range(used[0], used[-1] + 1))
        start = used[0] if adjacent else 0
        others = [d for d in range(call["self"].dim()) if d not in used]
        return cls(tuple(used), {old: new if new < start else new + own for new, old in enumerate(others)}, start, own)

    def lists(self, call: OpCall) -> list[Operand]:
        """The index tensors, broadcast together; a mask gives a list that data makes long or short."""
        operands = []
        for item in call["indices"]:
            if item is None:
                continue
            if _is_mask(item):
                call.fix_all([item], "used as a mask")
                operands.append(Operand((), (1,) * (self.own - 1) + (2,)))
            else:
                operands.append(Operand.broadcast(call.labels_of(item), item.shape, self.own))
        return operands


def _fills_a_mask(call: OpCall) -> bool:
    mask, *others = call["indices"]
    whole = not others and mask is not None and _is_mask(mask) and mask.dim() == call["self"].dim()
    return whole and call["values"].numel() == 1


def _is_mask(item: torch.Tensor) -> bool:
    return item.dtype in (torch.bool, torch.uint8)


@rule("gather")
def gather(call: OpCall) -> Sequence[Factors]:
    """Places along one dimension are read from data; indices of the other dimensions meet."""
    dim, source, places = call.dim(), call["self"], call["index"]
    short = [d for d in range(source.dim()) if d != dim and source.shape[d] != places.shape[d]]
    picked = call.fix_dims(call.factors("self"), [dim, *short], PICKED)
    listed = call.fix_dims(call.factors("index"), short, "fewer than there are, by number")
    extents = tuple(1 if d == dim or d in short else n for d, n in enumerate(source.shape))
    operands = [Operand(picked, extents), Operand(listed, tuple(places.shape))]
    return [algebra.align(call.facts, operands, call.site)]


@rule("scatter", "scatter_add", "scatter_reduce")
def scatter(call: OpCall) -> Sequence[Factors]:
    """Writes along one dimension at places read from data; the other dimensions must agree."""
    return [_meet(call, call.tensors(), WRITTEN)]


@rule("index_add", "index_copy", "index_fill", "index_reduce")
def index_add(call: OpCall) -> Sequence[Factors]:
    """The same, at places that are one list for all the other dimensions."""
    call.fix_dims(call.factors("index"), [0], "used as an index")
    written = [t for name in ("self", "source") if (t := call.arguments.get(name)) is not None]
    return [_meet(call, written, WRITTEN)]


def _meet(call: OpCall, tensors: Sequence[torch.Tensor], what: str) -> Factors:
    """Labels of tensors that meet index by index but for ``dim``; where one is shorter, by number, so all stay."""
    dim, rank = call.dim(), call["self"].dim()
    # A single value written everywhere meets nothing.
    whole = [t for t in tensors if t.dim() == rank]
    shapes = [tuple(t.shape) for t in whole]
    pinned = [d for d in range(rank) if d == dim or len({shape[d] for shape in shapes}) > 1]
    extents = tuple(1 if d in pinned else n for d, n in enumerate(shapes[0]))
    operands = [Operand(call.fix_dims(call.labels_of(t), pinned, what), extents) for t in whole]
    return algebra.align(call.facts, operands, call.site)


@rule("masked_scatter")
def masked_scatter(call: OpCall) -> Sequence[Factors]:
    """Consecutive values written where a mask is true: all must stay.

    But where the mask is one over the whole last dimension, as long as that of the values, whole rows are written.
    """
    base, mask, source = (call[name] for name in ("self", "mask", "source"))
    last = call.out.dim() - 1
    rows = mask.dim() and (mask.shape[-1] == 1 or mask.stride(-1) == 0)
    if not rows or not source.dim() or not base.shape[-1] == source.shape[-1] == call.out.shape[-1]:
        call.fix_all(call.tensors(), "written in order where a mask is true")
        return [()]
    operands = []
    for tensor in (base, mask, source):
        kept = call.fix_dims(call.labels_of(tensor), range(tensor.dim() - 1), "written in order where a mask is true")
        to = {tensor.dim() - 1: last}
        operands.append(Operand(tuple(f.moved(to) for f in kept), (1,) * last + (tensor.shape[-1],)))
    return [algebra.align(call.facts, operands, call.site)]


@rule("embedding")
def embedding(call: OpCall) -> Sequence[Factors]:
    """Rows of a table, picked by data: the rows stay, the width passes."""
    weight = call.fix_dims(call.factors("weight"), [0], "row of an embedding table")
    call.produced.extend(f.labels for f in weight)
    return [(*call.factors("indices"), *(f.moved({1: call["indices"].dim()}) for f in weight))]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: OpCall) -> Sequence[Factors]:
    """Sums or means of rows of a table: the rows stay, the width passes."""
    weight = call.fix_dims(call.factors("weight"), [0], "row of an embedding table")
    for name in ("indices", "offsets", "per_sample_weights"):
        call.fix_dims(call.factors(name), [0], "used as an index")
    call.produced.extend(f.labels for f in weight)
    return [weight, *[() for _ in call.outputs[1:]]]


@rule("segment_reduce")
def segment_reduce(call: OpCall) -> Sequence[Factors]:
    """Consecutive indices of one dimension are reduced, as many as data says; later dimensions pass."""
    data, axis = call["data"], call["axis"] % call["data"].dim()
    call.fix_all((t for t in call.tensors() if t is not data), "lengths of segments")
    return [call.fix_dims(call.factors("data"), range(axis + 1), "reduced in segments")]

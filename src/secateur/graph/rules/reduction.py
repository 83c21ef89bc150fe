"""Reductions, scans, sorts, softmax and norms: labels of reduced dimensions end, or are mixed."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph import algebra
from secateur.graph.labels import Factor, Factors
from secateur.graph.rules.base import Masked, OpCall, names, rule


def _reduced_dims(call: OpCall) -> list[int]:
    rank = call["self"].dim()
    dims = call.arguments.get("dim")
    if dims is None or dims == []:
        return list(range(rank))
    return [d % max(rank, 1) for d in (dims if isinstance(dims, (list, tuple)) else [dims])]


def _reduce(call: OpCall) -> tuple[Factors, Factors]:
    """(labels of the result, labels that were reduced over)."""
    dims = _reduced_dims(call)
    rank = call["self"].dim()
    remaining, gone = algebra.reduce(call.facts, call.factors("self"), dims, call.site)
    if call.out.dim() < rank:
        remaining = algebra.renumber_without(remaining, dims, rank)
    return remaining, gone


@rule("sum", "nansum", "count_nonzero", "any")
def sum_(call: OpCall) -> Sequence[Factors]:
    """A removed index and a zero add the same: nothing."""
    remaining, gone = _reduce(call)
    call.masked.extend(Masked(call["self"], f) for f in gone)
    if call.is_weight(call["self"]):
        call.consumed.extend(f.labels for f in gone)
    return [remaining]


MIXING = names("""
mean var std var_mean std_mean amax amin aminmax _aminmax max min prod logsumexp argmax argmin all median nanmedian
mode
""")

_POSITIONS = {f"aten.{name}": 0 for name in ("argmax", "argmin")}
_POSITIONS |= {f"aten.{name}": 1 for name in ("max", "min", "median", "nanmedian", "mode", "cummax", "cummin")}
"""The output of an operator, by number, that says where along the dimension the result was found."""


@rule(*MIXING)
def mixing_reduction(call: OpCall) -> Sequence[Factors]:
    """Statistics of a dimension: removing an index is not the same as zeroing it."""
    remaining, gone = _reduce(call)
    call.mix(gone, f"{call.name} over channels")
    _note_positions(call, gone)
    return [remaining for _ in call.outputs]


def _note_positions(call: OpCall, over: Factors) -> None:
    """Where something was found along a dimension is another place once an index before it has left."""
    output = _POSITIONS.get(call.name)
    if output is not None and output < len(call.outputs):
        call.positions[output] = over


@rule("norm", "linalg_vector_norm", "linalg__powsum")
def vector_norm(call: OpCall) -> Sequence[Factors]:
    """A zero adds nothing to a norm, unless its order is negative."""
    order = call.arguments.get("ord", call.arguments.get("p"))
    remaining, gone = _reduce(call)
    # A sum of powers of order zero counts every index; a norm of order zero, those that are not zero.
    if order is not None and (order < 0 or (order == 0 and call.name == "aten.linalg__powsum")):
        call.mix(gone, f"norm of order {order} over channels")
    else:
        call.masked.extend(Masked(call["self"], f) for f in gone)
    return [remaining]


def _along(call: OpCall, dim: int) -> tuple[Factors, Factors]:
    """(labels that can leave along ``dim``, the others; rows there must lose the same of each)."""
    factors = call.factors("self")
    over = tuple(f for f in factors if f.free == dim)
    rest = (f for f in factors if f.free != dim)
    reason = f"rows mixed ({call.site})"
    return over, tuple(algebra.collapse(call.facts, f, f.free, reason) if dim in f.dims else f for f in rest)


@rule("_softmax", "_log_softmax", "_safe_softmax", "logcumsumexp", "cumprod", "cummax", "cummin")
def softmax(call: OpCall) -> Sequence[Factors]:
    """Every index of the dimension depends on others, which a zero would not leave alone."""
    over, rest = _along(call, call.dim())
    call.mix(over, f"{call.name} over channels")
    _note_positions(call, over)
    return [(*over, *rest) for _ in call.outputs]


@rule("cumsum")
def cumsum(call: OpCall) -> Sequence[Factors]:
    """Every index is the sum of those up to it: a removed one and a zero add the same."""
    over, rest = _along(call, call.dim())
    call.masked.extend(Masked(call["self"], f) for f in over)
    return [(*over, *rest)]


@rule("sort", "topk", "kthvalue")
def ordered(call: OpCall) -> Sequence[Factors]:
    """Values and places in an order along a dimension, which must stay; each index of the others has its own."""
    rank = call["self"].dim()
    dim = call.arguments.get("dim", -1) % max(rank, 1)
    kept = call.fix_dims(call.factors("self"), [dim], "sorted along its channels")
    if call.out.dim() < rank:
        kept = algebra.renumber_without(kept, [dim], rank)
    return [kept for _ in call.outputs]


@rule("_sample_dirichlet")
def sample_dirichlet(call: OpCall) -> Sequence[Factors]:
    """Random shares of a whole, along the last dimension."""
    over, rest = _along(call, call["self"].dim() - 1)
    call.mix(over, "shares of a whole over channels")
    return [(*over, *rest)]


@rule("renorm")
def renorm(call: OpCall) -> Sequence[Factors]:
    """Each index of a dimension is scaled by its norm over all the others."""
    over, rest = _along(call, call.dim())
    call.mix(rest, "renormed over channels")
    return [(*over, *rest)]


@rule("embedding_renorm")
def embedding_renorm(call: OpCall) -> Sequence[Factors]:
    """Rows of a table, picked by data, are scaled by their norm."""
    call.fix_all([call["indices"]], "used as an index")
    width = call.fix_dims(call.factors("self"), [0], "row of an embedding table")
    call.mix(width, "largest norm of an embedding's rows")
    return [width]


@rule("glu")
def glu(call: OpCall) -> Sequence[Factors]:
    """First half times sigmoid of the second: the same index of either half leaves together."""
    dim = call.dim()
    result = []
    for factor in call.factors("self"):
        if dim not in factor.dims:
            result.append(factor)
            continue
        labels = algebra.collapse(call.facts, factor, dim, f"gated ({call.site})").labels
        half = len(labels) // 2
        call.facts.equate(labels[:half], labels[half:], f"gated ({call.site})")
        if half == 1:
            call.facts.fix(labels, f"the only index of a half ({call.site})")
        result.extend(algebra.squeezed(Factor((dim,), labels[:half])))
    return [tuple(result)]


@rule("batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional")
@rule("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "_batch_norm_with_update_functional")
@rule("_batch_norm_no_update", "cudnn_batch_norm", "miopen_batch_norm")
def batch_norm(call: OpCall) -> Sequence[Factors]:
    """Each channel by itself, with its own weight, bias and running statistics; in training the others are mixed."""
    labels = _per_channel(call, ("weight", "bias", "running_mean", "running_var"))
    if call.arguments.get("training", "_with_update" in call.name):
        call.mix(tuple(f for f in labels if f.free != 1), "statistics of a batch norm in training")
    return [labels, *_nothing(call)]


@rule("native_group_norm")
def group_norm(call: OpCall) -> Sequence[Factors]:
    """Channels of a norm's group are mixed; every one keeps the same number, so that their number can stay."""
    labels = _per_channel(call, ("weight", "bias"))
    call.mix(tuple(f for f in labels if f.dims != (0,)), "GroupNorm")
    for factor in labels:
        if factor.dims == (1,):
            rows = factor.labels.reshape(call["group"], -1)
            call.facts.balance(rows, f"equal groups of a GroupNorm ({call.site})")
    return [labels, *_nothing(call)]


def _per_channel(call: OpCall, names: Sequence[str]) -> Factors:
    """Labels of an input whose dimension 1 meets these vectors index by index."""
    source = call["input"]
    operands = [algebra.Operand(call.labels_of(source), tuple(source.shape))]
    for name in names:
        tensor = call.arguments.get(name)
        if tensor is None:
            continue
        call.produced.extend(f.labels for f in call.labels_of(tensor))
        extents = tuple(tensor.shape[0] if d == 1 else 1 for d in range(source.dim()))
        operands.append(algebra.Operand(tuple(f.moved([1]) for f in call.labels_of(tensor)), extents))
    return algebra.align(call.facts, operands, call.site)


def _nothing(call: OpCall) -> list[Factors]:
    return [() for _ in call.outputs[1:]]


@rule("_is_all_true")
def assertion(call: OpCall) -> Sequence[Factors]:
    """What the code asserts of all channels: it holds for those that stay."""
    return [() for _ in call.outputs]


@rule("native_layer_norm")
def layer_norm(call: OpCall) -> Sequence[Factors]:
    """The trailing dimensions are mixed; weight and bias meet them index by index."""
    source = call["input"]
    rank, trailing = source.dim(), len(call["normalized_shape"])
    affine = [t for t in (call["weight"], call["bias"]) if t is not None]
    labels = tuple(
        algebra.collapse(call.facts, f, f.free, f"rows mixed ({call.site})") if max(f.dims) >= rank - trailing else f
        for f in call.aligned([source, *affine], rank)
    )
    mixed = tuple(f for f in labels if f.free >= rank - trailing)
    call.mix(mixed, "layer_norm")
    return [labels, *_nothing(call)]


@rule("_weight_norm_interface")
def weight_norm(call: OpCall) -> Sequence[Factors]:
    """``g v / |v|``: the norm over every dimension of v but one mixes those dimensions."""
    dim = call["dim"]
    labels = call.aligned([call["v"], call["g"]], call["v"].dim())
    call.mix(tuple(f for f in labels if f.dims != (dim,)), "weight norm")
    return [labels, *_nothing(call)]

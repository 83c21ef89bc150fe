"""Matrix products, convolutions and attention: contracted axes leave together, free ones are passed on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factor, Factors, labels_along
from secateur.graph.rules.base import Extents, Masked, OpCall, Term, rule

# operator: (einsum, its operands, what is added to the product)
PRODUCTS: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "mm": ("mk,kn->mn", ("self", "mat2"), None),
    "bmm": ("bmk,bkn->bmn", ("self", "mat2"), None),
    "mv": ("mk,k->m", ("self", "vec"), None),
    "dot": ("k,k->", ("self", "tensor"), None),
    "vdot": ("k,k->", ("self", "other"), None),
    "addmm": ("mk,kn->mn", ("mat1", "mat2"), "self"),
    "addbmm": ("bmk,bkn->mn", ("batch1", "batch2"), "self"),
    "baddbmm": ("bmk,bkn->bmn", ("batch1", "batch2"), "self"),
    "addmv": ("mk,k->m", ("mat", "vec"), "self"),
    "addr": ("m,n->mn", ("vec1", "vec2"), "self"),
}


def _product(call: OpCall, *, spec: str, operands: tuple[str, ...], added: str | None) -> Sequence[Factors]:
    factors = call.contract(spec, *(call.term(call[name]) for name in operands))
    return [call.add_last(factors, call[added] if added else None)]


for _name, (_spec, _operands, _added) in PRODUCTS.items():
    rule(_name, spec=_spec, operands=_operands, added=_added)(_product)


@rule("linear")
def linear(call: OpCall) -> Sequence[Factors]:
    """``input @ weight.T + bias`` over the last dimension."""
    letters = "abcdefghijl"[: call["input"].dim() - 1]
    terms = call.term(call["input"]), call.term(call["weight"])
    return [call.add_last(call.contract(f"{letters}k,nk->{letters}n", *terms), call["bias"])]


@rule("_trilinear")
def trilinear(call: OpCall) -> Sequence[Factors]:
    """The three-factor product of ``nn.Bilinear``, whose tensors are expanded at the given dimensions."""
    placed = []
    rank = call["i1"].dim() + len(call["expand1"])
    for name, expanded in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        skip = {d % rank for d in call[expanded]}
        dims = [d for d in range(rank) if d not in skip]
        placed.append((call.term(call[name]), "".join(chr(ord("a") + d) for d in dims)))
    gone = {d % rank for d in call["sumdim"]}
    out = "".join(chr(ord("a") + d) for d in range(rank) if d not in gone)
    return [call.contract(f"{','.join(term for _, term in placed)}->{out}", *(term for term, _ in placed))]


@rule("convolution", "_convolution", "cudnn_convolution", "mkldnn_convolution")
def convolution(call: OpCall) -> Sequence[Factors]:
    """Plain, grouped, depthwise and transposed convolutions in any number of dimensions."""
    weight = call.labels_of(call["weight"])
    spatial = list(range(2, call["weight"].dim()))
    weight = call.fix_dims(weight, spatial, "kernel position")
    batch = call["input"].dim() == call["weight"].dim()
    shift = 0 if batch else -1
    inputs = call.fix_dims(call.factors("input"), [d + shift for d in spatial], "position under a kernel")
    channel_dim = 1 + shift
    axis_in, axis_out = (0, 1) if call["transposed"] else (1, 0)
    if call["groups"] == 1:
        channels = _plain_channels(call, inputs, weight, channel_dim, axis_in, axis_out)
    else:
        channels = _grouped_channels(call, inputs, weight, channel_dim)
    _count_macs(call, weight, spatial)
    if call.arguments.get("bias") is not None:
        call.produced.extend(f.labels for f in call.factors("bias"))
        bias, extents = call.factors("bias"), tuple(call["bias"].shape)
        channels = algebra.align(call.facts, [Operand(channels, extents), Operand(bias, extents)], call.site)
    rest = tuple(f for f in inputs if channel_dim not in f.dims)
    return [(*rest, *(f.moved([channel_dim]) for f in channels))]


def _plain_channels(
    call: OpCall, inputs: Factors, weight: Factors, channel_dim: int, axis_in: int, axis_out: int
) -> Factors:
    sizes = call["weight"].shape
    mine = tuple(f for f in weight if axis_in in f.dims)
    theirs = tuple(_single(call, f, channel_dim) for f in inputs if channel_dim in f.dims)
    extents = (sizes[axis_in],)
    summed = algebra.align(
        call.facts,
        [Operand(tuple(f.moved({axis_in: 0}) for f in mine), extents), Operand(theirs, extents)],
        call.site,
    )
    call.consumed.extend(f.labels for f in mine)
    call.masked.extend(Masked(call["input"], f.moved([channel_dim])) for f in summed)
    out = tuple(f for f in weight if axis_out in f.dims)
    call.produced.extend(f.labels for f in out)
    return tuple(f.moved({axis_out: 0}) for f in out)


def _single(call: OpCall, factor: Factor, channel_dim: int) -> Factor:
    """The channel labels of a convolution's input, moved to dimension 0."""
    collapsed = algebra.collapse(call.facts, factor, channel_dim, f"convolved together ({call.site})")
    return collapsed.moved({channel_dim: 0})


def _grouped_channels(call: OpCall, inputs: Factors, weight: Factors, channel_dim: int) -> Factors:
    """Channels (g, i) of the input meet weight index i of convolution group g.

    Either whole convolution groups leave, where the module's ``groups`` can follow, or the same i of every g with the
    outputs balanced over the groups; whichever leaves more channels to choose from.
    """
    groups, transposed = call["groups"], call["transposed"]
    out_axis = 1 if transposed else 0
    in_axis = 1 - out_axis
    theirs = [_single(call, f, channel_dim).labels for f in inputs if channel_dim in f.dims]
    weight_in = labels_along(weight, in_axis)
    weight_out = labels_along(weight, out_axis)
    per_group = call["input"].shape[channel_dim] // groups
    # The axis of length channels is grouped; the other is shared by all groups.
    shared, grouped = (weight_out, weight_in) if transposed else (weight_in, weight_out)
    if theirs and call.resizable and groups >= (call["weight"].shape[1] if shared is not None else 1):
        return _whole_groups(call, theirs, grouped, shared, per_group)
    return _within_groups(call, theirs, grouped, shared, per_group)


def _whole_groups(
    call: OpCall,
    theirs: list[np.ndarray],
    grouped: np.ndarray | None,
    shared: np.ndarray | None,
    per_group: int,
) -> Factors:
    groups, transposed = call["groups"], call["transposed"]
    reason = f"whole convolution groups leave ({call.site})"
    if grouped is None:
        return ()
    if shared is not None:
        call.fix(shared, "width of a convolution group, whose groups leave whole")
    rows = grouped.reshape(groups, -1)
    unit = rows[:, :1]
    call.facts.equate(rows, unit, reason)
    if theirs:
        call.facts.equate(theirs[0].reshape(groups, per_group), unit, reason)
    else:
        call.fix(grouped, algebra.NO_INDEX)
    call.counted["groups"] = rows[:, 0]
    width = call.out.shape[1 if call.out.dim() == call["weight"].dim() else 0] // groups
    call.produced.append(grouped)
    if transposed:
        call.consumed.append(grouped)
    return (Factor((0,), np.repeat(rows[:, 0], width)),)


def _within_groups(
    call: OpCall,
    theirs: list[np.ndarray],
    grouped: np.ndarray | None,
    shared: np.ndarray | None,
    per_group: int,
) -> Factors:
    groups, transposed = call["groups"], call["transposed"]
    reason = f"the same index of every convolution group ({call.site})"
    weight_in, weight_out = (grouped, shared) if transposed else (shared, grouped)
    incoming = theirs[0].reshape(groups, per_group) if theirs else None
    if incoming is None and weight_in is not None:
        call.fix(weight_in, algebra.NO_INDEX)
    if incoming is not None and weight_in is None:
        call.fix(incoming, f"one channel per convolution group, whose number is fixed at {groups}")
    if incoming is not None and weight_in is not None:
        call.facts.equate(incoming, weight_in.reshape((groups, per_group) if transposed else (1, per_group)), reason)
        call.facts.balance(incoming, reason)
        call.consumed.append(weight_in)
        call.masked.append(Masked(call["input"], Factor((_channel_dim(call),), theirs[0])))
    if weight_out is None:
        return ()
    call.produced.append(weight_out)
    if transposed:
        return (Factor((0,), np.tile(weight_out, groups)),)
    call.facts.balance(weight_out.reshape(groups, -1), reason)
    return (Factor((0,), weight_out),)


def _channel_dim(call: OpCall) -> int:
    return 1 if call["input"].dim() == call["weight"].dim() else 0


def _count_macs(call: OpCall, weight: Factors, spatial: list[int]) -> None:
    """Positions visited, times the elements of the weight."""
    visited = call["input"] if call["transposed"] else call.out
    first = _channel_dim(call)
    positions = int(np.prod(visited.shape[:first])) * int(np.prod(visited.shape[first + 1 :]))
    kernel = int(np.prod([call["weight"].shape[d] for d in spatial]))
    arrays = [labels_along(weight, d) for d in (0, 1)]
    constant = positions * kernel
    for d, labels in enumerate(arrays):
        constant *= call["weight"].shape[d] if labels is None else 1
    call.macs.append(Extents(constant, tuple(a for a in arrays if a is not None)))


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_fused_attention_overrideable",
    "scaled_dot_product_attention",
)
def attention(call: OpCall) -> Sequence[Factors]:
    """softmax(q k^T scale) v: q and k are contracted; v's width is passed on."""
    q, k, v = (call.term(call[name]) for name in ("query", "key", "value"))
    batch = "abcdefgh"[: len(q.shape) - 2]
    if call.arguments.get("scale") is None:
        width = tuple(f for f in q.factors if len(q.shape) - 1 in f.dims)
        call.mix(width, "scaled by its own width in scaled_dot_product_attention")
    logits = call.contract(f"{batch}me,{batch}ne->{batch}mn", q, k)
    logits = call.fix_dims(logits, [len(batch) + 1], "attended position")
    weights = Term(logits, (*q.shape[:-1], k.shape[-2]), None)
    out = call.contract(f"{batch}mn,{batch}nf->{batch}mf", weights, v)
    return [out, *[() for _ in call.outputs[1:]]]

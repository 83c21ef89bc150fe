"""Matrix products, convolutions and attention: contracted axes leave together, free ones are passed on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factor, Factors, Labels, labels_along
from secateur.graph.rules.base import Extents, Masked, OpCall, Term, names, rule

# operator: (einsum, its operands, what is added to the product)
PRODUCTS: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "mm": ("mk,kn->mn", ("self", "mat2"), None),
    "bmm": ("bmk,bkn->bmn", ("self", "mat2"), None),
    "mv": ("mk,k->m", ("self", "vec"), None),
    "dot": ("k,k->", ("self", "tensor"), None),
    "vdot": ("k,k->", ("self", "other"), None),
    "addmm": ("mk,kn->mn", ("mat1", "mat2"), "self"),
    "_addmm_activation": ("mk,kn->mn", ("mat1", "mat2"), "self"),
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
    """A linear layer over any number of dimensions before the last."""
    before = "abcdefghij"[: call["input"].dim() - 1]
    made = "n" if call["weight"].dim() == 2 else ""
    factors = call.contract(f"{before}k,{made}k->{before}{made}", call.term(call["input"]), call.term(call["weight"]))
    return [call.add_last(factors, call["bias"])]


@rule("_cdist_forward", "_euclidean_dist")
def cdist(call: OpCall) -> Sequence[Factors]:
    """Distances between rows: indices that are zero in both add nothing."""
    x, y = call["x1"], call["x2"]
    call.record_produced([x, y])
    rank = call.out.dim()
    placed = []
    for tensor, row in ((x, rank - 2), (y, rank - 1)):
        shift = rank - tensor.dim()
        to = [*(d + shift for d in range(tensor.dim() - 2)), row, rank]
        extents = [1] * (rank + 1)
        for d, size in zip(to, tensor.shape, strict=True):
            extents[d] = size
        placed.append((tensor, to, Operand(tuple(f.moved(to) for f in call.labels_of(tensor)), tuple(extents))))
    labels = algebra.align(call.facts, [operand for _, _, operand in placed], call.site)
    remaining, summed = algebra.reduce(call.facts, labels, [rank], call.site)
    for tensor, to, _ in placed:
        back = {new: old for old, new in enumerate(to)}
        call.masked.extend(Masked(tensor, f.moved(back)) for f in summed if set(f.dims) <= set(back))
    return [remaining]


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
    weight = call.fix_dims(call.factors("weight"), range(2, call["weight"].dim()), "kernel position")
    together = f"convolved together ({call.site})"
    weight = tuple([algebra.collapse(call.facts, f, f.free, together) for f in weight])
    inputs = call.factors("input")
    if any(f.dims != (1,) for f in inputs):
        inputs = call.fix_dims(inputs, _under_a_kernel(call), "position under a kernel")
        inputs = tuple(algebra.collapse(call.facts, f, f.free, together) if 1 in f.dims else f for f in inputs)
    rest = tuple([f for f in inputs if f.free != 1])
    incoming = tuple([f for f in inputs if f.free == 1])
    channels = (_plain_channels if call["groups"] == 1 else _grouped_channels)(call, incoming, weight)
    _count_macs(call, rest, weight)
    if call["bias"] is not None:
        call.produced.extend(f.labels for f in call.factors("bias"))
        bias, extents = call.factors("bias"), tuple(call["bias"].shape)
        channels = algebra.align(call.facts, [Operand(channels, extents), Operand(bias, extents)], call.site)
    return [(*rest, *[Factor((1,), f.labels) for f in channels])]


def _under_a_kernel(call: OpCall) -> list[int]:
    """The spatial dimensions along which neighbours meet; the kernel visits those of the others one by one."""
    spatial = range(2, call["weight"].dim())
    plain = (("stride", 1), ("padding", 0), ("output_padding", 0))

    def setting(name: str, d: int) -> int:
        # One number stands for all dimensions.
        numbers: list[int] = call.arguments.get(name, [0])
        return numbers[d - 2] if len(numbers) == len(spatial) else numbers[0]

    return [d for d in spatial if call["weight"].shape[d] > 1 or any(setting(name, d) != n for name, n in plain)]


def _plain_channels(call: OpCall, incoming: Factors, weight: Factors) -> Factors:
    axis_in, axis_out = (0, 1) if call["transposed"] else (1, 0)
    mine = [f for f in weight if axis_in in f.dims]
    extents = (call["weight"].shape[axis_in],)
    operands = [Operand(tuple([Factor((0,), f.labels) for f in factors]), extents) for factors in (mine, incoming)]
    summed = algebra.align(call.facts, operands, call.site)
    call.consumed.extend([f.labels for f in mine])
    call.masked.extend([Masked(call["input"], Factor((1,), f.labels)) for f in summed])
    out = [f.labels for f in weight if axis_out in f.dims]
    call.produced.extend(out)
    return tuple([Factor((0,), labels) for labels in out])


def _grouped_channels(call: OpCall, incoming: Factors, weight: Factors) -> Factors:
    """Channels (g, i) of the input meet weight index i of convolution group g.

    Either whole convolution groups leave, where the module's ``groups`` can follow, or the same i of every g with the
    outputs balanced over the groups; whichever leaves more channels to choose from.
    """
    groups, transposed = call["groups"], call["transposed"]
    out_axis = 1 if transposed else 0
    in_axis = 1 - out_axis
    theirs = incoming[0].labels if incoming else None
    weight_in = labels_along(weight, in_axis)
    weight_out = labels_along(weight, out_axis)
    per_group = call["input"].shape[1] // groups
    # The axis of length channels is grouped; the other is shared by all groups.
    shared, grouped = (weight_out, weight_in) if transposed else (weight_in, weight_out)
    enough = groups >= (call["weight"].shape[1] if shared is not None else 1)
    if theirs is not None and grouped is not None and call.resizable and enough:
        return _whole_groups(call, theirs, grouped, shared, per_group)
    return _within_groups(call, theirs, grouped, shared, per_group)


def _whole_groups(call: OpCall, theirs: Labels, grouped: Labels, shared: Labels | None, per_group: int) -> Factors:
    groups, transposed = call["groups"], call["transposed"]
    reason = f"whole convolution groups leave ({call.site})"
    if shared is not None:
        call.fix(shared, "width of a convolution group, whose groups leave whole")
    rows = grouped.reshape(groups, -1)
    unit = rows[:, :1]
    call.facts.equate(rows, unit, reason)
    call.facts.equate(theirs.reshape(groups, per_group), unit, reason)
    call.counted["groups"] = rows[:, 0]
    width = call.out.shape[1] // groups
    call.produced.append(grouped)
    if transposed:
        call.consumed.append(grouped)
    return (Factor((0,), np.repeat(rows[:, 0], width)),)


def _within_groups(
    call: OpCall, theirs: Labels | None, grouped: Labels | None, shared: Labels | None, per_group: int
) -> Factors:
    groups, transposed = call["groups"], call["transposed"]
    reason = f"the same index of every convolution group ({call.site})"
    weight_in, weight_out = (grouped, shared) if transposed else (shared, grouped)
    incoming = theirs.reshape(groups, per_group) if theirs is not None else None
    if incoming is None and weight_in is not None:
        call.fix(weight_in, algebra.NO_INDEX)
    if incoming is not None and weight_in is None:
        call.fix(incoming, f"one channel per convolution group, whose number is fixed at {groups}")
    if incoming is not None and weight_in is not None:
        call.facts.equate(incoming, weight_in.reshape((groups, per_group) if transposed else (1, per_group)), reason)
        _balance(call, incoming, reason)
        call.consumed.append(weight_in)
        call.masked.append(Masked(call["input"], Factor((1,), incoming.ravel())))
    if weight_out is None:
        return ()
    call.produced.append(weight_out)
    if transposed:
        return (Factor((0,), np.tile(weight_out, groups)),)
    _balance(call, weight_out.reshape(groups, -1), reason)
    return (Factor((0,), weight_out),)


def _balance(call: OpCall, rows: Labels, reason: str) -> None:
    """Every convolution group keeps the same number of channels, and at least one."""
    if rows.shape[1] == 1:
        call.fix(rows, f"one channel per convolution group, whose number is fixed at {len(rows)}")
    else:
        call.facts.balance(rows, reason)


def _count_macs(call: OpCall, rest: Factors, weight: Factors) -> None:
    """Batch and positions visited, times the elements of the weight."""
    visited, kernel = call["input"] if call["transposed"] else call.out, call["weight"]
    places = (0, *range(2, kernel.dim()))
    axes = [(visited.shape[d], labels_along(rest, d)) for d in places]
    axes += [(kernel.shape[d], labels_along(weight, d)) for d in (0, 1)]
    constant = math.prod(kernel.shape[2:])
    for size, labels in axes:
        constant *= size if labels is None else 1
    call.macs.append(Extents(constant, tuple(labels for _, labels in axes if labels is not None)))


ATTENTION = names(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable"
)


@rule(*ATTENTION)
def attention(call: OpCall) -> Sequence[Factors]:
    """softmax(q k^T scale + mask) v: q and k are contracted; attended positions are mixed; v's width is passed on."""
    q = call.term(call["query"])
    k, v = (_repeated_heads(call, call[name]) for name in ("key", "value"))
    batch = "abcdefgh"[: len(q.shape) - 2]
    shape = (*q.shape[:-1], k.shape[-2])
    if call.arguments.get("scale") is None:
        width = tuple(f for f in q.factors if len(shape) - 1 in f.dims)
        linear = call.scales(call["query"]) and call.scales(call["key"])
        call.mix(width, "scaled by its own width in scaled_dot_product_attention", by_width=linear)
    logits = _with_bias(call, call.contract(f"{batch}me,{batch}ne->{batch}mn", q, k), shape)
    if call["is_causal"]:
        call.fix_dims(logits, [len(batch), len(batch) + 1], "position under a causal mask")
    call.mix(tuple(f for f in logits if len(batch) + 1 in f.dims), "softmax over attended positions")
    out = call.contract(f"{batch}mn,{batch}nf->{batch}mf", Term(logits, shape, None), v)
    return [out, *[() for _ in call.outputs[1:]]]


def _repeated_heads(call: OpCall, tensor: torch.Tensor) -> Term:
    """Keys or values as if repeated for the query heads that share them."""
    shape = list(tensor.shape)
    heads = len(shape) - 3
    if shape[heads] == 1:
        return call.term(tensor)
    times = call["query"].shape[heads] // shape[heads]
    factors = algebra.take(call.facts, call.labels_of(tensor), heads, np.repeat(np.arange(shape[heads]), times))
    shape[heads] *= times
    return Term(factors, tuple(shape), tensor)


def _with_bias(call: OpCall, logits: Factors, shape: tuple[int, ...]) -> Factors:
    bias = call.arguments.get("attn_mask", call.arguments.get("attn_bias"))
    if bias is None:
        return logits
    call.record_produced([call["query"], bias])
    added = Operand.broadcast(call.labels_of(bias), bias.shape, len(shape))
    return algebra.align(call.facts, [Operand(logits, shape), added], call.site)

"""Rounding as a quantised model would, for training: every index by itself, with its channel's own scale."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factors
from secateur.graph.rules.base import OpCall, rule


@rule("fake_quantize_per_tensor_affine_cachemask", "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
@rule("_fake_quantize_learnable_per_tensor_affine")
def per_tensor(call: OpCall) -> Sequence[Factors]:
    """One scale for all."""
    return [call.factors("self") for _ in call.outputs]


@rule("fake_quantize_per_channel_affine_cachemask", "_fake_quantize_learnable_per_channel_affine")
def per_channel(call: OpCall) -> Sequence[Factors]:
    """A scale for each index of one dimension."""
    shape, axis = tuple(call["self"].shape), call["axis"]
    operands = [Operand(call.factors("self"), shape)]
    extents = tuple(n if d == axis else 1 for d, n in enumerate(shape))
    for name in ("scale", "zero_point"):
        operands.append(Operand(tuple(f.moved([axis]) for f in call.factors(name)), extents))
    labels = algebra.align(call.facts, operands, call.site)
    return [labels for _ in call.outputs]


@rule("_fused_moving_avg_obs_fq_helper")
def observed(call: OpCall) -> Sequence[Factors]:
    """Rounded by scales from the smallest and the largest value, of everything or of each index of one dimension."""
    labels = call.factors("self")
    if not call["per_row_fake_quant"]:
        call.mix(labels, "a scale from the smallest and the largest value")
        return [labels for _ in call.outputs]
    axis = call["ch_axis"]
    shape = tuple(call["self"].shape)
    extents = tuple(n if d == axis else 1 for d, n in enumerate(shape))
    statistics = ("running_min", "running_max", "scale", "zero_point")
    rows = [Operand(tuple(f.moved([axis]) for f in call.factors(name)), extents) for name in statistics]
    labels = algebra.align(call.facts, [Operand(labels, shape), *rows], call.site)
    call.mix(tuple(f for f in labels if f.free != axis), "a scale from the smallest and the largest value")
    return [labels for _ in call.outputs]

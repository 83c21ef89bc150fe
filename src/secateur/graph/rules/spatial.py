"""Pooling, padding, resizing and sampling: channels pass; positions, which carry no labels, change in number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factor, Factors
from secateur.graph.rules.base import OpCall, rule

# operator (with {n} for the number of spatial dimensions): those numbers
POSITIONAL: dict[str, Sequence[int]] = {
    "avg_pool{n}d": (2, 3),
    "_adaptive_avg_pool{n}d": (2, 3),
    "adaptive_max_pool{n}d": (2, 3),
    "max_pool{n}d_with_indices": (2, 3),
    "fractional_max_pool{n}d": (2, 3),
    "max_unpool{n}d": (2, 3),
    "upsample_nearest{n}d": (1, 2, 3),
    "_upsample_nearest_exact{n}d": (1, 2, 3),
    "upsample_linear{n}d": (1,),
    "upsample_bilinear{n}d": (2,),
    "_upsample_bilinear{n}d_aa": (2,),
    "upsample_bicubic{n}d": (2,),
    "_upsample_bicubic{n}d_aa": (2,),
    "_upsample_lanczos{n}d_aa": (2,),
    "upsample_trilinear{n}d": (3,),
    "reflection_pad{n}d": (1, 2, 3),
    "replication_pad{n}d": (1, 2, 3),
}


def _positional(call: OpCall, *, spatial: int) -> Sequence[Factors]:
    """Every dimension but the last ``spatial`` passes; indices to unpool, and samples, have a row for each channel."""
    leading = call["self"].dim() - spatial
    operands = []
    for tensor in call.tensors():
        # Samples have a batch dimension (of length one) even where the input has none.
        shift = leading - 2 if tensor is call.arguments.get("random_samples") else 0
        here = range(leading - shift)
        beyond = range(len(here), tensor.dim())
        factors = call.fix_dims(call.labels_of(tensor), beyond, "pooled, padded or resized position")
        moved = tuple(f.moved([d + shift for d in here]) for f in factors)
        operands.append(Operand(moved, tuple(tensor.shape[max(-shift, 0) : len(here)])))
    kept = algebra.align(call.facts, operands, call.site)
    return [kept for _ in call.outputs]


for _pattern, _numbers in POSITIONAL.items():
    for _n in _numbers:
        rule(_pattern.format(n=_n), spatial=_n)(_positional)


@rule("grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(call: OpCall) -> Sequence[Factors]:
    """Positions named by a grid, one for each batch index: batch and channels pass."""
    grid = call["grid"]
    positions = range(2, call["input"].dim())
    source = call.fix_dims(call.factors("input"), positions, "sampled position")
    batch = call.fix_dims(call.factors("grid"), range(1, grid.dim()), "position in a sampling grid")
    operands = [Operand(source, tuple(call["input"].shape)), Operand(batch, (grid.shape[0],) + (1,) * (grid.dim() - 1))]
    return [algebra.align(call.facts, operands, call.site)]


@rule("affine_grid_generator", "cudnn_affine_grid_generator")
def affine_grid(call: OpCall) -> Sequence[Factors]:
    """A grid of positions from one small matrix for each batch index."""
    theta = next(t for t in call.tensors())
    return [call.fix_dims(call.labels_of(theta), range(1, theta.dim()), "matrix of a sampling grid")]


@rule("constant_pad_nd")
def constant_pad(call: OpCall) -> Sequence[Factors]:
    """New indices carry no label; negative padding cuts, by number, so that what is cut must stay."""
    factors = call.factors("self")
    pad = call["pad"]
    rank = call["self"].dim()
    for pair, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dim = rank - 1 - pair
        size = call["self"].shape[dim]
        if before < 0 or after < 0:
            cut = np.r_[np.arange(max(-before, 0)), np.arange(size - max(-after, 0), size)]
            for factor in factors:
                if factor.free == dim:
                    call.fix(factor.labels[..., cut], "cut by its number")
        index = np.full(size + before + after, -1)
        inner = np.arange(max(-before, 0), size - max(-after, 0))
        index[max(before, 0) : max(before, 0) + len(inner)] = inner
        factors = algebra.take(call.facts, factors, dim, index)
    return [factors]


@rule("im2col")
def im2col(call: OpCall) -> Sequence[Factors]:
    """Patches of (batch, C, H, W) as (batch, C * kernel, positions): a channel's patch leaves whole."""
    rank = call["self"].dim()
    kept = call.fix_dims(call.factors("self"), [rank - 2, rank - 1], "position under a kernel")
    kernel = int(np.prod(call["kernel_size"]))
    channel = rank - 3
    size = call["self"].shape[channel]
    return [algebra.take(call.facts, kept, channel, np.repeat(np.arange(size), kernel))]


@rule("col2im")
def col2im(call: OpCall) -> Sequence[Factors]:
    """The inverse of im2col: rows of one channel's patch leave together."""
    rank = call["self"].dim()
    kept = call.fix_dims(call.factors("self"), [rank - 1], "position under a kernel")
    kernel = int(np.prod(call["kernel_size"]))
    result = []
    for factor in kept:
        if rank - 2 not in factor.dims:
            result.append(factor)
            continue
        factor = algebra.collapse(call.facts, factor, rank - 2, f"folded together ({call.site})")
        rows = factor.labels.reshape(-1, kernel)
        call.facts.equate(rows, rows[:, :1], f"folded together ({call.site})")
        result.append(Factor(factor.dims, rows[:, 0]))
    return [tuple(result)]

"""The reshape family: dimensions are split, merged, renamed; no element changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.graph import algebra
from secateur.graph.labels import Factor, Factors
from secateur.graph.rules.base import OpCall, rule


@rule("view", "_unsafe_view", "view_copy", "_reshape_alias", "_reshape_copy")
def view(call: OpCall) -> Sequence[Factors]:
    """Any reshape; a changed dtype keeps the dimensions."""
    before, after = call["self"].shape, call.out.shape
    return [algebra.reshape(call.facts, call.factors("self"), before, after, call.site, flexible=call.flexible)]


@rule("permute", "permute_copy")
def permute(call: OpCall) -> Sequence[Factors]:
    """Dimensions are renamed."""
    rank = call["self"].dim()
    return [algebra.permute(call.factors("self"), [d % rank for d in call["dims"]])]


@rule("transpose", "transpose_copy", "t", "t_copy")
def transpose(call: OpCall) -> Sequence[Factors]:
    """Two dimensions change places."""
    rank = call["self"].dim()
    order = list(range(rank))
    if rank > 1:
        a, b = (call.arguments.get(name, default) % rank for name, default in (("dim0", 0), ("dim1", 1)))
        order[a], order[b] = order[b], order[a]
    return [algebra.permute(call.factors("self"), order)]


@rule("unsqueeze", "unsqueeze_copy")
def unsqueeze(call: OpCall) -> Sequence[Factors]:
    """A dimension of length one is inserted."""
    at = call["dim"] % call.out.dim()
    return [tuple(f.moved([d + (d >= at) for d in range(call["self"].dim())]) for f in call.factors("self"))]


@rule("squeeze", "squeeze_copy")
def squeeze(call: OpCall) -> Sequence[Factors]:
    """Dimensions of length one, which carry no labels, are dropped."""
    shape = call["self"].shape
    wanted = call.arguments.get("dim")
    dims = range(len(shape)) if wanted is None else wanted if isinstance(wanted, (list, tuple)) else [wanted]
    gone = [d % max(len(shape), 1) for d in dims if len(shape) and shape[d] == 1]
    return [algebra.renumber_without(call.factors("self"), gone, len(shape))]


@rule("repeat")
def repeat(call: OpCall) -> Sequence[Factors]:
    """Labels are tiled; a dimension made longer from length one carries none."""
    times = list(call["repeats"])
    rank = call.out.dim()
    times = [1] * (rank - len(times)) + times
    shift = rank - call["self"].dim()
    result = []
    for factor in call.factors("self"):
        moved = factor.moved([d + shift for d in range(call["self"].dim())])
        result.append(Factor(moved.dims, np.tile(moved.labels, [times[d] for d in moved.dims])))
    return [tuple(result)]


@rule("pixel_shuffle")
def pixel_shuffle(call: OpCall) -> Sequence[Factors]:
    """Blocks of r*r channels become r x r positions of one channel: whole blocks leave."""
    return [_blocks(call, call["upscale_factor"] ** 2, divide=True)]


@rule("pixel_unshuffle")
def pixel_unshuffle(call: OpCall) -> Sequence[Factors]:
    """One channel's r x r positions become r*r channels."""
    return [_blocks(call, call["downscale_factor"] ** 2, divide=False)]


def _blocks(call: OpCall, block: int, *, divide: bool) -> Factors:
    rank = call.out.dim()
    factors = call.fix_dims(call.factors("self"), [rank - 2, rank - 1], "position shuffled into channels")
    channel = rank - 3
    result = []
    for factor in factors:
        if channel not in factor.dims:
            result.append(factor)
            continue
        labels = algebra.collapse(call.facts, factor, channel, f"shuffled together ({call.site})").labels
        if divide:
            rows = labels.reshape(-1, block)
            call.facts.equate(rows, rows[:, :1], f"whole blocks leave ({call.site})")
            labels = rows[:, 0]
        else:
            labels = np.repeat(labels, block)
        result.extend(algebra.squeezed(Factor((channel,), labels)))
    return tuple(result)


@rule("channel_shuffle")
def channel_shuffle(call: OpCall) -> Sequence[Factors]:
    """View as (groups, n), transpose, flatten."""
    shape, groups = tuple(call["self"].shape), call["groups"]
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    rank = len(split)
    swapped = (split[0], split[2], split[1], *split[3:])
    factors = algebra.reshape(call.facts, call.factors("self"), shape, split, call.site)
    factors = algebra.permute(factors, [0, 2, 1, *range(3, rank)])
    return [algebra.reshape(call.facts, factors, swapped, shape, call.site)]

"""What a criterion is, and sums over the slices that leave with a channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.errors import ScoreError
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Consumer, Group
from secateur.graph.walk import named_parameters

FloatArray: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = dict[str, FloatArray]
AxisSums: TypeAlias = Mapping[tuple[str, int], FloatArray]

_ELEMENTS_AT_ONCE = 2**20


class Criterion(Protocol):
    """Scores every channel of every channel group and leaves the model as it was."""

    def __call__(self, graph: DependencyGraph, model: nn.Module) -> Scores:
        """Group name to scores of shape (size,), float64 and finite; a higher score stays longer."""
        ...


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Floating-point parameters by dotted name (the first of tied names)."""
    return {name: p for name, p in named_parameters(model).items() if p.is_floating_point()}


def sums_by_axis(
    graph: DependencyGraph, values: Mapping[str, Tensor], of: Callable[[Tensor], Tensor] = lambda values: values
) -> AxisSums:
    """Sums over all but one axis, for every parameter axis that a channel group touches.

    Args:
        graph: the dependency graph.
        values: parameter name to values in the parameter's shape; parameters without values are left out.
        of: what is summed, as an element-wise function of the values; it is given a few rows at a time, so that what it
            makes of a large parameter is never held at once.

    Returns:
        (Parameter name, axis) to sums of shape (length of the axis,).

    Raises:
        ScoreError: the values are on the meta device.
    """
    axes: dict[str, dict[int, None]] = {}
    for group in graph.groups:
        for member in group.members:
            if member.parameter in values:
                axes.setdefault(member.parameter, {})[member.axis] = None
    return {
        (name, axis): total
        for name, wanted in axes.items()
        for axis, total in _sums_over_others(values[name], wanted, of).items()
    }


def channel_sums(group: Group, sums: AxisSums) -> FloatArray:
    """Sum over everything that leaves with each channel, shape (size,); axes without sums add nothing."""
    total = np.zeros(group.size)
    for member in group.members:
        per_index = sums.get((member.parameter, member.axis))
        if per_index is not None:
            total += per_index[member.indices].sum(axis=1)
    return total


def elements_per_channel(group: Group, values: Mapping[str, Tensor]) -> int:
    """How many of the values leave with one channel."""
    shapes = [(values[m.parameter].shape, m) for m in group.members if m.parameter in values]
    return sum(shape.numel() // shape[m.axis] * m.multiplicity for shape, m in shapes)


def _sums_over_others(values: Tensor, axes: Iterable[int], of: Callable[[Tensor], Tensor]) -> dict[int, FloatArray]:
    if values.is_meta:
        raise ScoreError("the model is on the meta device, which holds no values; score a model that has them")
    totals = {axis: np.zeros(values.shape[axis]) for axis in axes}
    rows = max(1, _ELEMENTS_AT_ONCE // math.prod(values.shape[1:]))
    for start in range(0, len(values), rows):
        block = of(values[start : start + rows])
        for axis, total in totals.items():
            part = total[start : start + rows] if axis == 0 else total
            part += _summed(block, axis)
    return totals


def _summed(values: Tensor, axis: int) -> FloatArray:
    """Sums over all other axes, shape (length of the axis,), in single precision at least, and pairwise."""
    precise = values.dtype if values.dtype == torch.float64 else torch.float32
    # Outer dimensions first: several times as fast as both sides at once, since memory is read in order.
    outer, inner = list(range(axis)), list(range(1, values.dim() - axis))
    total = values.sum(dim=outer, dtype=precise) if outer else values.to(precise)
    total = total.sum(dim=inner) if inner else total
    return np.asarray(total.cpu().numpy(), dtype=np.float64)


def checked(scores: Scores, criterion: str, cause: str) -> Scores:
    """The scores, if they are all finite.

    Raises:
        ScoreError: naming the groups with scores that aren't, and what to look at.
    """
    bad = [name for name, values in scores.items() if not np.isfinite(values).all()]
    if bad:
        names = ", ".join(map(repr, bad))
        raise ScoreError(f"{criterion} gives scores that aren't finite for {names}; look at {cause}")
    return scores


def score_groups(graph: DependencyGraph, score: Callable[[Group], FloatArray]) -> Scores:
    """``score`` applied to every channel group."""
    return {group.name: score(group) for group in graph.groups}


def prunable_consumers(graph: DependencyGraph) -> tuple[Consumer, ...]:
    """The consumer axes that belong to a channel group, in trace order."""
    axes = {(member.parameter, member.axis) for group in graph.groups for member in group.members}
    return tuple(c for c in graph.consumers if (c.parameter, c.axis) in axes)

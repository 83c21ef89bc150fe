"""What a criterion is, and sums over the slices that leave with a channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.errors import ScoreError
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Consumer, Group, Member

FloatArray: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = dict[str, FloatArray]


class Criterion(Protocol):
    """Scores every channel of every channel group and leaves the model as it was."""

    def __call__(self, graph: DependencyGraph, model: nn.Module) -> Scores:
        """Group name to scores of shape (size,), float64 and finite; a higher score stays longer."""
        ...


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Floating-point parameters by dotted name (the first of tied names)."""
    return {name: p for name, p in model.named_parameters() if p.is_floating_point()}


def channel_sums(group: Group, values: Mapping[str, Tensor]) -> FloatArray:
    """Sum of ``values`` over everything that leaves with each channel, shape (size,).

    Args:
        group: the channel group.
        values: parameter name to values in the parameter's shape; members without values, such as buffers, add nothing.
    """
    sums = np.zeros(group.size)
    for member in group.members:
        if member.parameter in values:
            sums += _gather(member, axis_sums(values[member.parameter], member.axis))
    return sums


def elements_per_channel(group: Group, values: Mapping[str, Tensor]) -> int:
    """How many of the values leave with one channel."""
    shapes = [(values[m.parameter].shape, m) for m in group.members if m.parameter in values]
    return sum(shape.numel() // shape[m.axis] * m.multiplicity for shape, m in shapes)


def axis_sums(values: Tensor, axis: int) -> FloatArray:
    """Sum over all other axes, accumulated in float64; shape (length of the axis,)."""
    if values.is_meta:
        raise ScoreError("the model is on the meta device, which holds no values; score a model that has them")
    others = [dim for dim in range(values.ndim) if dim != axis]
    device = torch.device("cpu") if values.device.type == "mps" else values.device
    values = values.to(device)
    total = values.sum(dim=others, dtype=torch.float64) if others else values.to(torch.float64)
    return np.asarray(total.cpu().numpy())


def _gather(member: Member, per_index: FloatArray) -> FloatArray:
    return np.asarray(per_index[member.indices].sum(axis=1))


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

"""Soft masks: channels fade out in the order of their scores as a continuous pruning coefficient passes their rank.

The mask of channel i in a group with coefficient c is ``sigmoid((rank_i - c) / temperature)``, where the rank in (0, 1)
is the channel's place by score: the fraction of the group (of the channel's block, where the group has blocks) that has
left when half of the channel has. It multiplies the consumer axes of the parameters, where zero is the same as removal.
Channels that no parameter consumes, such as queries and keys, are masked where they are made, biases included.

Source: arXiv 2507.14882; straight-through gradients, Bengio et al., arXiv 1308.3432.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from secateur.graph.cost import IntArray
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Group, Member, Role
from secateur.plan import FloatArray


@dataclass(frozen=True, eq=False)
class SoftMasks:
    """Masks of all channels as functions of one pruning coefficient for each variable (groups that are tied).

    Attributes:
        ranks: shape (channels,), of all groups end to end; channels that leave together have equal ranks.
        spacing: shape (channels,); how far each channel's rank is from the next.
        variable_of: shape (channels,); the variable whose coefficient moves each channel.
        axes: parameter name to its masked axes, each with the channel of every index, shape (length of the axis,);
            -1 where an index is never masked.
    """

    ranks: Tensor
    spacing: Tensor
    variable_of: Tensor
    axes: Mapping[str, tuple[tuple[int, Tensor], ...]]

    @classmethod
    def of(cls, graph: DependencyGraph, scores: Mapping[str, FloatArray]) -> SoftMasks:
        """The masks of a graph's groups, their channels ordered by these scores as in :func:`secateur.plan`."""
        sizes = np.array([g.size for g in graph.groups], dtype=np.int64)
        spacing = [1 / g.units for g in graph.groups]
        ranks = [_ranks(g, scores[g.name]) for g in graph.groups]
        return cls(
            torch.from_numpy(np.concatenate([np.zeros(0), *ranks])),
            torch.from_numpy(np.repeat(np.array(spacing, dtype=np.float64), sizes)),
            torch.from_numpy(np.repeat(variable_of_group(graph), sizes)),
            _masked_axes(graph),
        )

    def soft(self, coefficients: Tensor, temperature: float) -> Tensor:
        """The masks in (0, 1), shape (channels,), for coefficients of shape (variables,).

        In a group of few channels the temperature is at least half of the distance between two ranks: below, no channel
        would feel the coefficient.
        """
        widths = (self.spacing / 2).clamp(min=temperature)
        return torch.sigmoid((self.ranks - coefficients[self.variable_of]) / widths)

    def hard(self, coefficients: Tensor) -> Tensor:
        """The masks at temperature zero, 0 or 1, shape (channels,), for coefficients of shape (variables,)."""
        return (self.ranks > coefficients[self.variable_of]).to(self.ranks)

    def straight_through(self, coefficients: Tensor, temperature: float) -> Tensor:
        """Hard masks with the gradient of soft ones, shape (channels,), for coefficients of shape (variables,)."""
        soft = self.soft(coefficients, temperature)
        return self.hard(coefficients.detach()) + (soft - soft.detach())

    def masked(self, tensors: Mapping[str, Tensor], masks: Tensor) -> dict[str, Tensor]:
        """The tensors by name, those with masked axes times masks of shape (channels,)."""
        result = dict(tensors)
        factors = torch.cat([masks, masks.new_ones(1)])  # index -1: never masked
        for name, axes in self.axes.items():
            tensor = tensors[name]
            on_device = factors.to(tensor)
            for axis, channels in axes:
                shape = [1] * tensor.dim()
                shape[axis] = -1
                tensor = tensor * on_device[channels.to(tensor.device)].reshape(shape)
            result[name] = tensor
        return result


def variable_of_group(graph: DependencyGraph) -> IntArray:
    """The variable that each group's coefficient is, shape (groups,)."""
    variables = np.empty(len(graph.groups), dtype=np.int64)
    for variable, tie in enumerate(graph.ties):
        variables[tie] = variable
    return variables


def _ranks(group: Group, scores: FloatArray) -> FloatArray:
    """Place of every channel by score, shape (size,): the middle of its unit in the order in which units leave."""
    per_block = group.size // group.blocks
    # As in plan: the best of every block stay, and of equal scores the one with the lower index.
    order = np.lexsort((-scores, group.block_of)).reshape(group.blocks, per_block)
    ranks = np.empty(group.size)
    unit_of_place = np.arange(per_block - 1, -1, -1) * group.units // per_block
    ranks[order] = (unit_of_place + 0.5) / group.units
    return ranks


def _masked_axes(graph: DependencyGraph) -> dict[str, tuple[tuple[int, Tensor], ...]]:
    starts = np.cumsum([0, *(g.size for g in graph.groups)])[:-1]
    shapes = {spec.name: spec.shape for spec in graph.parameters}
    channels: dict[str, dict[int, IntArray]] = {}
    for group, start in zip(graph.groups, starts, strict=True):
        for member in _masked_members(group):
            axes = channels.setdefault(member.parameter, {})
            of_index = axes.setdefault(member.axis, np.full(shapes[member.parameter][member.axis], -1, dtype=np.int64))
            of_index[member.indices] = np.arange(start, start + group.size)[:, None]
    return {name: tuple((axis, torch.from_numpy(c)) for axis, c in axes.items()) for name, axes in channels.items()}


def _masked_members(group: Group) -> tuple[Member, ...]:
    return group.members_with(Role.CONSUMER) or group.members_with(Role.PRODUCER)

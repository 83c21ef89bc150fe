"""Magnitude: the norm of everything that leaves with a channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from secateur.errors import ScoreError
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Group
from secateur.importance.criterion import (
    FloatArray,
    Scores,
    channel_sums,
    checked,
    elements_per_channel,
    parameters_of,
    score_groups,
    sums_by_axis,
)


@dataclass(frozen=True)
class Magnitude:
    """Norm of the weights that leave with a channel, over all members of its group.

    For p = 1 the mean of |w|, for p = 2 the root of the mean of w^2, over all parameter elements that leave with the
    channel, producers and consumers alike (buffers don't count). Taking the mean and not the sum makes scores of
    groups with long and short slices comparable, and doesn't change the order inside a group.

    Attributes:
        p: 1 or 2.

    Source: Li et al., "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710), there for one layer's filters.
    """

    p: int = 2

    def __post_init__(self) -> None:
        """Check the exponent.

        Raises:
            ScoreError: p is neither 1 nor 2.
        """
        if self.p not in (1, 2):
            raise ScoreError(f"Magnitude knows the norms p=1 and p=2, not p={self.p!r}")

    def __call__(self, graph: DependencyGraph, model: nn.Module) -> Scores:
        """Scores for every channel group.

        Raises:
            ScoreError: the weights aren't finite.
        """
        parameters = parameters_of(model)
        with torch.no_grad():
            sums = sums_by_axis(graph, parameters, torch.abs if self.p == 1 else torch.square)

        def score(group: Group) -> FloatArray:
            means: FloatArray = channel_sums(group, sums) / max(1, elements_per_channel(group, parameters))
            return means ** (1 / self.p)

        return checked(score_groups(graph, score), "Magnitude", "the model's weights")

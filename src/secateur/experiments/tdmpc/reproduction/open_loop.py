"""Latent states predicted open loop: how far a pruned model's move away from the dense model's, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.calibration import evaluating
from secateur.errors import ControlError
from secateur.experiments.tdmpc.episodes import Episodes
from secateur.experiments.tdmpc.planner import WorldModel

_HIGH = 0.95


@dataclass(frozen=True, eq=False)
class Drift:
    """Relative L2 distances of latent states, L + 1 each: at once, after one step, ..., after L steps.

    Attributes:
        mean: ``sqrt(sum ||z' - z||^2 / sum ||z||^2)``, the sums over all starts.
        high: the same of single starts, in units of the mean ``||z||^2``: the 95th percentile.
    """

    mean: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def between(cls, found: Tensor, truth: Tensor) -> Drift:
        """Of states of shape (L + 1, B, channels)."""
        scale = truth.double().square().sum(dim=-1).mean(dim=1, keepdim=True).clamp_min(torch.finfo().tiny)
        apart = (found.double() - truth.double()).square().sum(dim=-1) / scale
        mean, high = apart.mean(dim=1).sqrt(), apart.quantile(_HIGH, dim=1).sqrt()
        return cls(tuple(mean.tolist()), tuple(high.tolist()))


@dataclass(frozen=True, eq=False)
class OpenLoop:
    """Stretches of episodes: where they start, what was done, and what was seen.

    Attributes:
        observations: shape (L + 1, B, n).
        actions: as executed, shape (L, B, m).
    """

    observations: Tensor
    actions: Tensor

    @classmethod
    def of(cls, episodes: Episodes, steps: int) -> OpenLoop:
        """Episodes cut into stretches of so many steps, one after the other.

        Raises:
            ControlError: the episodes are shorter.
        """
        count = len(episodes.actions) // steps
        if count == 0:
            raise ControlError(f"episodes of {len(episodes.actions)} steps hold no stretch of {steps}; ask for less")
        starts = np.arange(count) * steps
        return cls(_stretches(episodes.observations, starts, steps + 1), _stretches(episodes.actions, starts, steps))

    @torch.no_grad()
    def latents(self, model: nn.Module) -> Tensor:
        """The states that a model predicts from the first observation and the actions, shape (L + 1, B, channels)."""
        world = cast(WorldModel, model)
        with evaluating(model):
            states = [world.encode(self.observations[0])]
            for action in self.actions:
                states.append(world.next(states[-1], action)[0])
        return torch.stack(states)

    def drift(self, model: nn.Module, dense: nn.Module, kept: NDArray[np.int64]) -> Drift:
        """How far a model's states are from the dense model's.

        Args:
            model: dense or pruned.
            dense: the dense model.
            kept: which of the dense model's channels the other has, ascending.
        """
        return Drift.between(self.latents(model), self.latents(dense)[..., torch.from_numpy(kept.copy())])

    @torch.no_grad()
    def own_error(self, dense: nn.Module) -> Drift:
        """How far the dense model's states are from those that it encodes when it gets there."""
        with evaluating(dense):
            seen = cast(WorldModel, dense).encode(self.observations)
        return Drift.between(self.latents(dense), seen)


def _stretches(values: NDArray[np.float32], starts: NDArray[np.int64], length: int) -> Tensor:
    """Stretches of (T, N, k) from these steps on, side by side: shape (length, len(starts) * N, k)."""
    found = values[starts + np.arange(length)[:, None]]
    return torch.from_numpy(found.reshape(length, -1, values.shape[-1]))

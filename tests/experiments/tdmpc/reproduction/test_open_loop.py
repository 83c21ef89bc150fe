from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.errors import ControlError
from secateur.experiments.tdmpc.episodes import Episodes
from secateur.experiments.tdmpc.reproduction.open_loop import Drift, OpenLoop

LATENT = 3


class Linear(nn.Module):
    """z = E x, z' = a z + action: every state is known in closed form."""

    def __init__(self, factor: float, keep: int = LATENT) -> None:
        super().__init__()
        self.factor, self.keep = factor, keep

    def encode(self, observation: Tensor) -> Tensor:
        return observation[..., : self.keep]

    def next(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.factor * latent + action, latent.sum(-1)


def episodes(steps: int, count: int = 2, *, factor: float = 0.5) -> Episodes:
    """A world that is exactly ``Linear(factor)``, without action."""
    start = np.random.default_rng(0).normal(size=(count, LATENT))
    observations = np.stack([factor**t * start for t in range(steps + 1)]).astype(np.float32)
    actions = np.zeros((steps, count, 1), dtype=np.float32)
    rewards = np.zeros((steps, count), dtype=np.float32)
    return Episodes(
        returns=np.zeros(count), observations=observations, actions=actions, rewards=rewards, seeds=(0,) * count
    )


def test_stretches_follow_one_another() -> None:
    seen = episodes(7)
    loop = OpenLoop.of(seen, 3)
    assert loop.actions.shape == (3, 4, 1)
    assert loop.observations.shape == (4, 4, LATENT)
    for start, columns in ((0, slice(0, 2)), (3, slice(2, 4))):
        assert np.array_equal(loop.observations[:, columns].numpy(), seen.observations[start : start + 4])


def test_episodes_that_are_too_short_are_an_error() -> None:
    with pytest.raises(ControlError, match="episodes of 7 steps hold no stretch of 8"):
        OpenLoop.of(episodes(7), 8)


def test_the_drift_of_a_linear_model_is_exact() -> None:
    """States 0.5^t z against 0.4^t z: the distance is 1 - 0.8^t, whatever z is."""
    loop = OpenLoop.of(episodes(4), 4)
    found = loop.drift(Linear(0.4), Linear(0.5), np.arange(LATENT))
    assert found.mean == pytest.approx([1 - 0.8**t for t in range(5)], abs=1e-6)


def test_the_high_percentile_is_that_of_single_starts() -> None:
    truth = torch.ones(1, 100, 1)
    found = truth.clone()
    found[0, :10] += 3
    drift = Drift.between(found, truth)
    assert drift.mean == pytest.approx((math.sqrt(0.1 * 9),))
    assert drift.high == pytest.approx((3.0,))


def test_channels_that_left_are_left_out() -> None:
    loop = OpenLoop.of(episodes(4), 4)
    assert loop.drift(Linear(0.5, keep=2), Linear(0.5), np.array([0, 1])).mean == pytest.approx([0.0] * 5)
    assert loop.drift(Linear(0.5, keep=2), Linear(0.5), np.array([1, 2])).mean[0] > 0.1


def test_a_model_that_is_the_world_makes_no_error_of_its_own() -> None:
    loop = OpenLoop.of(episodes(4), 4)
    assert loop.own_error(Linear(0.5)).mean == pytest.approx([0.0] * 5, abs=1e-6)
    assert loop.own_error(Linear(0.4)).mean == pytest.approx([1 - 0.8**t for t in range(5)], abs=1e-6)

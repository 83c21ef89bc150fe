"""A tiny agent on a task that takes no time: all of a reproduction in seconds."""

from __future__ import annotations

import numpy as np
import torch

from secateur.experiments.tdmpc.checkpoints import Agent
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.environments import Environment, FloatVector
from tests.experiments.tdmpc.small_agent import ACTIONS, LATENT, OBSERVATIONS, small_told

STEPS = 10
CONFIG = TdMpcConfig(
    encoder_width=16, width=16, latent=LATENT, samples=12, elites=4, iterations=1, horizon=2, policy_fraction=0.25
)


class Drift:
    """A point that wanders by itself and is pushed by the actions; the nearer to zero, the larger the reward."""

    observations, actions, steps = OBSERVATIONS, ACTIONS, STEPS

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.place = np.zeros(OBSERVATIONS)

    def reset(self) -> FloatVector:
        self.place = self.rng.normal(size=OBSERVATIONS)
        return self.place.astype(np.float32)

    def step(self, action: FloatVector) -> tuple[FloatVector, float]:
        self.place = 0.9 * self.place + 0.3 * np.tile(action, 2) + 0.1 * self.rng.normal(size=OBSERVATIONS)
        return self.place.astype(np.float32), float(np.exp(-np.square(self.place).sum()))


def drift(task: str, seed: int, *, action_repeat: int | None = None) -> Environment:
    """Makes it."""
    assert (task, action_repeat) == (CONFIG.task, CONFIG.action_repeat)
    return Drift(seed)


def stub_agent(seed: int = 0) -> Agent:
    return Agent(model=small_told(seed=seed, dtype=torch.float32), config=CONFIG)

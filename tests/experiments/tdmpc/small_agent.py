"""A small untrained agent whose rewards and values aren't zero, and visits drawn at random."""

from __future__ import annotations

import torch
from torch import nn

from secateur.experiments.tdmpc.told import Told
from secateur.experiments.tdmpc.visits import Visits

OBSERVATIONS, ACTIONS, LATENT = 4, 2, 10


def small_told(*, width: int = 16, seed: int = 0, dtype: torch.dtype = torch.float64) -> Told:
    torch.manual_seed(seed)
    model = Told(OBSERVATIONS, ACTIONS, encoder_width=width, width=width, latent=LATENT)
    for head in (model.reward, model.q1, model.q2):
        last = head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.orthogonal_(last.weight)
    return model.to(dtype).eval()


def random_visits(
    rows: int = 200, *, horizon: int = 3, seed: int = 0, task: str = "stroll", dtype: torch.dtype = torch.float64
) -> Visits:
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(rows, OBSERVATIONS, generator=generator, dtype=dtype)
    actions = torch.rand(horizon, rows, ACTIONS, generator=generator, dtype=dtype) * 2 - 1
    return Visits(task=task, observations=observations, actions=actions)

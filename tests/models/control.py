"""A TD-MPC-like controller: five networks around one latent, no ``forward``, exercised by a rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

LATENT = 12
ACTION = 3
OBSERVATION = 7


def perceptron(*widths: int, tanh: bool = False) -> nn.Sequential:
    """Linear layers with ELU between them, the first hidden one under a layer norm and tanh if asked for."""
    first, middle, last = widths[0], widths[1:-1], widths[-1]
    layers: list[nn.Module] = []
    for i, width in enumerate(middle):
        normed = tanh and i == 0
        layers += [nn.Linear(first, width), *([nn.LayerNorm(width), nn.Tanh()] if normed else [nn.ELU()])]
        first = width
    return nn.Sequential(*layers, nn.Linear(first, last))


class WorldModel(nn.Module):
    """Encoder, dynamics, reward, policy and two value functions; ``next`` and ``rollout``, but no ``forward``.

    Args:
        normed_values: give the value functions a layer norm and tanh after their first layer, as TD-MPC does.
    """

    def __init__(self, *, normed_values: bool = False) -> None:
        super().__init__()
        self.encoder = perceptron(OBSERVATION, 10, LATENT)
        self.dynamics = perceptron(LATENT + ACTION, 14, 15, LATENT)
        self.reward = perceptron(LATENT + ACTION, 9, 1)
        self.pi = perceptron(LATENT, 8, ACTION)
        self.Q1 = perceptron(LATENT + ACTION, 16, 11, 1, tanh=normed_values)
        self.Q2 = perceptron(LATENT + ACTION, 16, 11, 1, tanh=normed_values)

    def next(self, z: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The next latent and the reward."""
        x = torch.cat([z, action], dim=-1)
        return self.dynamics(x), self.reward(x)

    def value(self, z: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """The smaller of two estimates."""
        x = torch.cat([z, action], dim=-1)
        smaller: torch.Tensor = torch.min(self.Q1(x), self.Q2(x))
        return smaller


def rollout(steps: int = 3, batch: int = 5, *, by_policy: bool = False) -> Callable[[nn.Module], Any]:
    """An entry point: encode, act for some steps, add up the rewards and the value of the policy's last action.

    Args:
        steps: how many.
        batch: of observations.
        by_policy: let the policy act and keep its actions to itself; else actions are given, and the policy's returned.
    """
    torch.manual_seed(1)
    observation = torch.randn(batch, OBSERVATION, dtype=torch.float64)
    actions = torch.randn(steps, batch, ACTION, dtype=torch.float64)

    def run(model: Any) -> Any:
        z = model.encoder(observation)
        total = torch.zeros(batch, 1, dtype=observation.dtype)
        for step, given in enumerate(actions):
            z, reward = model.next(z, torch.tanh(model.pi(z)) if by_policy else given)
            total = total + 0.9**step * reward
        last = torch.tanh(model.pi(z))
        total = total + 0.9**steps * model.value(z, last)
        return total if by_policy else {"return": total, "action": last}

    return run

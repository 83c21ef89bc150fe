"""Models that distillation is tested on: a world model without ``forward``, and what pruning by hand makes of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import secateur
from secateur.plan import PruningPlan

Run = Callable[[Any], Any]

OBSERVATIONS, ACTIONS, STEPS = 6, 2, 3


def perceptron(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ELU()]
    return nn.Sequential(*layers[:-1])


class WorldModel(nn.Module):
    """A latent that is encoded once, then predicted step by step; rewards and actions are read off it."""

    def __init__(self, width: int = 48, latent: int = 12) -> None:
        super().__init__()
        self.encoder = perceptron(OBSERVATIONS, width, latent)
        self.dynamics = perceptron(latent + ACTIONS, width, latent)
        self.reward = perceptron(latent + ACTIONS, width, 1)
        self.pi = perceptron(latent, width, ACTIONS)


def rollout(model: Any, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards (steps, rows) and the policy's actions (steps, rows, actions); the latent stays inside."""
    latent, rewards, chosen = model.encoder(observations), [], []
    for action in actions:
        chosen.append(model.pi(latent).tanh())
        joined = torch.cat([latent, action], -1)
        rewards.append(model.reward(joined)[..., 0])
        latent = model.dynamics(joined)
    return torch.stack(rewards), torch.stack(chosen)


def minibatch(rows: int, seed: int) -> Run:
    """A function of the model: a rollout from so many random observations, along random actions."""
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(rows, OBSERVATIONS, generator=generator)
    actions = torch.rand(STEPS, rows, ACTIONS, generator=generator) * 2 - 1
    return lambda model: rollout(model, observations, actions)


def world_model(*, width: int = 48, latent: int = 12) -> WorldModel:
    """One with weights large enough for its functions to be curved."""
    torch.manual_seed(0)
    model = WorldModel(width, latent).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def pruned(
    model: nn.Module, run: Run, removed: float, *, exactly: bool = False, **options: Any
) -> tuple[nn.Module, PruningPlan]:
    """The smaller model, as surgery leaves it, with the same fraction of every group removed, chosen at random.

    Args:
        model: the dense model.
        run: what is traced.
        removed: the fraction.
        exactly: let nothing in the dense model read what is removed: see ``dead``.
        options: of the trace.
    """
    graph = secateur.trace(model, run=run, **options)
    plan = secateur.plan(graph, secateur.importance.Random()(graph, model), removed)
    if exactly:
        dead(model, plan)
    return secateur.apply(model, plan), plan


def dead(model: nn.Module, plan: PruningPlan) -> None:
    """Let nothing read the channels that the plan removes, so that the smaller model makes the same of the rest.

    Wherever a parameter axis is summed over removed channels, its slices are set to zero. Call it before surgery.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for consumer in plan.consumers:
            gone = torch.from_numpy(plan.removed(consumer.parameter, consumer.axis))
            parameters[consumer.parameter].index_fill_(consumer.axis, gone, 0)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

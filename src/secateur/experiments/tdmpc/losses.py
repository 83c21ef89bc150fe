"""What TD-MPC's model and policy are trained on, over a batch of short rollouts in the latent space.

Every part but the dynamics sees all steps of a rollout in one call: the numbers are the same, the overhead is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.fast_linear import FastLinear
from secateur.experiments.tdmpc.replay import Batch
from secateur.experiments.tdmpc.told import Told, explore

_LARGEST_LOSS = 1e4


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The losses of the model on a batch of B sub-trajectories of H steps.

    Attributes:
        total: weighted by step, part and importance, over H: a scalar to descend.
        consistency: the latents' squared error per sub-trajectory, a scalar without gradient.
        reward: the rewards' squared error, likewise.
        value: both Q heads' squared errors, likewise.
        priorities: absolute errors of both Q heads, shape (B,), without gradient.
        latents: of the rollouts, shape (H+1, B, latent), without gradient: what the policy is trained on.
    """

    total: Tensor
    consistency: Tensor
    reward: Tensor
    value: Tensor
    priorities: Tensor
    latents: Tensor


@torch.no_grad()
def td_target(
    model: Told,
    target: Told,
    next_observation: Tensor,
    reward: Tensor,
    *,
    discount: float,
    std: float,
    generator: torch.Generator,
) -> Tensor:
    """What both Q heads should say: the reward and the discounted value of what follows.

    The value is the smaller one of the target's Q heads, for the model's latent and the policy's action with noise.

    Args:
        model: encodes and acts.
        target: judges.
        next_observation: of shape (..., observations).
        reward: of shape (...,).
        discount: of the value.
        std: standard deviation of the noise on the policy's action.
        generator: of the noise.

    Returns:
        Values of shape (...,), without gradient.
    """
    latent = model.encode(next_observation)
    action = explore(model.act(latent), std, generator)
    return reward + discount * torch.minimum(*target.q(latent, action))


def told_loss(model: Told, target: Told, batch: Batch, config: TdMpcConfig, generator: torch.Generator) -> Losses:
    """The loss of encoder, dynamics, reward and Q heads: TOLD's objective in arXiv 2203.04955.

    The latent of the first observation is rolled out with the actions of the batch. Every latent is compared with the
    target's encoding of what was observed, every reward with the one received, and both Q heads with :func:`td_target`.
    As in the paper's code, each part's loss of a sub-trajectory is at most 1e4, and the gradient is divided by the
    horizon. The policy gets no gradient.

    Args:
        model: is trained.
        target: its slow copy; gets no gradient.
        batch: observations (H+1, B, n), actions (H, B, m), rewards (H, B) and weights (B,).
        config: the weights of the losses, ``rho``, ``discount`` and ``least_std``.
        generator: of the noise on the policy's actions in the targets.
    """
    with FastLinear():
        encoded, goal = _targets(model, target, batch, config, generator)
        latents = _rollout(model, batch)
        both = torch.cat((latents[:-1], batch.actions), -1)
        rewards = model.reward(both).squeeze(-1)
        values = torch.cat((model.q1(both), model.q2(both)), -1)
    steps = _step_weights(config.rho, batch.actions)
    consistency = steps @ F.mse_loss(latents[1:], encoded, reduction="none").mean(-1)
    reward = steps @ F.mse_loss(rewards, batch.rewards, reduction="none")
    error = values - goal.unsqueeze(-1)
    value = steps @ error.square().sum(-1)
    total = (
        config.consistency_weight * consistency.clamp(max=_LARGEST_LOSS)
        + config.reward_weight * reward.clamp(max=_LARGEST_LOSS)
        + config.value_weight * value.clamp(max=_LARGEST_LOSS)
    )
    return Losses(
        total=(total * batch.weights).mean() / len(batch.actions),
        consistency=consistency.detach().mean(),
        reward=reward.detach().mean(),
        value=value.detach().mean(),
        priorities=(steps @ error.detach().abs().sum(-1)).clamp(max=_LARGEST_LOSS),
        latents=latents.detach(),
    )


def policy_loss(model: Told, latents: Tensor, config: TdMpcConfig, generator: torch.Generator) -> Tensor:
    """Minus the value of the policy's actions: a scalar whose gradient reaches the policy alone.

    Args:
        model: its policy is trained; its Q heads judge.
        latents: of shape (H+1, B, latent), such as :attr:`Losses.latents`.
        config: for ``rho`` and ``least_std``.
        generator: of the noise on the policy's actions.

    Returns:
        The negative of the smaller Q, averaged over the batch and summed over the steps with the weights ``rho ** t``.
    """
    latents = latents.detach()
    with FastLinear(), _frozen(model.q1, model.q2):
        value = torch.minimum(*model.q(latents, explore(model.act(latents), config.least_std, generator)))
    return -(_step_weights(config.rho, latents) @ value).mean()


@torch.no_grad()
def _targets(
    model: Told, target: Told, batch: Batch, config: TdMpcConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the latents (H, B, latent) and both Q heads (H, B) are compared with."""
    following = batch.observations[1:]
    options = {"discount": config.discount, "std": config.least_std}
    goal = td_target(model, target, following, batch.rewards, **options, generator=generator)
    return target.encode(following), goal


def _rollout(model: Told, batch: Batch) -> Tensor:
    """The latents (H+1, B, latent) that follow the first observation under the actions."""
    latents = [model.encode(batch.observations[0])]
    for action in batch.actions:
        latents.append(model.dynamics(torch.cat((latents[-1], action), -1)))
    return torch.stack(latents)


def _step_weights(rho: float, like: Tensor) -> Tensor:
    """``rho ** t`` for every step of a tensor (steps, ...)."""
    return rho ** torch.arange(len(like), dtype=like.dtype, device=like.device)


@contextmanager
def _frozen(*parts: nn.Module) -> Iterator[None]:
    """What is run inside has no gradients for these parts' parameters, and no time is spent on them."""
    trained = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)

"""What a planner asks of its world model: the entry point that is traced, repaired, distilled and compared."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from secateur.experiments.tdmpc.planner import WorldModel


class Rollout(NamedTuple):
    """What a planner reads off its model along sequences of actions.

    Attributes:
        rewards: shape (H, B); the predicted reward of every action.
        q1: shape (H + 1, B); the first value head, of every action; last, of the policy's action in the last state.
        q2: likewise, the second.
        actions: shape (H + 1, B, actions); the policy's action in every state.
    """

    rewards: Tensor
    q1: Tensor
    q2: Tensor
    actions: Tensor


def rollout(model: WorldModel, observations: Tensor, actions: Tensor) -> Rollout:
    """Follow sequences of actions through the latent dynamics, as the planner does (TD-MPC, Algorithm 1).

    The latent state itself is not among the outputs: it is an interface between the components, free to shrink.

    Args:
        model: with ``encode``, ``next``, ``act`` and ``q``; dense or pruned.
        observations: shape (B, observations).
        actions: shape (H, B, actions).
    """
    latent = model.encode(observations)
    rewards, first, second, chosen = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    for action in actions:
        q1, q2 = model.q(latent, action)
        first.append(q1)
        second.append(q2)
        chosen.append(model.act(latent))
        latent, reward = model.next(latent, action)
        rewards.append(reward)
    chosen.append(model.act(latent))
    q1, q2 = model.q(latent, chosen[-1])
    return Rollout(torch.stack(rewards), torch.stack([*first, q1]), torch.stack([*second, q2]), torch.stack(chosen))


def sequence_values(model: WorldModel, observations: Tensor, actions: Tensor, discount: float) -> Tensor:
    """What sequences of actions are worth: discounted rewards, and the smaller value of the policy's action after them.

    Args:
        model: dense or pruned.
        observations: shape (B, observations).
        actions: shape (H, K, B, actions): K sequences from every observation.
        discount: per step.

    Returns:
        Shape (K, B).
    """
    latent = model.encode(observations).expand(*actions.shape[1:-1], -1)
    total = actions.new_zeros(actions.shape[1:-1])
    for step, action in enumerate(actions):
        latent, reward = model.next(latent, action)
        total = total + discount**step * reward
    last = torch.minimum(*model.q(latent, model.act(latent)))
    return total + discount ** len(actions) * last

"""Prioritised replay of whole episodes: what TD-MPC learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.errors import ControlError, StorageError
from secateur.experiments.tdmpc.config import TdMpcConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """T steps in an environment.

    Attributes:
        observations: of shape (T+1, n), the first one before the first action.
        actions: of shape (T, m), in [-1, 1].
        rewards: of shape (T,).
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """B sub-trajectories of H steps.

    Attributes:
        observations: of shape (H+1, B, n).
        actions: of shape (H, B, m).
        rewards: of shape (H, B).
        weights: importance weights of shape (B,), the largest one 1.
        indices: where they are in the replay, shape (B,), until the next episode is added.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    weights: Tensor
    indices: Tensor


class Replay:
    """The latest episodes, sampled as sub-trajectories of the horizon's length, the surprising ones more often.

    A sub-trajectory's probability is proportional to its priority to the power ``priority_exponent``; its importance
    weight is the probability to the power ``-importance_exponent`` (Schaul et al., "Prioritized experience replay",
    arXiv 1511.05952). None crosses an episode's end.

    Args:
        config: for the horizon, the exponents and ``priority_epsilon``.
        observations: length of an observation.
        actions: length of an action.
        capacity: steps that are kept; the oldest episodes leave when there are more.

    Raises:
        ControlError: the capacity is less than the horizon.
    """

    # An episode of T steps takes T+1 rows, so that a row is an observation and what was done there, and a
    # sub-trajectory is H+1 rows in succession. The rows it can't begin at have probability zero. Episodes are rare and
    # samples are not: an addition may copy all rows, a sample only gathers its own.

    def __init__(self, config: TdMpcConfig, *, observations: int, actions: int, capacity: int) -> None:
        if capacity < config.horizon:
            raise ControlError(f"a replay of {capacity} steps can't hold a sub-trajectory of {config.horizon}")
        self._config = config
        self._capacity = capacity
        self._observations = torch.empty(0, observations)
        self._actions = torch.empty(0, actions)
        self._rewards = torch.empty(0)
        self._chances = torch.empty(0)
        self._lengths: list[int] = []

    def __len__(self) -> int:
        """Steps in the replay."""
        return sum(self._lengths)

    def add(self, episode: Episode) -> None:
        """Add an episode; its sub-trajectories get the largest priority there is, the very first ones 1.

        Raises:
            ControlError: the episode is shorter than the horizon, doesn't fit, holds a number that is not finite, or
                its arrays don't have the shapes of an episode here.
        """
        observations, actions, rewards = self._checked(episode)
        steps, starts = len(rewards), len(rewards) - self._config.horizon + 1
        chances = torch.zeros(steps + 1)
        chances[:starts] = self._chances.max() if self._lengths else 1.0
        first = self._first_kept(steps)
        self._observations = torch.cat((self._observations[first:], observations))
        self._actions = torch.cat((self._actions[first:], actions, torch.zeros_like(actions[:1])))
        self._rewards = torch.cat((self._rewards[first:], rewards, torch.zeros(1)))
        self._chances = torch.cat((self._chances[first:], chances))
        self._lengths.append(steps)

    def _first_kept(self, steps: int) -> int:
        """Let the oldest episodes leave until so many steps fit; the row of the first that stays."""
        row = 0
        while len(self) + steps > self._capacity:
            row += self._lengths.pop(0) + 1
        return row

    def _checked(self, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
        """The episode's arrays as tensors."""
        arrays = [np.asarray(each, np.float32) for each in (episode.observations, episode.actions, episode.rewards)]
        steps = len(arrays[2])
        expected = [(steps + 1, self._observations.shape[1]), (steps, self._actions.shape[1]), (steps,)]
        for name, array, shape in zip(("observations", "actions", "rewards"), arrays, expected, strict=True):
            if array.shape != shape:
                raise ControlError(f"an episode's {name} have shape {array.shape}; in this replay it must be {shape}")
            if not np.isfinite(array).all():
                step = np.argwhere(~np.isfinite(array))[0, 0]
                raise ControlError(f"an episode's {name} are not finite at step {step}; it can't be learnt from")
        if not self._config.horizon <= steps <= self._capacity:
            raise ControlError(
                f"an episode of {steps} steps; the replay takes {self._config.horizon} (the horizon) "
                f"to {self._capacity} (its capacity)"
            )
        observations, actions, rewards = map(torch.tensor, arrays)
        return observations, actions, rewards

    def sample(self, batch: int, generator: torch.Generator) -> Batch:
        """Draw sub-trajectories one after another, none twice.

        Args:
            batch: how many.
            generator: of the choice.

        Raises:
            ControlError: there are fewer.
        """
        starts = int(torch.count_nonzero(self._chances))
        if batch > starts:
            raise ControlError(
                f"a batch of {batch} sub-trajectories can't be drawn from {starts}; "
                "take a smaller batch, or collect more episodes (seed_steps) first"
            )
        indices = torch.multinomial(self._chances, batch, replacement=False, generator=generator)
        rows = indices + torch.arange(self._config.horizon + 1).unsqueeze(1)
        chances = self._chances[indices]
        return Batch(
            observations=self._observations[rows],
            actions=self._actions[rows[:-1]],
            rewards=self._rewards[rows[:-1]],
            # What the chances are relative to cancels out: the largest weight is 1.
            weights=(chances.min() / chances) ** self._config.importance_exponent,
            indices=indices,
        )

    def update(self, indices: Tensor, priorities: Tensor) -> None:
        """Give sub-trajectories new priorities.

        Args:
            indices: of a batch drawn since the last addition, shape (B,).
            priorities: not negative, shape (B,).

        Raises:
            ControlError: a priority is negative or not finite.
        """
        priorities = priorities + self._config.priority_epsilon
        if not bool((priorities.isfinite() & (priorities > 0)).all()):
            raise ControlError("a priority is negative or not finite: the training has diverged")
        self._chances[indices] = priorities**self._config.priority_exponent

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next sample depends on: steps, probabilities (up to a factor) and the episodes' lengths."""
        return {
            "observations": self._observations,
            "actions": self._actions,
            "rewards": self._rewards,
            "chances": self._chances,
            "lengths": torch.tensor(self._lengths, dtype=torch.int64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Become the replay whose :meth:`state_dict` this is.

        Raises:
            StorageError: a tensor is missing or doesn't fit the others or this replay; the message names it.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise StorageError(f"not the state of a replay: {sorted(state)} in place of {sorted(own)}")
        lengths: list[int] = state["lengths"].tolist()
        rows = sum(lengths) + len(lengths)
        for name in own.keys() - {"lengths"}:
            shape = (rows, *own[name].shape[1:])
            if tuple(state[name].shape) != shape:
                raise StorageError(
                    f"not the state of this replay: {name} has shape {tuple(state[name].shape)}, not {shape}"
                )
        self._observations, self._actions = state["observations"].clone(), state["actions"].clone()
        self._rewards, self._chances = state["rewards"].clone(), state["chances"].clone()
        self._lengths = lengths

"""Planning in a learned latent space by model predictive path integrals, for several episodes at once.

TD-MPC (Hansen et al., arXiv 2203.04955), algorithm 1 and section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from secateur.errors import ControlError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.fast_linear import fast_where_worth_it

INITIAL_STD = 2.0
"""Standard deviation of the first iteration's actions, and the largest of any: wide enough to reach both bounds."""

POLICY_NOISE_LIMIT = 0.3
"""The policy's exploration noise is clipped to plus and minus this."""

_BLOCK_ROWS = 512
"""Sequences valued at a time, in whole episodes: more don't fit a core's cache (2,560 take twice as long for each)."""

OnSequences: TypeAlias = Callable[[Tensor, Tensor], object]
"""Told of what every iteration plans with: observations (E, n) and actions (H, E, S, m), widely spread at first."""


@runtime_checkable
class WorldModel(Protocol):
    """What a planner asks of a model; every tensor has shape (..., n), with any leading dimensions."""

    def encode(self, observation: Tensor) -> Tensor:
        """The latent state of an observation."""
        ...

    def next(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The next latent state, and the reward on the way there, shape (...,)."""
        ...

    def act(self, latent: Tensor) -> Tensor:
        """The policy's action, each in [-1, 1]."""
        ...

    def q(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Two estimates of the return from here on, each of shape (...,)."""
        ...


class Planner:
    """Plans the next action of several episodes, one row each.

    Every step starts from the last step's mean actions, moved on by one; samples action sequences around the mean and
    a few from the policy; values each by the rewards the model predicts, plus the value of the policy's action at the
    end; and refits mean and standard deviation to the best, weighted by ``exp(temperature * value)``. The action is
    the first one of a sequence drawn from the best by these weights.

    Two details differ from the paper's code: the policy's sequences, which are the same in every iteration of a step,
    are valued once; and the policy's action at the end of a sequence has no noise, so that a value is less noisy.

    An episode's random numbers follow from its seed, the horizon and the number of samples alone: neither the model
    nor the other episodes beside it change them. So models are compared under common random numbers, and an episode
    planned alone is the same, up to rounding, as among ten.

    Args:
        model: encodes, predicts, acts and values.
        config: horizon, samples, policy_fraction, iterations, elites, temperature, momentum, discount and least_std.
        actions: length of an action.
        seeds: one per episode.

    Raises:
        ControlError: there is no seed.
    """

    def __init__(self, model: WorldModel, config: TdMpcConfig, actions: int, *, seeds: Sequence[int]) -> None:
        if not seeds:
            raise ControlError("a planner needs one seed per episode; there is none")
        self.seeds = tuple(seeds)
        self.on_sequences: OnSequences | None = None
        self._model = model
        self._config = config
        self._actions = actions
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self._previous_mean: Tensor | None = None
        self._work: _Workspace | None = None
        self._layers = fast_where_worth_it(model, min(_BLOCK_ROWS, config.samples * len(self.seeds)))

    def reset(self) -> None:
        """Begin new episodes: forget the previous mean. The random numbers go on."""
        self._previous_mean = None

    def act(self, observations: Tensor, *, horizon: int | None = None, std: float | None = None) -> Tensor:
        """Plan the next actions.

        Args:
            observations: shape (E, n), one row per episode.
            horizon: steps to look ahead; the configuration's if not given.
            std: to explore, as in training: the least standard deviation of the sampled actions, and noise of the
                planned standard deviation is added to the action. Not given: evaluation, without such noise.

        Returns:
            Actions, each in [-1, 1], shape (E, m).

        Raises:
            ControlError: the observations' shape is wrong, or a predicted value is no finite number.
        """
        if observations.ndim != 2 or len(observations) != len(self.seeds):
            shape = tuple(observations.shape)
            raise ControlError(f"observations must have shape ({len(self.seeds)}, n), one row per seed, not {shape}")
        horizon = self._config.horizon if horizon is None else horizon
        with torch.inference_mode(), self._layers:
            work = self._workspace(horizon, observations)
            noise = self._draw(work, observations)
            action = self._plan(observations, work, noise, std)
        return action.clone()  # outside inference mode: an ordinary tensor, which autograd may save

    def _plan(self, observations: Tensor, work: _Workspace, noise: _Noise, std: float | None) -> Tensor:
        config = self._config
        least = config.least_std if std is None else std
        latent = self._model.encode(observations).unsqueeze(1)
        if work.policy_samples:
            self._follow_policy(latent, work, noise.policy)
        blocks = work.blocks(latent.expand(-1, config.samples, -1))
        mean = self._first_mean(work)
        spread = torch.full_like(mean, INITIAL_STD)
        for iteration in range(config.iterations):
            torch.addcmul(mean, spread, noise.samples[:, iteration], out=work.sampled).clamp_(-1, 1)
            for block in blocks:
                self._value(*block)
            if self.on_sequences is not None:
                with torch.inference_mode(False):  # it is given ordinary tensors
                    self.on_sequences(observations, work.actions.clone())
            best, index = work.values.topk(config.elites, dim=1)
            elites = work.actions.gather(2, index[None, :, :, None].expand(len(mean), -1, -1, self._actions))
            weights = torch.softmax(config.temperature * best, dim=1)
            fitted, spread = _moments(elites, weights, least)
            mean = fitted.lerp_(mean, config.momentum)
        self._check(weights)
        self._previous_mean = mean
        chosen = _pick(weights, noise.pick)
        action = elites[0].gather(1, chosen[:, None, None].expand(-1, -1, self._actions)).squeeze(1)
        if std is not None:
            action = torch.addcmul(action, spread[0].squeeze(1), noise.action).clamp_(-1, 1)
        return action

    def _follow_policy(self, latent: Tensor, work: _Workspace, noise: Tensor) -> None:
        """Fill in and value the policy's own sequences, with its exploration noise."""
        latent = latent.expand(-1, work.policy_samples, -1)
        noise.mul_(self._config.least_std).clamp_(-POLICY_NOISE_LIMIT, POLICY_NOISE_LIMIT)
        work.policy_values.zero_()
        for step, action in enumerate(work.policy):
            torch.add(self._model.act(latent), noise[step], out=action).clamp_(-1, 1)
            latent, reward = self._model.next(latent, action)
            work.policy_values.add_(reward, alpha=self._config.discount**step)
        self._add_final_value(latent, work.policy_values, work.horizon)

    def _value(self, latent: Tensor, actions: Tensor, values: Tensor) -> None:
        """Discounted return of every sequence of actions (H, E, S, m), into ``values`` (E, S)."""
        values.zero_()
        for step, action in enumerate(actions):
            latent, reward = self._model.next(latent, action)
            values.add_(reward, alpha=self._config.discount**step)
        self._add_final_value(latent, values, len(actions))

    def _add_final_value(self, latent: Tensor, values: Tensor, step: int) -> None:
        first, second = self._model.q(latent, self._model.act(latent))
        values.add_(torch.minimum(first, second), alpha=self._config.discount**step)

    def _first_mean(self, work: _Workspace) -> Tensor:
        """The previous step's mean moved on by one; zero at the end, and in a new episode. Shape (H, E, 1, m)."""
        mean = work.actions.new_zeros(work.horizon, len(self.seeds), 1, self._actions)
        if self._previous_mean is not None:
            kept = self._previous_mean[1 : 1 + work.horizon]
            mean[: len(kept)] = kept
        return mean

    def _check(self, weights: Tensor) -> None:
        """A value that is NaN is among the best, and makes the weights NaN from then on; so does an infinite one."""
        finite = torch.isfinite(weights).all(dim=1)
        if not finite.all():
            seeds = ", ".join(str(seed) for seed, good in zip(self.seeds, finite.tolist(), strict=True) if not good)
            raise ControlError(
                f"the model predicts a value that is no finite number (seed {seeds}); its weights are broken"
            )

    def _workspace(self, horizon: int, observations: Tensor) -> _Workspace:
        if self._work is None or not self._work.fits(horizon, observations):
            config = self._config
            self._work = _Workspace.of(horizon, config.samples, config.policy_samples, self._actions, observations)
        return self._work

    def _draw(self, work: _Workspace, like: Tensor) -> _Noise:
        """All random numbers of a step: one draw per episode, however long the horizon."""
        horizon, config, m = work.horizon, self._config, self._actions
        sizes = config.iterations * horizon * config.samples * m, horizon * work.policy_samples * m, m, 1
        drawn = torch.empty(len(self.seeds), sum(sizes))
        for row, generator in zip(drawn, self._generators, strict=True):
            row.normal_(generator=generator)
        samples, policy, action, pick = drawn.to(like).split(sizes, dim=1)
        return _Noise(
            samples=samples.unflatten(1, (config.iterations, horizon, config.samples, m)).permute(2, 1, 0, 3, 4),
            policy=policy.unflatten(1, (horizon, work.policy_samples, m)).transpose(0, 1),
            action=action,
            pick=pick,
        )


@dataclass(frozen=True, kw_only=True)
class _Noise:
    """Standard normal numbers of one step.

    Attributes:
        samples: shape (H, iterations, E, S, m), S sampled sequences.
        policy: shape (H, E, P, m), P sequences of the policy.
        action: added to the action in training, shape (E, m).
        pick: picks a sequence among the elites, shape (E, 1).
    """

    samples: Tensor
    policy: Tensor
    action: Tensor
    pick: Tensor


@dataclass(frozen=True, kw_only=True)
class _Workspace:
    """Memory that every step uses again: actions and values of all sequences, sampled ones first.

    Attributes:
        actions: shape (H, E, S + P, m).
        values: shape (E, S + P).
        sampled: the actions' first part, (H, E, S, m); ``sampled_values`` likewise.
        policy: the actions' second part, (H, E, P, m); ``policy_values`` likewise.
    """

    actions: Tensor
    values: Tensor
    sampled: Tensor
    sampled_values: Tensor
    policy: Tensor
    policy_values: Tensor

    @classmethod
    def of(cls, horizon: int, samples: int, policy_samples: int, actions: int, like: Tensor) -> _Workspace:
        all_actions = like.new_empty(horizon, len(like), samples + policy_samples, actions)
        values = like.new_empty(len(like), samples + policy_samples)
        sampled, policy = all_actions.split([samples, policy_samples], dim=2)
        sampled_values, policy_values = values.split([samples, policy_samples], dim=1)
        return cls(
            actions=all_actions,
            values=values,
            sampled=sampled,
            sampled_values=sampled_values,
            policy=policy,
            policy_values=policy_values,
        )

    @property
    def horizon(self) -> int:
        return len(self.actions)

    @property
    def policy_samples(self) -> int:
        return self.policy.shape[2]

    def blocks(self, latent: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Latents (E, S, n), sampled actions and their values, a few episodes at a time."""
        episodes = max(1, _BLOCK_ROWS // latent.shape[1])
        parts = latent.split(episodes), self.sampled.split(episodes, dim=1), self.sampled_values.split(episodes)
        return list(zip(*parts, strict=True))

    def fits(self, horizon: int, like: Tensor) -> bool:
        return self.horizon == horizon and self.actions.dtype == like.dtype and self.actions.device == like.device


def _moments(elites: Tensor, weights: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of actions (H, E, K, m), each of shape (H, E, 1, m)."""
    column = weights[None, :, :, None]
    mean = (elites * column).sum(dim=2, keepdim=True)
    variance = ((elites - mean).square_() * column).sum(dim=2, keepdim=True)
    return mean, variance.sqrt_().clamp_(least, INITIAL_STD)


def _pick(weights: Tensor, noise: Tensor) -> Tensor:
    """An index into weights (E, K), drawn by them with a standard normal number per row; shape (E,)."""
    steps = weights.cumsum(dim=1)
    below: Tensor = steps < torch.special.ndtr(noise) * steps[:, -1:]
    return below.sum(dim=1).clamp_(max=weights.shape[1] - 1)

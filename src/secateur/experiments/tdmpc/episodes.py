"""Episodes of an agent on common seeds, side by side, and their return as a metric with an interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.calibration import evaluating
from secateur.errors import ControlError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.environments import Environment, FloatVector, Maker, make
from secateur.experiments.tdmpc.planner import OnSequences, Planner, WorldModel
from secateur.experiments.tdmpc.sizes import misfit
from secateur.metrics import Estimate

Controller: TypeAlias = Literal["planner", "policy", "random"]
"""Who acts: the planner, the model's policy alone, or uniformly random actions (the model is not asked)."""

CONFIDENCE = 0.95
EVALUATION_SEEDS = tuple(range(10_000, 10_010))
"""Of ten episodes that every model is judged on; other than those of training and of recording."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episodes:
    """What happened in N episodes of T agent steps.

    Attributes:
        returns: sum of each episode's rewards, float64, shape (N,).
        observations: float32, shape (T + 1, N, n), the first ones those of the start.
        actions: as executed, each in [-1, 1], float32, shape (T, N, m).
        rewards: summed over the repeats of an action, float32, shape (T, N).
        seeds: one per episode.
    """

    returns: NDArray[np.float64]
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    seeds: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean return, by Student's t.

        Raises:
            ControlError: one episode has no spread.
        """
        if len(self.returns) < 2:
            raise ControlError("the interval of a mean return needs at least 2 episodes; there is 1")
        estimate = Estimate.of_mean(self.returns, CONFIDENCE)
        return estimate.low, estimate.high

    @property
    def worst(self) -> float:
        """The lowest return."""
        return float(self.returns.min())

    def failures(self, threshold: float) -> int:
        """How many episodes returned less than ``threshold``."""
        return int((self.returns < threshold).sum())


def run_episodes(
    model: WorldModel,
    config: TdMpcConfig,
    seeds: Sequence[int],
    *,
    controller: Controller = "planner",
    horizon: int | None = None,
    std: float | None = None,
    noise: float | Sequence[float] = 0.0,
    on_step: Callable[[int], object] | None = None,
    on_sequences: OnSequences | None = None,
    make: Maker = make,
) -> Episodes:
    """Run one episode per seed, all in step with one another, so that one planner serves them all.

    An episode follows from its seed, the model and the settings, whichever others run beside it (up to rounding).

    Args:
        model: a world model such as :class:`~secateur.experiments.tdmpc.told.Told`; in evaluation mode if it matters.
        config: of the task and the planner.
        seeds: of the start, of the planner's random numbers and of the noise, one per episode.
        controller: who acts.
        horizon: of the planner; the configuration's if not given.
        std: of the planner's exploration, as in training; none if not given.
        noise: standard deviation of normal noise on the executed actions, one number or one per episode, so that
            states are met from which the controller has to recover. It changes no random number of the planner's.
        on_step: called after every agent step with its number, from 1 to the episodes' length.
        on_sequences: told of the sequences that the planner samples, in every iteration of every step.
        make: makes the environments, one per seed.

    Raises:
        ControlError: no seeds or a negative one, an unknown task or controller, a model of another task's sizes,
            ``noise`` that is negative or of another number of episodes, or something is no finite number; then the
            message names task, seed and step.
        SecateurError: the extra ``control`` is not installed.
    """
    _check_seeds(seeds)
    environments = [make(config.task, seed, action_repeat=config.action_repeat) for seed in seeds]
    wrong = misfit(model, observations=environments[0].observations, actions=environments[0].actions)
    if wrong is not None and controller != "random":
        raise ControlError(f"the model is of another task than {config.task!r}, whose {wrong}")
    act = _actor(model, config, environments[0].actions, seeds, controller, horizon, std, on_sequences)
    disturbance = _Disturbance(noise, seeds)
    record = _Record.empty(environments[0], config.task, tuple(seeds))
    record.begin([environment.reset() for environment in environments])
    for step in range(environments[0].steps):
        actions = disturbance.added_to(record.checked_actions(act, step))
        record.add(step, actions, [e.step(a) for e, a in zip(environments, actions, strict=True)])
        if on_step is not None:
            on_step(step + 1)
    return record.episodes()


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise ControlError("no episode to run; give at least one seed")
    if not all(0 <= seed < 2**32 for seed in seeds):
        raise ControlError(f"a seed must lie in 0 ... 2 ** 32 - 1; given: {list(seeds)}")


_Act: TypeAlias = Callable[[Tensor], Tensor]
"""From observations (N, n) to actions (N, m)."""


def _actor(
    model: WorldModel,
    config: TdMpcConfig,
    actions: int,
    seeds: Sequence[int],
    controller: Controller,
    horizon: int | None,
    std: float | None,
    on_sequences: OnSequences | None,
) -> _Act:
    if controller == "planner":
        planner = Planner(model, config, actions, seeds=seeds)
        planner.on_sequences = on_sequences
        return lambda observations: planner.act(observations, horizon=horizon, std=std)
    if controller == "policy":
        return lambda observations: model.act(model.encode(observations))
    if controller == "random":
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return lambda _: torch.stack([torch.rand(actions, generator=g) * 2 - 1 for g in generators])
    raise ControlError(f"unknown controller {controller!r}; there are {', '.join(get_args(Controller))}")


class _Disturbance:
    """Normal noise on the executed actions, of each episode's own generator."""

    def __init__(self, std: float | Sequence[float], seeds: Sequence[int]) -> None:
        self._std = _stds(std, len(seeds))
        self._generators = [np.random.default_rng(seed) for seed in seeds]

    def added_to(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._std.any():
            return actions
        drawn = np.stack([generator.standard_normal(actions.shape[1]) for generator in self._generators])
        noisy: NDArray[np.float32] = np.clip(actions + self._std[:, None] * drawn, -1, 1).astype(np.float32)
        return noisy


def _stds(given: float | Sequence[float], episodes: int) -> NDArray[np.float32]:
    """One standard deviation per episode."""
    try:
        stds = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError):
        stds = np.empty((0, 0), dtype=np.float32)
    if stds.shape not in ((), (episodes,)):
        raise ControlError(f"noise must be one number, or one for each of {episodes} episodes; it is {given!r}")
    if not (np.isfinite(stds) & (stds >= 0)).all():
        raise ControlError(f"noise must be finite and at least 0; it is {given!r}")
    return np.broadcast_to(stds, (episodes,))


@dataclass(frozen=True, kw_only=True)
class _Record:
    """Arrays of :class:`Episodes` that are being filled, and the checks on what goes in."""

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    task: str
    seeds: tuple[int, ...]

    @classmethod
    def empty(cls, environment: Environment, task: str, seeds: tuple[int, ...]) -> _Record:
        steps, count = environment.steps, len(seeds)
        return cls(
            observations=np.empty((steps + 1, count, environment.observations), dtype=np.float32),
            actions=np.empty((steps, count, environment.actions), dtype=np.float32),
            rewards=np.empty((steps, count), dtype=np.float32),
            task=task,
            seeds=seeds,
        )

    def begin(self, observations: list[FloatVector]) -> None:
        self.observations[0] = observations
        self._check("observation", self.observations[0], 0)

    def checked_actions(self, act: _Act, step: int) -> NDArray[np.float32]:
        """What to do at a step; what the planner complains of gets task and step added."""
        try:
            with torch.no_grad():
                actions: NDArray[np.float32] = act(torch.from_numpy(self.observations[step])).numpy()
        except ControlError as error:
            raise ControlError(f"{self.task}, step {step}: {error}") from error
        self._check("action", actions, step)
        return actions

    def add(self, step: int, actions: NDArray[np.float32], outcomes: list[tuple[FloatVector, float]]) -> None:
        self.actions[step] = actions
        for row, (observation, reward) in enumerate(outcomes):
            self.observations[step + 1, row] = observation
            self.rewards[step, row] = reward
        self._check("observation", self.observations[step + 1], step + 1)
        self._check("reward", self.rewards[step, :, None], step + 1)

    def episodes(self) -> Episodes:
        return Episodes(
            returns=self.rewards.sum(axis=0, dtype=np.float64),
            observations=self.observations,
            actions=self.actions,
            rewards=self.rewards,
            seeds=self.seeds,
        )

    def _check(self, what: str, values: NDArray[np.float32], step: int) -> None:
        """Values (N, ...) of a step, all finite."""
        broken = ~np.isfinite(values).all(axis=1)
        if broken.any():
            row = int(broken.argmax())
            raise ControlError(
                f"{self.task}, seed {self.seeds[row]}, step {step}: the {what} is no finite number: "
                f"{values[row].tolist()}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Return:
    """Mean return over episodes on common seeds, with its 95 % confidence interval; higher is better.

    Usable as ``objective=`` or in a constraint; the model needs the methods of
    :class:`~secateur.experiments.tdmpc.planner.WorldModel`.

    Attributes:
        config: of the task and the planner.
        seeds: of the episodes, the same for every model.
        controller: who acts.
        make: makes the environments.

    Raises:
        ControlError: fewer than two seeds.
    """

    config: TdMpcConfig
    seeds: Sequence[int] = EVALUATION_SEEDS
    controller: Controller = "planner"
    make: Maker = make

    name: ClassVar[str] = "return"

    def __post_init__(self) -> None:
        if len(self.seeds) < 2:
            raise ControlError(f"an interval needs at least 2 seeds; given: {self.seeds!r}")

    def __call__(self, model: nn.Module) -> Estimate:
        """The mean return of a model, with its interval.

        Raises:
            ControlError: the model is no world model, or an episode can't be run to its end.
        """
        episodes = self.episodes(model)
        return Estimate(episodes.mean, *episodes.interval)

    def episodes(self, model: nn.Module) -> Episodes:
        """The episodes themselves, whose mean return is the metric.

        Raises:
            ControlError: as for calling it.
        """
        if not isinstance(model, WorldModel):
            raise ControlError(
                f"a {type(model).__name__} can't be run as a world model; it needs the methods encode, next, act and q"
            )
        with evaluating(model):
            return run_episodes(model, self.config, self.seeds, controller=self.controller, make=self.make)

"""Control tasks of the DeepMind Control Suite as flat vectors: an observation, an action in [-1, 1], a reward.

Tassa et al., "DeepMind Control Suite" (arXiv 1801.00690). Needs the extra ``secateur[control]``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateur.errors import ControlError
from secateur.extras import needs

FloatVector: TypeAlias = NDArray[np.float32]

PHYSICS_STEPS = 1000
"""Control steps of every episode in the suite; no episode of the tasks below ends earlier."""


@dataclass(frozen=True)
class Task:
    """A task of the suite.

    Attributes:
        name: as the TD-MPC paper calls it, such as ``"cup-catch"``.
        domain: the suite's domain, such as ``"ball_in_cup"``.
        task: the suite's task in that domain, such as ``"catch"``.
        action_repeat: control steps that one action of the agent lasts; the rewards in between are summed.
    """

    name: str
    domain: str
    task: str
    action_repeat: int


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            Task("acrobot-swingup", "acrobot", "swingup", 4),
            Task("cartpole-balance", "cartpole", "balance", 4),
            Task("cartpole-swingup", "cartpole", "swingup", 4),
            Task("cartpole-swingup-sparse", "cartpole", "swingup_sparse", 4),
            Task("cheetah-run", "cheetah", "run", 4),
            Task("cup-catch", "ball_in_cup", "catch", 4),
            Task("finger-spin", "finger", "spin", 2),
            Task("finger-turn-easy", "finger", "turn_easy", 2),
            Task("finger-turn-hard", "finger", "turn_hard", 2),
            Task("fish-swim", "fish", "swim", 4),
            Task("hopper-hop", "hopper", "hop", 4),
            Task("hopper-stand", "hopper", "stand", 4),
            Task("humanoid-walk", "humanoid", "walk", 2),
            Task("pendulum-swingup", "pendulum", "swingup", 4),
            Task("quadruped-walk", "quadruped", "walk", 4),
            Task("reacher-easy", "reacher", "easy", 4),
            Task("reacher-hard", "reacher", "hard", 4),
            Task("walker-stand", "walker", "stand", 2),
            Task("walker-walk", "walker", "walk", 2),
            Task("walker-run", "walker", "run", 2),
        )
    }
)
"""Tasks by name. Action repeats follow the comparisons at 100,000 environment steps (TD-MPC, arXiv 2203.04955)."""


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ControlError: there is none; the message lists what there is.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise ControlError(f"unknown task {name!r}; there are {', '.join(TASKS)}") from None


class Environment(Protocol):
    """What an agent acts in: episodes of a fixed length."""

    @property
    def observations(self) -> int:
        """Length of an observation."""
        ...

    @property
    def actions(self) -> int:
        """Length of an action."""
        ...

    @property
    def steps(self) -> int:
        """Agent steps of an episode."""
        ...

    def reset(self) -> FloatVector:
        """Begin an episode: its first observation, shape (observations,)."""
        ...

    def step(self, action: FloatVector) -> tuple[FloatVector, float]:
        """Act, shape (actions,), each in [-1, 1]: the next observation, shape (observations,), and the reward."""
        ...


class Maker(Protocol):
    """Makes environments, as :func:`make` does."""

    def __call__(self, task: str, seed: int, *, action_repeat: int | None = None) -> Environment:
        """An environment of that task whose starts follow from ``seed`` alone."""
        ...


def make(task: str, seed: int, *, action_repeat: int | None = None) -> Environment:
    """An environment of the DeepMind Control Suite.

    Args:
        task: a name in :data:`TASKS`.
        seed: of the initial states: the first reset always gives the same state for the same seed, and so does the
            second.
        action_repeat: control steps per action; the task's own if not given.

    Raises:
        ControlError: an unknown task, or an action repeat outside 1 ... 1000.
        SecateurError: the extra ``control`` is not installed.
    """
    found = find_task(task)
    repeat = found.action_repeat if action_repeat is None else action_repeat
    if not 1 <= repeat <= PHYSICS_STEPS:
        raise ControlError(f"an action repeat must lie in 1 ... {PHYSICS_STEPS}; it is {repeat}")
    with needs("dm_control", "mujoco", extra="control"), _without_renderer():
        from dm_control import suite
        from dm_control.rl.control import PhysicsError
    loaded = suite.load(found.domain, found.task, task_kwargs={"random": seed})
    return _SuiteEnvironment(loaded, f"{task}, seed {seed}", repeat, PhysicsError)


@contextmanager
def _without_renderer() -> Iterator[None]:
    """Nothing here draws pictures, and looking for a display may fail: dm_control reads the variable on import."""
    chosen = os.environ.get("MUJOCO_GL")
    os.environ.setdefault("MUJOCO_GL", "disable")
    try:
        yield
    finally:
        if chosen is None:
            del os.environ["MUJOCO_GL"]


class _SuiteEnvironment:
    """An environment of the suite, flattened; actions scaled from [-1, 1] to the actuators' range.

    Args:
        environment: the suite's own.
        title: task and seed, for messages.
        action_repeat: control steps per action.
        unstable: what the suite raises when the simulation diverges.
    """

    def __init__(self, environment: Any, title: str, action_repeat: int, unstable: type[Exception]) -> None:
        self._environment = environment
        self._title = title
        self._repeat = action_repeat
        self._unstable = unstable
        spec = environment.action_spec()
        self._low = np.asarray(spec.minimum, dtype=np.float64)
        self._scale = (np.asarray(spec.maximum, dtype=np.float64) - self._low) / 2
        self._step = 0
        shapes = (entry.shape for entry in environment.observation_spec().values())
        self._observations = sum(int(np.prod(shape)) for shape in shapes)

    @property
    def observations(self) -> int:
        return self._observations

    @property
    def actions(self) -> int:
        return len(self._low)

    @property
    def steps(self) -> int:
        return PHYSICS_STEPS // self._repeat

    def reset(self) -> FloatVector:
        self._step = 0
        return self._flat(self._environment.reset().observation)

    def step(self, action: FloatVector) -> tuple[FloatVector, float]:
        if self._step == self.steps:
            raise ControlError(f"{self._title}: the episode ended after {self.steps} steps; call reset() first")
        scaled = self._low + self._scale * (np.clip(action, -1.0, 1.0, dtype=np.float64) + 1)
        self._step += 1
        reward = 0.0
        try:
            for _ in range(self._repeat):
                moment = self._environment.step(scaled)
                reward += moment.reward
        except self._unstable as error:
            raise ControlError(f"{self._title}: the simulation diverged at step {self._step}: {error}") from error
        return self._flat(moment.observation), reward

    def _flat(self, observation: Mapping[str, Any]) -> FloatVector:
        return np.concatenate([np.ravel(part) for part in observation.values()]).astype(np.float32)

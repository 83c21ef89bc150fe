"""The hyper-parameters of a TD-MPC agent and its training: the paper's, and presets for one CPU thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from secateur.errors import ControlError
from secateur.experiments.tdmpc.environments import find_task


@dataclass(frozen=True, kw_only=True)
class TdMpcConfig:
    """All that a training depends on; the defaults are the paper's (arXiv 2203.04955, and its code).

    A step is an agent step: one action, held for ``action_repeat`` steps of the simulation.

    Attributes:
        task: the name of the task.
        action_repeat: simulation steps for which an action is held; :meth:`paper`, :meth:`cpu` and :meth:`quick` look
            up the task's own.
        encoder_width: width of the encoder's hidden layer.
        width: width of the hidden layers of the dynamics, the reward, the policy and both Q heads.
        latent: length of the latent vector.
        horizon: steps that the planner looks ahead, and of the latent rollouts in the losses.
        iterations: of the planner, per step.
        samples: action sequences that the planner draws from its normal distribution, per iteration.
        elites: best sequences that the distribution is fitted to.
        policy_fraction: sequences of the policy that are added, as a fraction of ``samples``.
        temperature: inverse temperature of the elites' weights, ``exp(temperature (value - best value))``.
        momentum: of the planner's mean between iterations.
        least_std: standard deviation of the noise on the policy's actions, in planning and in the losses.
        discount: of rewards, per step.
        batch: sub-trajectories of an update.
        learning_rate: of Adam.
        gradient_clip: largest norm of the gradient.
        consistency_weight: of the latent's squared error in the loss.
        reward_weight: of the reward's squared error.
        value_weight: of both Q heads' squared error.
        rho: the weight of the step ``t`` of a rollout is ``rho ** t``, in all losses.
        target_rate: how far the target network goes towards the model's weights at a time.
        target_every: updates between two moves of the target network.
        priority_exponent: a sub-trajectory is sampled with a probability proportional to its priority to this power.
        importance_exponent: how far the weights of the samples make up for that, from 0 to 1.
        priority_epsilon: added to every priority, so that none is zero.
        seed_steps: steps of random actions before the first update.
        schedule_steps: steps over which the noise falls and the planner's horizon grows.
        std_start: the planner's least standard deviation at step 0.
        std_end: the same from ``schedule_steps`` on.
        steps: length of the training.
        seed: of the initial weights, the environment and all random numbers.

    Raises:
        ControlError: a value has the wrong type or is out of its range; the message names it and its range.
    """

    task: str = "cartpole-swingup"
    action_repeat: int = 4
    encoder_width: int = 256
    width: int = 512
    latent: int = 50
    horizon: int = 5
    iterations: int = 6
    samples: int = 512
    elites: int = 64
    policy_fraction: float = 0.05
    temperature: float = 0.5
    momentum: float = 0.1
    least_std: float = 0.05
    discount: float = 0.99
    batch: int = 512
    learning_rate: float = 1e-3
    gradient_clip: float = 10.0
    consistency_weight: float = 2.0
    reward_weight: float = 0.5
    value_weight: float = 0.1
    rho: float = 0.5
    target_rate: float = 0.01
    target_every: int = 2
    priority_exponent: float = 0.6
    importance_exponent: float = 0.4
    priority_epsilon: float = 1e-6
    seed_steps: int = 5000
    schedule_steps: int = 25_000
    std_start: float = 0.5
    std_end: float = 0.05
    steps: int = 125_000
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, str(field.type), getattr(self, field.name))
        if self.elites > self.samples + self.policy_samples:
            raise ControlError(
                f"elites is {self.elites}; it must be at most the sequences there are, "
                f"samples + policy_fraction * samples = {self.samples + self.policy_samples}"
            )

    @classmethod
    def paper(cls, task: str, **changes: Any) -> TdMpcConfig:
        """The paper's settings: 500,000 simulation steps, for a GPU.

        Args:
            task: the name of the task.
            changes: fields that are to differ.

        Raises:
            ControlError: the task is unknown; the message lists those there are.
        """
        return cls._preset(task, {"steps": 500_000}, changes)

    @classmethod
    def cpu(cls, task: str, **changes: Any) -> TdMpcConfig:
        """For one CPU thread: half the width, the samples and the batch, shorter schedules, 100,000 simulation steps.

        On cartpole-swingup half of these steps are enough for the return published for all of them. Arguments and
        errors are those of :meth:`paper`.
        """
        return cls._preset(task, {"steps": 100_000, **_CPU}, changes)

    @classmethod
    def quick(cls, task: str, **changes: Any) -> TdMpcConfig:
        """For a demonstration: fewer samples, a smaller batch and faster schedules still, 20,000 simulation steps.

        Enough for a return above 800 on cartpole-swingup, within minutes. Arguments and errors are those of
        :meth:`paper`.
        """
        return cls._preset(task, {"steps": 20_000, **_CPU, **_QUICK}, changes)

    @classmethod
    def _preset(cls, task: str, preset: Mapping[str, int], changes: Mapping[str, Any]) -> TdMpcConfig:
        """A preset, its ``steps`` given in steps of the simulation, with changes."""
        repeat = find_task(task).action_repeat
        steps = preset["steps"] // repeat
        return cls(**{"task": task, "action_repeat": repeat, **preset, "steps": steps, **changes})

    @property
    def policy_samples(self) -> int:
        """Sequences of the policy among the planner's candidates."""
        return int(self.policy_fraction * self.samples)

    def std(self, step: int) -> float:
        """The planner's least standard deviation after so many agent steps of training."""
        progress = self._progress(step)
        return (1 - progress) * self.std_start + progress * self.std_end

    def horizon_at(self, step: int) -> int:
        """The planner's horizon after so many agent steps of training: from 1 to ``horizon``, rounded down."""
        return int(1 + self._progress(step) * (self.horizon - 1))

    def _progress(self, step: int) -> float:
        return min(step / self.schedule_steps, 1.0) if self.schedule_steps else 1.0

    def as_data(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: object) -> TdMpcConfig:
        """The configuration that :meth:`as_data` gave.

        Args:
            data: an object with all fields and no others.

        Raises:
            ControlError: a field is missing or unknown, or has a wrong type or value; the message names it.
        """
        if not isinstance(data, dict):
            raise ControlError(f"not the configuration of a TD-MPC agent: {type(data).__name__} in place of an object")
        names = {field.name for field in fields(cls)}
        for what, wrong in (("no", names - data.keys()), ("an unknown", data.keys() - names)):
            if wrong:
                named = ", ".join(map(repr, sorted(map(str, wrong))))
                raise ControlError(f"not the configuration of a TD-MPC agent of this version: {what} {named}")
        return cls(**data)


_CPU = {
    "width": 256,
    "samples": 256,
    "iterations": 4,
    "elites": 32,
    "batch": 256,
    "seed_steps": 1000,
    "schedule_steps": 5000,
}

_QUICK = {"samples": 128, "batch": 128, "seed_steps": 500, "schedule_steps": 2500}

_Range = tuple[str, Callable[[float], bool]]
_NATURAL: _Range = ("at least 1", lambda value: value >= 1)
_NOT_NEGATIVE: _Range = ("at least 0", lambda value: value >= 0)
_POSITIVE: _Range = ("above 0", lambda value: value > 0)
_FRACTION: _Range = ("from 0 to 1", lambda value: 0 <= value <= 1)

_RANGES: Mapping[str, _Range] = {
    "action_repeat": _NATURAL,
    "encoder_width": _NATURAL,
    "width": _NATURAL,
    "latent": _NATURAL,
    "horizon": _NATURAL,
    "iterations": _NATURAL,
    "samples": _NATURAL,
    "elites": _NATURAL,
    "policy_fraction": _FRACTION,
    "temperature": _NOT_NEGATIVE,
    "momentum": _FRACTION,
    "least_std": _POSITIVE,
    "discount": _FRACTION,
    "batch": _NATURAL,
    "learning_rate": _POSITIVE,
    "gradient_clip": _POSITIVE,
    "consistency_weight": _NOT_NEGATIVE,
    "reward_weight": _NOT_NEGATIVE,
    "value_weight": _NOT_NEGATIVE,
    "rho": _FRACTION,
    "target_rate": _FRACTION,
    "target_every": _NATURAL,
    "priority_exponent": _FRACTION,
    "importance_exponent": _FRACTION,
    "priority_epsilon": _POSITIVE,
    "seed_steps": _NOT_NEGATIVE,
    "schedule_steps": _NOT_NEGATIVE,
    "std_start": _POSITIVE,
    "std_end": _POSITIVE,
    "steps": _NATURAL,
    "seed": _NOT_NEGATIVE,
}

_KINDS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "str": ("text", (str,)),
    "int": ("an integer", (int,)),
    "float": ("a number", (int, float)),
}


def _check(name: str, kind: str, value: object) -> None:
    """Raise where a field's value has the wrong type, is not finite, or is out of its range."""
    text, types = _KINDS[kind]
    if not isinstance(value, types) or isinstance(value, bool):
        raise ControlError(f"{name} is {value!r}; it must be {text}")
    if not isinstance(value, (int, float)):
        return
    text, within = _RANGES[name]
    if not math.isfinite(value) or not within(value):
        raise ControlError(f"{name} is {value!r}; it must be {text}")

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pytest
from dm_control import suite
from dm_control.rl.control import PhysicsError
from dm_env import StepType, TimeStep, specs  # type: ignore[import-untyped]
from numpy.typing import NDArray

from secateur.errors import ControlError, SecateurError
from secateur.experiments.tdmpc.environments import TASKS, find_task, make


class Scripted:
    """A suite environment with actuators in [-2, 6] and [0, 1], whose reward is its action's first number."""

    def __init__(self, *, diverges: bool = False) -> None:
        self.taken: list[NDArray[np.float64]] = []
        self.diverges = diverges

    def action_spec(self) -> specs.BoundedArray:
        return specs.BoundedArray((2,), np.float64, np.array([-2.0, 0.0]), np.array([6.0, 1.0]))

    def observation_spec(self) -> dict[str, specs.Array]:
        return {"matrix": specs.Array((2, 2), np.float64), "number": specs.Array((), np.float64)}

    def reset(self) -> TimeStep:
        return TimeStep(StepType.FIRST, None, None, self._observation())

    def step(self, action: NDArray[np.float64]) -> TimeStep:
        if self.diverges:
            raise PhysicsError("mjWARN_BADQACC")
        self.taken.append(action)
        return TimeStep(StepType.MID, float(action[0]), 1.0, self._observation())

    def _observation(self) -> dict[str, Any]:
        return {"matrix": np.array([[1.0, 2.0], [3.0, 4.0]]), "number": float(len(self.taken))}


def scripted(monkeypatch: pytest.MonkeyPatch, *, diverges: bool = False) -> Scripted:
    environment = Scripted(diverges=diverges)
    monkeypatch.setattr(suite, "load", lambda *_args, **_kwargs: environment)
    return environment


def test_every_task_is_one_of_the_suites() -> None:
    known = set(suite.ALL_TASKS)
    assert all((task.domain, task.task) in known for task in TASKS.values())
    assert all(name == task.name and 1000 % task.action_repeat == 0 for name, task in TASKS.items())


def test_action_repeats_are_the_papers() -> None:
    repeats = {"cartpole-swingup": 4, "cup-catch": 4, "finger-spin": 2, "reacher-easy": 4, "cheetah-run": 4}
    assert {name: find_task(name).action_repeat for name in repeats} == repeats
    assert find_task("walker-walk").action_repeat == 2


@pytest.mark.parametrize(
    ("task", "observations", "actions", "steps"),
    [("cartpole-swingup", 5, 1, 250), ("walker-walk", 24, 6, 500), ("cup-catch", 8, 2, 250)],
)
def test_sizes(task: str, observations: int, actions: int, steps: int) -> None:
    environment = make(task, 0)
    assert (environment.observations, environment.actions, environment.steps) == (observations, actions, steps)
    start = environment.reset()
    assert start.shape == (observations,)
    assert start.dtype == np.float32


def test_same_seed_same_starts() -> None:
    first, again, other = make("cartpole-swingup", 3), make("cartpole-swingup", 3), make("cartpole-swingup", 4)
    starts = [environment.reset() for environment in (first, again, other)]
    assert np.array_equal(starts[0], starts[1])
    assert not np.array_equal(starts[0], starts[2])
    second = first.reset()
    assert np.array_equal(second, again.reset())
    assert not np.array_equal(starts[0], second)


def test_a_step_is_several_of_the_suites() -> None:
    raw = suite.load("cartpole", "swingup", task_kwargs={"random": 5})
    raw.reset()
    environment = make("cartpole-swingup", 5)
    environment.reset()
    for action in (0.7, -0.4):
        moments = [raw.step(np.array([action])) for _ in range(4)]
        observation, reward = environment.step(np.array([action], dtype=np.float32))
        expected = np.concatenate([np.ravel(part) for part in moments[-1].observation.values()])
        np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-6)
        assert reward == pytest.approx(sum(moment.reward for moment in moments), rel=1e-5)
        assert reward > moments[-1].reward > 0


def test_actions_are_scaled_and_clipped_to_the_actuators(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = scripted(monkeypatch)
    environment = make("walker-walk", 0, action_repeat=3)
    environment.reset()
    observation, reward = environment.step(np.array([0.5, -1.0], dtype=np.float32))
    np.testing.assert_allclose(inner.taken, [[4.0, 0.0]] * 3)
    np.testing.assert_array_equal(observation, [1, 2, 3, 4, 3])
    assert reward == pytest.approx(12.0)
    environment.step(np.array([-7.0, 7.0], dtype=np.float32))
    np.testing.assert_allclose(inner.taken[-1], [-2.0, 1.0])


def test_no_step_after_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch)
    environment = make("walker-walk", 8, action_repeat=500)
    action = np.zeros(2, dtype=np.float32)
    for _ in range(2):
        environment.reset()
        for _ in range(environment.steps):
            environment.step(action)
    with pytest.raises(ControlError, match=r"walker-walk, seed 8: the episode ended after 2 steps; call reset\(\)"):
        environment.step(action)


def test_a_diverging_simulation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, diverges=True)
    environment = make("walker-walk", 8)
    environment.reset()
    with pytest.raises(ControlError, match="walker-walk, seed 8: the simulation diverged at step 1: mjWARN_BADQACC"):
        environment.step(np.zeros(2, dtype=np.float32))


def test_unknown_task_lists_the_known() -> None:
    with pytest.raises(ControlError, match=r"unknown task 'cartpole'; there are .*cartpole-swingup, .*walker-walk"):
        make("cartpole", 0)


@pytest.mark.parametrize("repeat", [0, 1001])
def test_action_repeat_out_of_range(repeat: int) -> None:
    with pytest.raises(ControlError, match=rf"must lie in 1 \.\.\. 1000; it is {repeat}"):
        make("cartpole-swingup", 0, action_repeat=repeat)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "dm_control"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(SecateurError, match=r"needs dm_control: pip install 'secateur\[control\]'"):
        make("cartpole-swingup", 0)


@pytest.mark.parametrize("chosen", [None, "egl"])
def test_the_users_renderer_is_left_alone(monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
    if chosen is None:
        monkeypatch.delenv("MUJOCO_GL", raising=False)
    else:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    make("cartpole-swingup", 0)
    assert os.environ.get("MUJOCO_GL") == chosen

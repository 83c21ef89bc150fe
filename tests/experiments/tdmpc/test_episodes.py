from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from secateur.allocation import Constraint
from secateur.errors import ControlError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.environments import Environment, FloatVector, Maker, make
from secateur.experiments.tdmpc.episodes import EVALUATION_SEEDS, Controller, Episodes, Return, run_episodes
from secateur.experiments.tdmpc.planner import OnSequences
from secateur.experiments.tdmpc.told import Told

CONFIG = TdMpcConfig(samples=24, elites=4, iterations=2, horizon=2)
STEPS = 5


class Line:
    """A point on a line: the action moves it, the reward is where it is; the observation adds the time."""

    observations, actions, steps = 2, 1, STEPS

    def __init__(self, start: float, *, spoil: str | None = None) -> None:
        self.start, self.spoil = start, spoil
        self.place, self.time = 0.0, 0

    def reset(self) -> FloatVector:
        self.place, self.time = self.start, 0
        return self._observation()

    def step(self, action: FloatVector) -> tuple[FloatVector, float]:
        self.place += 0.1 * float(action[0])
        self.time += 1
        return self._observation(), math.nan if self._is_spoilt("reward") else self.place

    def _is_spoilt(self, what: str) -> bool:
        return self.spoil == what and self.time == 3

    def _observation(self) -> FloatVector:
        place = math.inf if self._is_spoilt("observation") else self.place
        return np.array([place, self.time / 10], dtype=np.float32)


def line(task: str, seed: int, *, action_repeat: int | None = None) -> Environment:
    """Starts differ by seed."""
    assert (task, action_repeat) == (CONFIG.task, CONFIG.action_repeat)
    return Line(seed / 10)


def spoilt(what: str, at: int) -> Maker:
    def make_one(task: str, seed: int, *, action_repeat: int | None = None) -> Environment:
        return Line(seed / 10, spoil=what if seed == at else None)

    return make_one


def told(observations: int = 2, actions: int = 1) -> Told:
    torch.manual_seed(0)
    model = Told(observations, actions, encoder_width=8, width=8, latent=4)
    for name in ("q1.5.weight", "q2.5.weight", "reward.4.weight"):
        nn.init.normal_(model.get_parameter(name))
    return model.eval()


class Homing(nn.Module):
    """A world model of the line, whose policy goes home to zero."""

    def encode(self, observation: Tensor) -> Tensor:
        return observation

    def next(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return latent + 0.1 * action * latent.new_tensor([1, 0]), latent[..., 0] + 0.1 * action[..., 0]

    def act(self, latent: Tensor) -> Tensor:
        return -latent[..., :1]

    def q(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return latent[..., 0], latent[..., 0]


def of_returns(*returns: float) -> Episodes:
    empty = np.zeros((1, len(returns), 1), dtype=np.float32)
    return Episodes(
        returns=np.array(returns),
        observations=empty,
        actions=empty,
        rewards=empty[..., 0],
        seeds=tuple(range(len(returns))),
    )


def test_statistics() -> None:
    values = (810.0, 860.0, 855.0, 120.0)
    episodes = of_returns(*values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert episodes.mean == pytest.approx(661.25)
    assert episodes.interval == pytest.approx((expected.low, expected.high))
    assert episodes.worst == 120
    assert [episodes.failures(bound) for bound in (120.0, 121.0, 856.0)] == [0, 1, 3]
    assert of_returns(5.0, 5.0).interval == (5.0, 5.0)
    with pytest.raises(ControlError, match="at least 2 episodes; there is 1"):
        _ = of_returns(5.0).interval


def test_the_policys_episodes_are_worked_out_by_hand() -> None:
    """Going home by a tenth at a time: the place after t steps is 0.9 ** t times the start."""
    steps: list[int] = []
    episodes = run_episodes(Homing(), CONFIG, [5, 8], controller="policy", on_step=steps.append, make=line)
    places = 0.9 ** np.arange(STEPS + 1)[:, None] * np.array([0.5, 0.8])
    np.testing.assert_allclose(episodes.observations[:, :, 0], places, rtol=1e-5)
    np.testing.assert_allclose(episodes.observations[:, 0, 1], np.arange(STEPS + 1) / 10, rtol=1e-6)
    np.testing.assert_allclose(episodes.actions[:, :, 0], -places[:-1], rtol=1e-5)
    np.testing.assert_allclose(episodes.rewards, places[1:], rtol=1e-5)
    np.testing.assert_allclose(episodes.returns, places[1:].sum(axis=0), rtol=1e-5)
    assert episodes.seeds == (5, 8)
    assert steps == [1, 2, 3, 4, 5]
    assert {a.dtype for a in (episodes.observations, episodes.actions, episodes.rewards)} == {np.dtype(np.float32)}


def test_the_planner_does_what_the_model_rewards() -> None:
    """The best is full speed to the right, which the policy doesn't do."""
    config = replace(CONFIG, samples=128, elites=8, iterations=4, temperature=100.0)
    episodes = run_episodes(Homing(), config, [5, 6], make=line)
    assert episodes.actions.min() > 0.9
    policy = run_episodes(Homing(), config, [5, 6], controller="policy", make=line)
    assert (episodes.returns > policy.returns + 1).all()


@pytest.mark.parametrize("controller", ["planner", "policy", "random"])
def test_an_episode_is_the_same_alone_and_among_others(controller: Controller) -> None:
    config = replace(CONFIG, task="cartpole-swingup", action_repeat=50)  # 20 steps
    model, seeds = told(5), (3, 4, 5, 6)
    stds = (0.0, 0.2, 0.3, 0.0)
    together = run_episodes(model, config, seeds, controller=controller, noise=stds)
    for row in (1, 3):
        alone = run_episodes(model, config, seeds[row : row + 1], controller=controller, noise=stds[row])
        np.testing.assert_allclose(alone.actions[:, 0], together.actions[:, row], atol=1e-3)
        np.testing.assert_allclose(alone.returns[0], together.returns[row], rtol=1e-3)
    assert len(np.unique(together.observations[0], axis=0)) == 4


def test_random_actions_are_uniform_and_need_no_model() -> None:
    class Silent(Homing):
        def encode(self, observation: Tensor) -> Tensor:
            raise AssertionError("asked")

    episodes = run_episodes(Silent(), CONFIG, range(200), controller="random", make=line)
    assert stats.kstest(episodes.actions.ravel(), stats.uniform(-1, 2).cdf).pvalue > 0.01
    again = run_episodes(Silent(), CONFIG, range(200), controller="random", make=line)
    np.testing.assert_array_equal(episodes.actions, again.actions)


def test_noise_disturbs_what_is_executed() -> None:
    def together(task: str, seed: int, *, action_repeat: int | None = None) -> Environment:
        return Line(0.2)

    calm, noisy = (
        run_episodes(Homing(), CONFIG, range(400), controller="policy", noise=noise, make=together)
        for noise in (0.0, 0.1)
    )
    added = noisy.actions[0] - calm.actions[0]
    assert stats.kstest(added[:, 0], stats.norm(0, 0.1).cdf).pvalue > 0.01
    moved = np.diff(noisy.observations[:, :, 0], axis=0)
    np.testing.assert_allclose(moved, 0.1 * noisy.actions[:, :, 0], atol=1e-5)  # recorded as executed
    wild = run_episodes(Homing(), CONFIG, range(400), controller="policy", noise=50.0, make=together)
    assert np.abs(wild.actions).max() == 1


def _keep(to: list[Tensor]) -> OnSequences:
    return lambda _observations, sequences: to.append(sequences)


def test_noise_leaves_the_planners_random_numbers_alone() -> None:
    """Of one iteration without policy in a new planner, the sequences are the random numbers, cut off."""
    config = replace(CONFIG, iterations=1, policy_fraction=0.0, horizon=1)
    seen: list[list[Tensor]] = [[], []]
    for noise, sequences in zip((0.0, 0.3), seen, strict=True):
        run_episodes(told(), config, [1, 2], noise=noise, on_sequences=_keep(sequences), make=line)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert len(seen[0]) == STEPS


def test_noise_of_each_episode() -> None:
    calm = run_episodes(Homing(), CONFIG, [5, 6], controller="policy", make=line)
    noisy = run_episodes(Homing(), CONFIG, [5, 6], controller="policy", noise=[0.0, 0.2], make=line)
    np.testing.assert_array_equal(calm.actions[:, 0], noisy.actions[:, 0])
    assert (calm.actions[:, 1] != noisy.actions[:, 1]).all()
    with pytest.raises(ControlError, match=r"one for each of 2 episodes; it is \[0.1\]"):
        run_episodes(Homing(), CONFIG, [5, 6], noise=[0.1], make=line)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), [0.1, -0.1], [0.1, float("nan")]])
def test_noise_that_is_no_standard_deviation(noise: float | list[float]) -> None:
    with pytest.raises(ControlError, match=r"noise must be finite and at least 0; it is "):
        run_episodes(Homing(), CONFIG, [5, 6], controller="policy", noise=noise, make=line)


@pytest.mark.parametrize("noise", ["much", [[0.1], [0.2]], [[], 1.0]])
def test_noise_that_is_no_number(noise: Any) -> None:
    with pytest.raises(ControlError, match=r"noise must be one number, or one for each of 2 episodes; it is "):
        run_episodes(Homing(), CONFIG, [5, 6], controller="policy", noise=noise, make=line)


def test_training_explores() -> None:
    """With an exploration of 2 the spread stays what it was at first, and the horizon is as asked."""
    seen: list[Tensor] = []
    run_episodes(told(), CONFIG, [1], horizon=4, std=2.0, on_sequences=_keep(seen), make=line)
    assert len(seen) == STEPS * CONFIG.iterations
    assert all(sequences.shape == (4, 1, 25, 1) for sequences in seen)
    assert all(float(sequences.std()) > 0.7 for sequences in seen)


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_what_is_no_number_is_named(what: str) -> None:
    with pytest.raises(ControlError, match=f"cartpole-swingup, seed 7, step 3: the {what} is no finite number"):
        run_episodes(Homing(), CONFIG, [6, 7, 8], controller="policy", make=spoilt(what, 7))


def test_a_broken_model_is_named() -> None:
    class Broken(Homing):
        def act(self, latent: Tensor) -> Tensor:
            return torch.where(latent[..., 1:] > 0.15, torch.nan, 0.0)

    with pytest.raises(ControlError, match="cartpole-swingup, seed 6, step 2: the action is no finite number"):
        run_episodes(Broken(), CONFIG, [6, 7], controller="policy", make=line)
    model = told()
    nn.init.constant_(model.get_parameter("q1.5.bias"), math.nan)
    with pytest.raises(ControlError, match=r"cartpole-swingup, step 0: the model predicts .*\(seed 6, 7\)"):
        run_episodes(model, CONFIG, [6, 7], make=line)


@pytest.mark.parametrize(
    ("observations", "actions", "wrong"),
    [(5, 1, "observations have 2 numbers; those of this model have 5"), (2, 3, "actions have 1 .* have 3")],
)
def test_a_model_of_another_task_is_one_clear_error(observations: int, actions: int, wrong: str) -> None:
    other = Told(observations, actions, encoder_width=8, width=8, latent=4)
    with pytest.raises(ControlError, match=f"of another task than 'cartpole-swingup', whose {wrong}"):
        run_episodes(other, CONFIG, [1], make=line)
    run_episodes(other, CONFIG, [1], controller="random", make=line)  # it isn't asked


def test_wrong_arguments() -> None:
    with pytest.raises(ControlError, match="at least one seed"):
        run_episodes(Homing(), CONFIG, [], make=line)
    with pytest.raises(ControlError, match=r"must lie in 0 \.\.\. 2 \*\* 32 - 1; given: \[1, -2\]"):
        run_episodes(Homing(), CONFIG, [1, -2], make=line)
    with pytest.raises(ControlError, match="unknown controller 'pilot'; there are planner, policy, random"):
        run_episodes(Homing(), CONFIG, [1], controller="pilot", make=line)  # type: ignore[arg-type]


def test_return_is_the_mean_over_common_seeds() -> None:
    metric = Return(config=CONFIG, seeds=(5, 8, 3), controller="policy", make=line)
    episodes = run_episodes(Homing(), CONFIG, (5, 8, 3), controller="policy", make=line)
    estimate = metric(Homing())
    assert estimate.value == episodes.mean
    assert estimate.interval == episodes.interval
    assert Constraint(metric, at_least=0.0).name == "return"
    assert len(EVALUATION_SEEDS) == len(set(EVALUATION_SEEDS)) == len(Return(config=CONFIG).seeds) == 10


def test_return_survives_pickling_and_leaves_the_model_alone() -> None:
    metric = Return(config=replace(CONFIG, action_repeat=250), seeds=(1, 2))
    copied = pickle.loads(pickle.dumps(metric))
    assert copied.make is make
    model = told(5).train()
    state = torch.get_rng_state()
    assert copied(model) == metric(model)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_return_of_what_it_cannot_run() -> None:
    with pytest.raises(ControlError, match="a Linear can't be run as a world model; it needs the methods encode"):
        Return(config=CONFIG, make=line)(nn.Linear(2, 1))
    with pytest.raises(ControlError, match=r"at least 2 seeds; given: \(1,\)"):
        Return(config=CONFIG, seeds=(1,))

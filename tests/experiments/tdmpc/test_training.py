from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from secateur.errors import ControlError, StorageError
from secateur.experiments.tdmpc import training
from secateur.experiments.tdmpc.checkpoints import load_agent
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.environments import FloatVector
from secateur.experiments.tdmpc.episodes import EVALUATION_SEEDS, run_episodes
from secateur.experiments.tdmpc.journal import CHECKPOINT, Journal, read_state
from secateur.experiments.tdmpc.learner import Learner
from secateur.experiments.tdmpc.told import Told
from secateur.experiments.tdmpc.training import LATEST, TrainingProgress, measured, train

STEPS = 12
SMALL = {"encoder_width": 16, "width": 16, "latent": 4, "samples": 24, "elites": 4, "iterations": 2, "batch": 8}


class Point:
    """A point on a line that is pushed about; the nearer to the origin, the better."""

    observations, actions, steps = 2, 1, STEPS

    def __init__(self, seed: int, broken_from: float = np.inf) -> None:
        self._random = np.random.default_rng(seed)
        self._broken_from = broken_from

    def reset(self) -> FloatVector:
        self._position, self._speed, self._step = self._random.uniform(-2, 2), 0.0, 0
        return self._observation()

    def step(self, action: FloatVector) -> tuple[FloatVector, float]:
        self._speed = 0.7 * self._speed + 0.2 * float(action[0])
        self._position += self._speed
        self._step += 1
        return self._observation(), np.nan if self._step >= self._broken_from else float(np.exp(-(self._position**2)))

    def _observation(self) -> FloatVector:
        return np.array([self._position, self._speed], dtype=np.float32)


def make(task: str, seed: int, *, action_repeat: int | None = None) -> Point:
    return Point(seed)


def tiny(**changes: Any) -> TdMpcConfig:
    training = {"horizon": 3, "seed_steps": 2 * STEPS, "schedule_steps": 4 * STEPS, "steps": 6 * STEPS}
    return TdMpcConfig.quick("cartpole-swingup", **{**SMALL, **training, **changes})


def run(folder: Path, **changes: Any) -> Any:
    return train(tiny(**changes), folder, evaluate_every=2, evaluations=2, make=make)


def journal_in(folder: Path, **changes: Any) -> Journal:
    found = read_state(folder, tiny(**changes))
    assert found is not None
    return found[0]


def policy_of(model: Told) -> torch.Tensor:
    return model.state_dict()["pi.0.weight"]


def assert_same_state(one: Path, other: Path) -> None:
    first, second = load_file(one / CHECKPOINT), load_file(other / CHECKPOINT)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return folder


def test_a_training_that_ended_and_goes_on_is_the_longer_one_bit_for_bit(whole_folder: Path, tmp_path: Path) -> None:
    run(tmp_path, steps=3 * STEPS)
    global_state = torch.get_rng_state()
    run(tmp_path)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert_same_state(whole_folder, tmp_path)
    whole, parts = journal_in(whole_folder).episodes, journal_in(tmp_path).episodes
    assert [e.episode_return for e in whole] == [e.episode_return for e in parts]
    assert [e.losses for e in whole] == [e.losses for e in parts]


@pytest.mark.parametrize("phase", ["collect", "learn", "evaluate"])
def test_a_training_that_was_interrupted_goes_on_bit_for_bit(
    whole_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(training, "_UPDATES_PER_REPORT", 5)

    def stop(progress: TrainingProgress) -> None:
        if progress.phase == phase and len(progress.journal.episodes) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path, evaluate_every=2, evaluations=2, make=make, on_progress=stop)
    assert len(journal_in(tmp_path).episodes) == 3
    run(tmp_path)
    assert_same_state(whole_folder, tmp_path)
    one, other = load_agent(whole_folder), load_agent(tmp_path)
    assert one.notes["training"]["evaluations"] == other.notes["training"]["evaluations"]


def test_a_finished_training_is_not_repeated_and_another_begins_on_request(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    again = run(tmp_path)
    assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == before
    assert again.notes == first.notes
    other = train(tiny(seed=5), tmp_path, evaluate_every=2, evaluations=2, make=make, resume=False)
    assert other.config.seed == 5
    assert not torch.equal(policy_of(other.model), policy_of(first.model))


def test_a_restart_that_is_stopped_at_once_is_not_taken_for_the_earlier_training(tmp_path: Path) -> None:
    def stop(_progress: TrainingProgress) -> None:
        raise KeyboardInterrupt

    first = run(tmp_path, steps=2 * STEPS)
    with pytest.raises(ControlError, match="nothing would be learnt"):  # what can't begin does no harm
        train(tiny(steps=STEPS), tmp_path, make=make, resume=False)
    assert journal_in(tmp_path).steps == 2 * STEPS
    with pytest.raises(KeyboardInterrupt):
        train(tiny(seed=5), tmp_path, make=make, resume=False, on_progress=stop)
    assert read_state(tmp_path, tiny(seed=5)) is None
    assert load_agent(tmp_path).notes == first.notes  # until there is a better one
    assert run(tmp_path, seed=5, steps=2 * STEPS).config.seed == 5


def test_steps_updates_and_evaluations_are_those_of_the_schedule(tmp_path: Path) -> None:
    reports: list[TrainingProgress] = []
    agent = train(tiny(), tmp_path, evaluate_every=2, evaluations=2, make=make, on_progress=reports.append)
    episodes = journal_in(tmp_path).episodes
    assert [episode.steps for episode in episodes] == [STEPS * (i + 1) for i in range(6)]
    # Two seed episodes; the first updates, as many as both have steps, follow the second.
    assert [episode.losses is None for episode in episodes] == [True] + [False] * 5
    assert [episode.evaluation is None for episode in episodes] == [True, False] * 3
    state = load_file(tmp_path / CHECKPOINT)
    assert int(state["learner.updates"]) == 6 * STEPS
    assert state["replay.lengths"].tolist() == [STEPS] * 6
    assert agent.notes["training"]["steps"] in (2 * STEPS, 4 * STEPS, 6 * STEPS)
    assert agent.notes["training"]["updates"] == agent.notes["training"]["steps"]
    assert [report.steps for report in reports] == sorted(report.steps for report in reports)
    assert reports[-1].steps == reports[-1].total == 6 * STEPS
    assert {report.phase for report in reports} >= {"collect", "evaluate"}


def test_the_best_by_evaluation_and_the_latest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = iter([1.0, 3.0, 3.0, 2.0])
    weights: list[torch.Tensor] = []

    def evaluate(self: training._Training, steps: int) -> float:
        weights.append(policy_of(self.learner.model).clone())
        return next(scripted)

    monkeypatch.setattr(training._Training, "_evaluate", evaluate)
    best = train(tiny(steps=8 * STEPS), tmp_path, evaluate_every=2, make=make)
    assert torch.equal(policy_of(best.model), weights[2])  # the later one of two equals
    assert best.notes["training"]["steps"] == 6 * STEPS
    assert best.config == tiny(steps=6 * STEPS)  # a training of just as many steps would give this agent
    latest = load_agent(tmp_path / LATEST)
    assert torch.equal(policy_of(latest.model), weights[3])
    assert [each["return"] for each in latest.notes["training"]["evaluations"]] == [1.0, 3.0, 3.0, 2.0]


def test_seed_episodes_are_random_and_later_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def watch(*arguments: Any, **settings: Any) -> Any:
        asked.append({"seeds": list(arguments[2]), **settings})
        return run_episodes(*arguments, **settings)

    monkeypatch.setattr(training, "run_episodes", watch)
    run(tmp_path)
    collected = [each for each in asked if len(each["seeds"]) == 1]
    assert [each["controller"] for each in collected] == ["random"] * 2 + ["planner"] * 4
    # Linear over four episodes: from 0.5 to 0.05, and from 1 to 3 steps ahead.
    assert [each["std"] for each in collected] == pytest.approx([0.5, 0.3875, 0.275, 0.1625, 0.05, 0.05])
    assert [each["horizon"] for each in collected] == [1, 1, 2, 2, 3, 3]
    seeds = [each["seeds"][0] for each in collected]
    assert len(set(seeds)) == 6
    evaluated = {seed for each in asked if len(each["seeds"]) > 1 for seed in each["seeds"]}
    assert not evaluated & {*seeds, *EVALUATION_SEEDS}


def test_another_config_is_one_clear_error(tmp_path: Path) -> None:
    run(tmp_path, steps=2 * STEPS)
    with pytest.raises(StorageError, match=r"training\.safetensors was begun with latent = 4, and now it is 5"):
        run(tmp_path, latent=5)


def test_a_training_that_would_learn_nothing_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="steps is 23, and seed_steps 24: nothing would be learnt"):
        run(tmp_path, steps=2 * STEPS - 1)
    assert not (tmp_path / CHECKPOINT).exists()


def test_losses_that_are_no_numbers_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"cartpole-swingup, seed 0, update \d+: .*diverged; use a smaller"):
        run(tmp_path, learning_rate=1e30)


def test_a_reward_that_is_no_number_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"cartpole-swingup, seed \d+, step 5: the reward is no finite number"):
        train(tiny(), tmp_path, make=lambda task, seed, action_repeat=None: Point(seed, broken_from=5))
    assert not (tmp_path / CHECKPOINT).exists()


def test_measured_adds_the_return_of_the_common_seeds(whole_folder: Path) -> None:
    agent = load_agent(whole_folder)
    told: list[tuple[int, int]] = []
    done = measured(agent, 3, on_step=lambda step, total: told.append((step, total)), make=make)
    expected = run_episodes(agent.model, agent.config, EVALUATION_SEEDS[:3], make=make)
    found = done.notes["return"]
    assert found["episodes"] == expected.returns.tolist()
    assert found["seeds"] == list(EVALUATION_SEEDS[:3])
    assert found["mean"] == pytest.approx(np.mean(found["episodes"]))
    assert found["worst"] == min(found["episodes"])
    assert found["interval"] == list(expected.interval)
    assert told == [(step, STEPS) for step in range(1, STEPS + 1)]
    json.dumps(done.notes)


def test_an_agent_for_a_real_task_learns(tmp_path: Path) -> None:
    """A much smaller agent, a twentieth of the usual training, on the real task: nothing random swings a pole so."""
    sizes = {"width": 64, "encoder_width": 64, "latent": 16, "horizon": 3, "samples": 32, "elites": 4, "iterations": 2}
    lengths = {"batch": 64, "seed_steps": 500, "schedule_steps": 1000, "steps": 1250}
    config = TdMpcConfig.quick("cartpole-swingup", **sizes, **lengths)
    agent = train(config, tmp_path, evaluate_every=100, evaluations=2)
    seeds = EVALUATION_SEEDS[:4]
    trained = run_episodes(agent.model, config, seeds)
    for other in ("random", "planner"):
        untrained = run_episodes(Learner(config, 5, 1).model, config, seeds, controller=other)
        assert trained.worst > untrained.returns.max()
        assert trained.mean > 1.5 * untrained.mean
    found = read_state(tmp_path, config)
    assert found is not None
    losses = [episode.losses for episode in found[0].episodes if episode.losses is not None]
    assert len(losses) == 4
    assert losses[-1].reward < 0.5 * losses[0].reward

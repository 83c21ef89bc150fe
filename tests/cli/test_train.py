from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from secateur.experiments.tdmpc import environments, training
from secateur.experiments.tdmpc.checkpoints import load_agent
from secateur.experiments.tdmpc.config import TdMpcConfig
from tests.cli.outcome import CommandLine, assert_one_line

STEPS = 40
"""Two episodes."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick preset that is much quicker still: two episodes of 20 steps each, the first one random."""
    monkeypatch.setattr(environments, "PHYSICS_STEPS", 80)
    preset = TdMpcConfig.quick
    sizes = {"width": 16, "encoder_width": 16, "latent": 4, "horizon": 2, "samples": 16, "elites": 4, "iterations": 1}
    lengths = {"batch": 16, "seed_steps": 20, "schedule_steps": 20, "steps": STEPS}

    def quick(task: str, **changes: Any) -> TdMpcConfig:
        return preset(task, **{**sizes, **lengths, **changes})

    monkeypatch.setattr(TdMpcConfig, "quick", staticmethod(quick))


def run(secateur: CommandLine, *more: str) -> Any:
    return secateur("train", "tdmpc", "--task", "cartpole-balance", "--preset", "quick", "--episodes", "2", *more)


@pytest.mark.usefixtures("small")
def test_train_writes_the_agent_shows_its_return_and_goes_on(secateur: CommandLine, tmp_path: Path) -> None:
    outcome = run(secateur, "--out", "agent", "--evaluate-every", "1", "--json", "result.json")
    assert outcome.status == 0, outcome.err
    agent = load_agent(tmp_path / "agent")
    found = agent.notes["return"]
    assert f"cartpole-balance: {agent.parameters:,} parameters, {agent.notes['training']['steps']}" in outcome.out
    assert f"return {found['mean']:.1f} over 2 episodes" in outcome.out
    assert "agent: agent/cartpole-balance.safetensors" in outcome.out
    for step, each in zip(("20", "40"), agent.notes["training"]["evaluations"], strict=False):
        assert f"{step} agent steps: return {each['return']:.1f}" in outcome.err
    data = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert data["return"] == found
    assert data["parameters"] == agent.parameters
    steps = data["training"]["steps"]  # of the better one of two evaluations
    assert steps in (20, 40)
    assert data["config"]["steps"] == steps
    options = f"--task cartpole-balance --preset quick --steps {steps} --seed 0 --evaluate-every 1 --threads 1"
    assert data["command"] == agent.notes["command"] == f"secateur train tdmpc {options}"

    again = run(secateur, "--out", "agent", "--evaluate-every", "1")
    assert again.out == outcome.out
    assert "collect" not in again.err  # nothing was left to do
    longer = run(secateur, "--out", "agent", "--evaluate-every", "1", "--steps", "60")
    assert longer.status == 0, longer.err
    assert "60 agent steps: return" in longer.err
    assert "40 agent steps: return" not in longer.err  # that was told before
    latest = load_agent(tmp_path / "agent" / training.LATEST)
    assert [each["steps"] for each in latest.notes["training"]["evaluations"]] == [20, 40, 60]
    restarted = run(secateur, "--out", "agent", "--seed", "3", "--steps", "20", "--restart")
    assert restarted.status == 0, restarted.err
    assert load_agent(tmp_path / "agent").config.seed == 3


@pytest.mark.usefixtures("small")
def test_an_interrupt_keeps_what_was_done_and_is_status_130(
    secateur: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    episode = training._Training.episode

    def interrupted(self: training._Training, evaluate_every: int) -> None:
        if len(self.journal.episodes) == 1:
            raise KeyboardInterrupt
        episode(self, evaluate_every)

    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "episode", interrupted)
        outcome = run(secateur, "--out", "agent")
    assert outcome.status == 130
    assert outcome.out == ""
    assert "stopped; the same command goes on after the last whole episode (agent)" in outcome.err
    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "episode", interrupted)
        restarted = run(secateur, "--out", "restarted", "--restart")
    assert "stopped; the same command, without --restart, goes on" in restarted.err
    reached = []

    def watched(self: training._Training, evaluate_every: int) -> None:
        reached.append(self.journal.steps)
        episode(self, evaluate_every)

    monkeypatch.setattr(training._Training, "episode", watched)
    assert run(secateur, "--out", "agent").status == 0
    assert reached == [20]


def test_without_a_command_there_is_help(secateur: CommandLine) -> None:
    outcome = secateur("train")
    assert outcome.status == 0
    assert "tdmpc" in outcome.out
    shown = secateur("train", "tdmpc", "--help").out
    for word in ("--task", "--preset", "--steps", "--seed", "--threads", "--json", "Examples:", "goes on after a stop"):
        assert word in shown


def test_an_unknown_task_lists_what_there_is(secateur: CommandLine, tmp_path: Path) -> None:
    outcome = secateur("train", "tdmpc", "--task", "cartpole-dance")
    assert_one_line(outcome, 2, "unknown task 'cartpole-dance'", "cartpole-swingup", "walker-walk")
    assert not list(tmp_path.glob("secateur-tdmpc*"))


@pytest.mark.usefixtures("small")
def test_a_folder_with_another_training_is_one_clear_error(secateur: CommandLine) -> None:
    assert run(secateur, "--out", "agent", "--steps", "20").status == 0
    outcome = run(secateur, "--out", "agent", "--seed", "1")
    assert outcome.status == 2
    assert "was begun with seed = 0, and now it is 1; choose another folder" in outcome.err.splitlines()[-1]


@pytest.mark.usefixtures("small")
def test_without_the_extra_it_says_what_to_install(secateur: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_dm_control(name: str, *rest: Any) -> Any:
        if name.startswith("dm_control"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_dm_control)
    outcome = run(secateur, "--out", "agent")
    assert outcome.status == 2
    assert "this needs dm_control: pip install 'secateur[control]'" in outcome.err

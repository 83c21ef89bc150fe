from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import pytest

from secateur.experiments.tdmpc.checkpoints import Agent, save_agent
from secateur.experiments.tdmpc.environments import make
from secateur.experiments.tdmpc.reproduction import experiment, methods, reproduction
from tests.cli.outcome import CommandLine, assert_one_line
from tests.experiments.tdmpc.reproduction.stub import drift, stub_agent

QUICK = (
    "--method", "uniform", "--sparsity", "0.5", "--episodes", "2", "--distill", "0", "--skip", "sensitivity",
)  # fmt: skip


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """A tiny agent in the folder ``agent``; everything acts on a task that takes no time."""
    monkeypatch.setattr(reproduction, "reproduce", functools.partial(reproduction.reproduce, make=drift))
    made = stub_agent()
    save_agent(made, tmp_path / "agent")
    return made


@pytest.mark.usefixtures("agent")
def test_reproduce_writes_tables_figures_and_data_once(secateur: CommandLine) -> None:
    words = ("reproduce", "tdmpc", "--checkpoint", "agent", *QUICK, "--json", "copy.json")
    first = secateur(*words)
    assert first.status == 0, first.err
    assert "TD-MPC on cartpole-swingup: 2 episodes on common seeds, no fine-tuning" in first.out
    assert "return, with refit" in first.out
    assert "record visits" in first.err
    out = Path("secateur-reproduce-cartpole-swingup")
    for name in ("results.md", "results.json", "returns.png", "planning.png", "masked.png"):
        assert (out / name).stat().st_size > 1000
    data = json.loads(Path("copy.json").read_text(encoding="utf-8"))
    assert data == json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [record["refit"] for record in data["records"]] == [False, True]
    assert data["parts"] == []
    again = secateur(*words)
    assert again.out == first.out
    assert "record visits" not in again.err


@pytest.mark.usefixtures("agent")
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(secateur: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_arguments: object, **_settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run_method", stopped)
    outcome = secateur("reproduce", "tdmpc", "--checkpoint", "agent", *QUICK)
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1].startswith("stopped; the same command goes on after the last finished run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "chess"], ["unknown task 'chess'; there are", "cartpole-swingup", "walker-walk"]),
        (["--sparsity", "1"], ["--sparsity must lie between 0 and 1; it is 1.0"]),
        (["--method", "best"], ["--method 'best' is none of ln-structured, torch-pruning", "uniform"]),
        (["--episodes", "1"], ["--episodes"]),
        (["--skip", "everything"], ["everything", "sensitivity", "masked"]),
        (["--checkpoint", "nowhere"], ["nowhere holds no agent for 'cartpole-swingup'; it has none"]),
        (
            ["--checkpoint", "agent", "--task", "walker-walk"],
            ["agent holds no agent for 'walker-walk'; it has cartpole"],
        ),
        (["--task", "humanoid-walk"], ["no trained agent for 'humanoid-walk' comes with Secateur", "--checkpoint"]),
        (["--distill", "nan"], ["--distill", "greater than or equal to 0"]),
        (["--distill", "inf"], ["--distill must be a finite number of seconds; it is inf"]),
        (["--checkpoint", "zoo.py"], ["--checkpoint", "is a file"]),
    ],
)
@pytest.mark.usefixtures("agent")
def test_bad_input_is_one_line_and_status_2(secateur: CommandLine, arguments: list[str], words: list[str]) -> None:
    assert_one_line(secateur("reproduce", "tdmpc", *arguments), 2, *words)


@pytest.mark.usefixtures("agent")
def test_a_peer_that_is_not_installed_is_asked_for(secateur: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "find_spec", lambda _name: None)
    outcome = secateur("reproduce", "tdmpc", "--checkpoint", "agent", "--method", "torch-pruning")
    assert_one_line(outcome, 2, "--method torch-pruning needs torch_pruning: pip install 'secateur[peers]'")


@pytest.mark.usefixtures("agent")
def test_an_extra_that_is_not_installed_is_named(secateur: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduction, "reproduce", functools.partial(reproduction.reproduce, make=make))
    monkeypatch.setitem(sys.modules, "dm_control", None)
    outcome = secateur("reproduce", "tdmpc", "--checkpoint", "agent", *QUICK)
    assert outcome.status == 2
    expected = "secateur: error: this needs dm_control: pip install 'secateur[control]'"
    assert outcome.err.splitlines()[-1] == expected


@pytest.mark.usefixtures("agent")
def test_a_config_that_does_not_fit_is_one_line(secateur: CommandLine) -> None:
    file = Path("agent/cartpole-swingup.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    data["config"]["width"] = 24
    file.write_text(json.dumps(data), encoding="utf-8")
    outcome = secateur("reproduce", "tdmpc", "--checkpoint", "agent")
    assert_one_line(outcome, 2, "the config doesn't fit the weights", "(16,", "(24,")


def test_help_says_what_several_jobs_do_to_distillation(secateur: CommandLine) -> None:
    shown = " ".join(secateur("reproduce", "tdmpc", "--help").out.replace("│", " ").split())
    assert "fewer steps of distillation" in shown

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secateur import cli

MODELS = """
import warnings
from torch import nn
import torch

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
        self.decoder = nn.Linear(4, 8)

    def forward(self, x):
        return self.decoder(self.encoder(x))

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, tokens):
        return self.head(self.embed(tokens))

class Factories:
    @staticmethod
    def nested():
        return Pair()

model = Pair()
number = 7

def with_inputs(): return Pair(), torch.zeros(1, 8)
def with_named_inputs(): return Pair(), {"x": torch.zeros(1, 8)}
def with_run(): return Pair(), rollout
def rollout(model): return model.decoder(torch.relu(model.encoder(torch.zeros(2, 8))))
def broken(): raise OSError("the weights are\\nnot here")
def no_model(): return 3
"""


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def secateur(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The command line, run in this process and in an empty folder with a module of models, ``zoo``."""
    (tmp_path / "zoo.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "broken_zoo.py").write_text("import not_installed_anywhere", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, captured.out, captured.err)

    yield call
    sys.modules.pop("zoo", None)


def assert_one_line(outcome: Outcome, status: int, *words: str) -> None:
    """One clear line on stderr, and nothing but it."""
    assert outcome.status == status
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("secateur: error: ")
    for word in words:
        assert word in outcome.err


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(secateur: Any, arguments: tuple[str, ...]) -> None:
    outcome = secateur(*arguments)
    assert outcome.status == 0
    assert "demo" in outcome.out
    assert "inspect" in outcome.out
    assert outcome.err == ""


@pytest.mark.parametrize("command", ["demo", "inspect"])
def test_help_of_a_command_teaches_by_example(secateur: Any, command: str) -> None:
    outcome = secateur(command, "--help")
    assert outcome.status == 0
    assert "Examples:" in outcome.out
    assert outcome.out.count(f"secateur {command} ") >= 3
    assert "--json" in outcome.out


def test_version(secateur: Any) -> None:
    outcome = secateur("--version")
    assert outcome.status == 0
    assert outcome.out.startswith("secateur 0.")


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "secateur", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("secateur 0.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prun"], ["prun"]),
        (["demo", "--sparsty", "0.5"], ["--sparsty", "--sparsity"]),
        (["demo", "--sparsity", "half"], ["--sparsity", "valid number"]),
        (["demo", "--sparsity", "1"], ["--sparsity must lie between 0 and 1; it is 1.0"]),
        (["demo", "--tolerance", "-1"], ["--tolerance must be at least 0 and below 1; it is -1.0"]),
        (["demo", "--dataset", "cifar"], ["cifar", "digits"]),
        (["demo", "--epochs", "0"], ["--epochs"]),
        (["demo", "--dataset", "mnist"], ["where is MNIST?", "--data", "SECATEUR_DATA", "--download"]),
        (["demo", "--dataset", "mnist", "--data", "nowhere"], ["idx3-ubyte.gz can't be read from nowhere"]),
        (["demo", "--json", "."], ["--json", "is a directory"]),
        (["demo", "--out", "zoo.py"], ["--out", "is a file"]),
        (["inspect"], ["MODULE:FACTORY"]),
        (["inspect", "zoo"], ["'zoo' is not of the form package.module:name"]),
        (["inspect", "no_zoo:make"], ["no_zoo can't be imported: ModuleNotFoundError"]),
        (["inspect", "broken_zoo:make"], ["broken_zoo can't be imported", "not_installed_anywhere"]),
        (["inspect", "zoo:make"], ["zoo has no make"]),
        (["inspect", "zoo:number"], ["zoo:number is a int, neither a model nor a function that makes one"]),
        (["inspect", "zoo:broken"], ["zoo:broken failed: OSError: the weights are not here"]),
        (["inspect", "zoo:no_model"], ["zoo:no_model must return a torch.nn.Module", "it made a int"]),
        (["inspect", "zoo:Pair"], ["0 ways to exercise the model are given and one is needed"]),
        (["inspect", "zoo:with_inputs", "--input-shape", "1,8"], ["2 ways to exercise the model"]),
        (["inspect", "zoo:Pair", "--input-shape", "1,x"], ["--input-shape '1,x' is not a list of lengths"]),
        (["inspect", "zoo:Pair", "--input-shape", "0,8"], ["lengths are at least 1"]),
        (["inspect", "zoo:Pair", "--input-shape", "1,8:float"], ["only :int may follow them"]),
        (["inspect", "zoo:with_inputs", "--component", "encoder"], ["'encoder' is not of the form name="]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(secateur: Any, arguments: list[str], words: list[str]) -> None:
    assert_one_line(secateur(*arguments), 2, *words)


# --- inspect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("zoo:Pair", "--input-shape", "1,8"),
        ("zoo:model", "--input-shape", "1,8"),
        ("zoo:Factories.nested", "--input-shape", "1,8"),
        ("zoo:with_inputs",),
        ("zoo:with_named_inputs",),
        ("zoo:with_run",),
        ("zoo:Pair", "--run", "zoo:rollout"),
    ],
)
def test_inspect_finds_the_interface(secateur: Any, arguments: tuple[str, ...]) -> None:
    outcome = secateur("inspect", *arguments)
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    assert "Interface groups (their parameters belong to several components): 1" in outcome.out
    assert "encoder.2.(weight[0], bias[0])   decoder.weight[1]" in outcome.out


def test_inspect_as_json(secateur: Any, tmp_path: Path) -> None:
    secateur("inspect", "zoo:with_inputs", "--json", "new/graph.json")
    data = json.loads((tmp_path / "new" / "graph.json").read_text(encoding="utf-8"))
    assert data["parameters"] == 8 * 6 + 6 + 6 * 4 + 4 + 4 * 8 + 8
    assert [group["size"] for group in data["groups"]] == [6, 4]
    assert data["flows"] == [{"source": "encoder", "target": "decoder"}]


def test_inspect_with_whole_numbers_as_input(secateur: Any) -> None:
    outcome = secateur("inspect", "zoo:Tokens", "--input-shape", "2,5:int")
    assert outcome.status == 0, outcome.err
    assert "embed.weight[1]" in outcome.out


def test_inspect_with_given_components_and_protected_names(secateur: Any) -> None:
    outcome = secateur(
        "inspect", "zoo:with_inputs", "--component", "front=encoder.0", "--component", "back=encoder.2,decoder",
        "--protect", "encoder.2",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "front, back" in outcome.out
    assert "decoder.weight[1] (all)" in outcome.out


def test_inspect_keeps_the_models_own_error(secateur: Any) -> None:
    assert_one_line(
        secateur("inspect", "zoo:Pair", "--input-shape", "1,9"), 2, "mat1 and mat2 shapes cannot be multiplied"
    )


def test_inspect_with_an_unknown_protected_name(secateur: Any) -> None:
    assert_one_line(secateur("inspect", "zoo:with_inputs", "--protect", "encodr"), 2, "encodr")


# --- demo -------------------------------------------------------------------------------------------------------------


def test_demo_shows_and_writes_everything(secateur: Any, tmp_path: Path) -> None:
    outcome = secateur("demo", "--epochs", "20", "--sparsity", "0.5", "--out", "pictures", "--json", "result.json")
    assert outcome.status == 0, outcome.err
    assert "digits: 1,438 training and 359 test images of 8x8" in outcome.out
    for word in (
        "PSNR, dB",
        "dense",
        "pruned",
        "refitted",
        "encoder",
        "decoder",
        "total",
        "parameters",
        "MACs",
        "1 thread",
    ):
        assert word in outcome.out
    assert "reconstructions: pictures/reconstructions.png" in outcome.out
    assert (tmp_path / "pictures" / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    dense, pruned, refitted = data["stages"]
    assert dense["objective"] > refitted["objective"] > pruned["objective"]
    assert abs(1 - refitted["parameters"] / dense["parameters"] - 0.5) <= 0.01
    assert data["sparsity"] == pytest.approx(1 - refitted["parameters"] / dense["parameters"])
    assert sum(part["parameters"] for part in refitted["components"].values()) == refitted["parameters"]
    assert set(refitted["latency"]) == {"encoder", "decoder", "total"}
    assert data["figure"] == "pictures/reconstructions.png"
    assert "train" in outcome.err


def test_a_bound_that_is_not_met_is_status_1_after_the_result(secateur: Any, tmp_path: Path) -> None:
    outcome = secateur("demo", "--epochs", "20", "--sparsity", "0.95", "--max-drop", "0.01", "--json", "result.json")
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1].endswith("dB below dense; --max-drop is 0.01")
    assert "refitted" in outcome.out
    assert (tmp_path / "result.json").exists()


def test_a_target_that_can_not_be_met_is_status_1(secateur: Any, tmp_path: Path) -> None:
    outcome = secateur("demo", "--epochs", "1", "--sparsity", "0.9999", "--tolerance", "0.001")
    assert outcome.status == 1
    assert "can't be met: the largest possible is" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "secateur-demo").exists()


def test_without_the_extra_the_demo_says_what_to_install(secateur: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_sklearn(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    assert_one_line(secateur("demo"), 2, "the demo needs sklearn: pip install 'secateur[demo]'")

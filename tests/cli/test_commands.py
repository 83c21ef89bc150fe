from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.outcome import CommandLine, assert_one_line


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(secateur: CommandLine, arguments: tuple[str, ...]) -> None:
    outcome = secateur(*arguments)
    assert outcome.status == 0
    for command in ("demo", "inspect", "prune", "reproduce", "search", "train"):
        assert command in outcome.out
    assert outcome.err == ""


@pytest.mark.parametrize(
    "command", ["demo", "inspect", "prune", "reproduce mnist-autoencoder", "reproduce tdmpc", "train tdmpc"]
)
def test_help_of_a_command_teaches_by_example(secateur: CommandLine, command: str) -> None:
    outcome = secateur(*command.split(), "--help")
    assert outcome.status == 0
    assert "Examples:" in outcome.out
    assert outcome.out.count(f"secateur {command} ") >= 3
    assert "--json" in outcome.out


def test_version(secateur: CommandLine) -> None:
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
def test_bad_input_is_one_line_and_status_2(secateur: CommandLine, arguments: list[str], words: list[str]) -> None:
    assert_one_line(secateur(*arguments), 2, *words)

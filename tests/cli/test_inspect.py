from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.outcome import CommandLine, assert_one_line


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
def test_inspect_finds_the_interface(secateur: CommandLine, arguments: tuple[str, ...]) -> None:
    outcome = secateur("inspect", *arguments)
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    assert "Interface groups (their parameters belong to several components): 1" in outcome.out
    assert "encoder.2.(weight[0], bias[0])   decoder.weight[1]" in outcome.out


def test_inspect_as_json(secateur: CommandLine, tmp_path: Path) -> None:
    secateur("inspect", "zoo:with_inputs", "--json", "new/graph.json")
    data = json.loads((tmp_path / "new" / "graph.json").read_text(encoding="utf-8"))
    assert data["parameters"] == 8 * 6 + 6 + 6 * 4 + 4 + 4 * 8 + 8
    assert [group["size"] for group in data["groups"]] == [6, 4]
    assert data["flows"] == [{"source": "encoder", "target": "decoder"}]


@pytest.mark.parametrize(("arguments", "sizes"), [((), [8, 8]), (("--granularity", "heads"), [2])])
def test_inspect_with_whole_heads(
    secateur: CommandLine, tmp_path: Path, arguments: tuple[str, ...], sizes: list[int]
) -> None:
    assert secateur("inspect", "zoo:with_heads", *arguments, "--json", "graph.json").status == 0
    data = json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))
    assert [group["size"] for group in data["groups"]] == sizes


def test_inspect_with_whole_numbers_as_input(secateur: CommandLine) -> None:
    outcome = secateur("inspect", "zoo:Tokens", "--input-shape", "2,5:int")
    assert outcome.status == 0, outcome.err
    assert "embed.weight[1]" in outcome.out


def test_inspect_with_given_components_and_protected_names(secateur: CommandLine) -> None:
    outcome = secateur(
        "inspect", "zoo:with_inputs", "--component", "front=encoder.0", "--component", "back=encoder.2,decoder",
        "--protect", "encoder.2",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "front, back" in outcome.out
    assert "decoder.weight[1] (all)" in outcome.out


def test_inspect_keeps_the_models_own_error(secateur: CommandLine) -> None:
    assert_one_line(
        secateur("inspect", "zoo:Pair", "--input-shape", "1,9"), 2, "mat1 and mat2 shapes cannot be multiplied"
    )


def test_inspect_with_an_unknown_protected_name(secateur: CommandLine) -> None:
    assert_one_line(secateur("inspect", "zoo:with_inputs", "--protect", "encodr"), 2, "encodr")

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.outcome import CommandLine, assert_one_line


def test_demo_shows_and_writes_everything(secateur: CommandLine, tmp_path: Path) -> None:
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


def test_a_bound_that_is_not_met_is_status_1_after_the_result(secateur: CommandLine, tmp_path: Path) -> None:
    outcome = secateur("demo", "--epochs", "20", "--sparsity", "0.95", "--max-drop", "0.01", "--json", "result.json")
    assert outcome.status == 1
    assert outcome.err.splitlines()[-1].endswith("dB below dense; --max-drop is 0.01")
    assert "refitted" in outcome.out
    assert (tmp_path / "result.json").exists()


def test_a_target_that_can_not_be_met_is_status_1(secateur: CommandLine, tmp_path: Path) -> None:
    outcome = secateur("demo", "--epochs", "1", "--sparsity", "0.9999", "--tolerance", "0.001")
    assert outcome.status == 1
    assert "can't be met: the largest possible is" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "secateur-demo").exists()


def test_without_the_extra_the_demo_says_what_to_install(
    secateur: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without_sklearn(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    assert_one_line(secateur("demo"), 2, "this needs sklearn: pip install 'secateur[demo]'")

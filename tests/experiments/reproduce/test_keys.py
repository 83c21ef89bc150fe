"""Names of runs: the same as ever for settings that haven't changed, and others for those that have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secateur.allocation import BlackBox
from secateur.experiments.reproduce import keys, methods
from secateur.experiments.reproduce.keys import Run, key_of
from secateur.experiments.reproduce.methods import METHODS, Searched
from secateur.experiments.reproduce.records import Record
from secateur.experiments.reproduce.settings import Settings
from secateur.experiments.run_cache import RunCache


def name_of(method: str, *, refit: bool = True) -> str:
    key = key_of(Run(method, refit, 0.2), 0, "mnist", Settings(methods=()))
    return RunCache(Path(), Record.from_data).file("", key).stem[1:]


@pytest.mark.parametrize(
    ("method", "plain", "refitted"),
    [
        ("torch-random", "fcc2e09be7", "ecfcbf831c"),
        ("torch-l2", "6e19b65373", "69b301c81f"),
        ("uniform", "48be467a1e", "708fc17149"),
        ("random", "8937516fc2", "e979a7fdcf"),
        ("norm", "5da5b4bcb3", "71c1e5855e"),
        ("norm-all", "a45518e800", "54ac81f66a"),
        ("grid", "e49b20016e", "ea7a1ef346"),
        ("gradient", "b6f128f9cc", "0f06fbba23"),
        ("gradient-weights", "e15ee3b3f0", "7b86ed615b"),
        ("tpe", "a874413e21", "c0d8616ecb"),
        ("sensitivity", "62b11d559b", "dac727ba3a"),
    ],
)
def test_runs_of_settings_that_have_not_changed_keep_their_names(method: str, plain: str, refitted: str) -> None:
    assert name_of(method, refit=False) == plain
    assert name_of(method) == refitted


def other(name: str, **changes: Any) -> dict[str, Any]:
    chosen = METHODS[name]
    assert isinstance(chosen, Searched)
    return {**METHODS, name: replace(chosen, **changes)}


CHANGES: dict[str, tuple[Any, str, Any, set[str]]] = {
    "strategy": (
        keys, "METHODS", other("tpe", strategy=lambda t: BlackBox(t.evaluations, "cmaes", seed=t.seed)), {"tpe"},
    ),
    "ranking": (keys, "METHODS", other("norm", refitted_ranking=methods._by_all_weights), {"norm"}),
    "levels": (methods, "_GRID_LEVELS", {False: 5, True: 4}, {"grid"}),
    "rows": (keys, "ROWS", {}, set(METHODS)),
    "fine-tuning": (keys, "LEARNING_RATE", 1.0, {"norm", "tpe"}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_runs_of_other_settings_in_the_code_have_another_name(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = ("torch-l2", "uniform", "norm", "grid", "tpe")
    before = {name: name_of(name) for name in looked_at}
    module, constant, value, changed = CHANGES[what]
    monkeypatch.setattr(module, constant, value)
    assert {name for name in looked_at if name_of(name) != before[name]} == changed & set(looked_at)


def test_what_a_method_is_called_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "METHODS", other("grid", label="Grid"))
    assert name_of("grid") == "ea7a1ef346"

"""Names of runs: the same as ever for settings that haven't changed, and others for those that have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secateur.allocation import Sensitivity
from secateur.experiments.fingerprint import fingerprint
from secateur.experiments.run_cache import RunCache
from secateur.experiments.tdmpc.reproduction import keys, methods
from secateur.experiments.tdmpc.reproduction.keys import Keys
from secateur.experiments.tdmpc.reproduction.methods import METHODS, Searched
from secateur.experiments.tdmpc.reproduction.records import Record
from secateur.experiments.tdmpc.reproduction.run_list import Run
from secateur.experiments.tdmpc.reproduction.settings import Settings

CARTPOLE = Keys(Settings(methods=(), distill=15.0), agent="a0c6b469bd", visits=None)
WALKER = Keys(Settings(methods=(), distill=110.0, finalists=2), agent="0a4a0e1838", visits=None)
SENSITIVITY = Run("method", "sensitivity", 0.97, True)


def name_of(found: Keys, run: Run) -> str:
    cache = RunCache(Path(), Record.from_data)
    return cache.file(run.file, found.of_run(run)).stem


@pytest.mark.parametrize(
    ("found", "run", "name"),
    [
        (CARTPOLE, SENSITIVITY, "sensitivity-0.97-refit-7ea0f22cef"),
        (CARTPOLE, Run("method", "torch-pruning", 0.97, False), "torch-pruning-0.97-plain-70f09f007a"),
        (CARTPOLE, Run("method", "ln-structured", 0.2, False), "ln-structured-0.2-plain-1b67fe71be"),
        (CARTPOLE, Run("method", "uniform", 0.2, False), "uniform-0.2-plain-e940280f16"),
        (CARTPOLE, Run("method", "uniform-latent", 0.2, False), "uniform-latent-0.2-plain-025d616970"),
        (WALKER, Run("method", "revisited", 0.75, True), "revisited-0.75-refit-f6227cb39b"),
    ],
)
def test_runs_of_settings_that_have_not_changed_keep_their_names(found: Keys, run: Run, name: str) -> None:
    assert name_of(found, run) == name


def test_the_analysis_keeps_its_name() -> None:
    assert RunCache(Path(), Record.from_data).file("analysis", CARTPOLE.of_analysis()).stem == "analysis-fd07a31f51"


def other_strategy(name: str) -> Searched:
    chosen = METHODS[name]
    assert isinstance(chosen, Searched)
    return replace(chosen, strategy=lambda s: Sensitivity(evaluations=s.evaluations, points=(0.5,)))


CHANGES: dict[str, tuple[Any, str, Any]] = {
    "strategy": (methods, "METHODS", {**METHODS, "sensitivity": other_strategy("sensitivity")}),
    "seeds": (methods, "CHOICE_SEEDS", (1, 2)),
    "rows": (keys, "SEARCHED_ROWS", 100),
    "held out": (keys, "HELD_OUT", 0.5),
    "minibatches": (keys, "DISTILLED_ROWS", 7),
    "unseen": (keys, "UNSEEN", 0.3),
}


@pytest.mark.parametrize("what", CHANGES)
def test_runs_of_other_settings_in_the_code_have_another_name(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_of(CARTPOLE, SENSITIVITY)
    masked = name_of(CARTPOLE, Run("masked", "ln-structured", 0.1, False))
    module, constant, value = CHANGES[what]
    monkeypatch.setattr(module, constant, value)
    if what == "strategy":
        monkeypatch.setattr(keys, "METHODS", value)
    after = name_of(CARTPOLE, SENSITIVITY)
    assert after != before
    assert after == name_of(CARTPOLE, SENSITIVITY)
    assert (name_of(CARTPOLE, Run("masked", "ln-structured", 0.1, False)) != masked) == (what == "unseen")


def test_what_a_method_is_called_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = METHODS["sensitivity"]
    assert isinstance(chosen, Searched)
    monkeypatch.setattr(keys, "METHODS", {**METHODS, "sensitivity": replace(chosen, label="Sens.")})
    assert name_of(CARTPOLE, SENSITIVITY) == "sensitivity-0.97-refit-7ea0f22cef"


def test_a_method_whose_settings_have_changed_since_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    run, chosen = Run("method", "gradient", 0.97, True), METHODS["gradient"]
    assert isinstance(chosen, Searched)
    now = name_of(CARTPOLE, run)
    monkeypatch.setattr(keys, "METHODS", {**METHODS, "gradient": replace(chosen, minimum_width=1)})
    assert name_of(CARTPOLE, run) != now


def test_the_peers_settings_are_told_apart() -> None:
    one, other = (fingerprint(METHODS[name].settings) for name in ("torch-pruning", "torch-pruning-global"))
    assert one != other


def test_runs_on_other_visits_have_another_name() -> None:
    names = {name_of(replace(CARTPOLE, visits=visits), SENSITIVITY) for visits in (None, "a", "b")}
    assert len(names) == 3

"""The zoo's judge: a right library passes, and each way of being wrong fails the check that is meant for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur

# Not by import statements: mypy knows these modules by the names under which the benchmarks import each other.
case: Any = import_module("benchmarks.zoo.case")
summary: Any = import_module("benchmarks.zoo.summary").summary
Entry: Any = import_module("benchmarks.zoo.entry").Entry
Pruned: Any = import_module("benchmarks.zoo.libraries").Pruned
library_called: Any = import_module("benchmarks.zoo.libraries").library_called

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the zoo measures memory as Linux does"
)


class Tied(nn.Module):
    """An encoder and a decoder that share their middle layers' weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Linear(6, 12), nn.Linear(12, 8)
        self.up, self.last = nn.Linear(12, 8), nn.Linear(8, 3)
        self.up.weight = self.down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x).relu()
        return self.last((self.down(h) + self.up(h)).relu())


ENTRY = Entry("control/tied", Tied, lambda: (torch.randn(4, 6),))

Spoil = Callable[[Any], Any]


class _Wrong:
    """Secateur, with what it made spoiled afterwards."""

    name = "secateur"

    def __init__(self, spoil: Spoil | None = None, coefficient: float = 0.5, reload: Spoil | None = None) -> None:
        self._right: Any = library_called("secateur")
        self._spoil, self._coefficient, self._reload = spoil, coefficient, reload

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def prune(self, entry: Any, model: nn.Module, inputs: Any) -> Any:
        graph = secateur.trace(model, inputs)
        scores = secateur.importance.Magnitude()(graph, model)
        plan = secateur.plan(graph, scores, {group.name: self._coefficient for group in graph.groups})
        small = secateur.apply(model, plan)
        return Pruned(small if self._spoil is None else self._spoil(small), plan)

    def reloaded(self, entry: Any, pruned: Any, folder: Path) -> nn.Module:
        loaded: nn.Module = self._right.reloaded(entry, pruned, folder)
        return loaded if self._reload is None else self._reload(loaded)


def without_input(model: Any) -> Any:
    model.last = nn.Linear(1, 3)
    return model


def with_fewer_outputs(model: Any) -> Any:
    model.last = nn.Linear(model.last.in_features, 2)
    return model


def untied(model: Any) -> Any:
    model.up.weight = copy.deepcopy(model.up.weight)
    return model


def frozen(model: Any) -> Any:
    model.first.weight.requires_grad_(False)
    return model


def shifted(model: Any) -> Any:
    with torch.no_grad():
        model.last.bias.add_(1)
    return model


@pytest.fixture(autouse=True)
def _timed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case, "_REPEATS", 1)


def judged(library: Any) -> dict[str, Any]:
    record: dict[str, Any] = case.Case(ENTRY, library, lambda record: None).run()
    return record


def failed(record: dict[str, Any]) -> set[str]:
    return {name for name, check in record["checks"].items() if check["passed"] is False}


def test_a_right_library_is_fully_ok() -> None:
    record = judged(library_called("secateur"))
    assert record["fully_ok"], record["checks"]
    assert set(record["checks"]) == set(case.CHECKS)
    assert record["parameters"] < record["dense_parameters"]
    assert record["seconds"] > 0


@pytest.mark.parametrize(
    ("library", "check"),
    [
        (_Wrong(without_input), "runs"),
        (_Wrong(with_fewer_outputs), "shapes"),
        (_Wrong(untied), "ties"),
        (_Wrong(frozen), "training"),
        (_Wrong(coefficient=0.0), "enough"),
        (_Wrong(coefficient=0.0), "told"),
        (_Wrong(reload=shifted), "saved"),
    ],
    ids=["runs", "shapes", "ties", "training", "enough", "told", "saved"],
)
def test_every_way_to_be_wrong_fails_its_check(library: Any, check: str) -> None:
    record = judged(library)
    assert check in failed(record)
    assert not record["fully_ok"]


def test_the_summary_compares_times_where_both_are_right() -> None:
    def record(library: str, model: str, seconds: float, *, ok: bool = True) -> dict[str, Any]:
        checks = {name: {"passed": True, "text": ""} for name in case.CHECKS} | {"heads": {"passed": ok, "text": ""}}
        return {"model": model, "family": "timm", "library": library, "fully_ok": ok, "checks": checks} | {
            "seconds": seconds,
            "removed": 0.5,
        }

    ours = [record("secateur", "timm/a", 1.0), record("secateur", "timm/b", 3.0)]
    theirs = [record("torch-pruning", "timm/a", 2.0), record("torch-pruning", "timm/b", 1.0, ok=False)]
    found = summary({"secateur": ours, "torch-pruning": theirs})
    assert found["ratio"] == {"models": 2, "of_medians": 2 / 1.5, "median_of_ratios": (0.5 + 3) / 2}
    assert found["ratio_where_ok"] == {"models": 1, "of_medians": 0.5, "median_of_ratios": 0.5}

"""Weights that are trained along with the coefficients: what is measured on the way and at the end is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur
from secateur.allocation import (
    AllocationResult,
    Constraint,
    GradientDescent,
    Minimize,
    Progress,
    Search,
    Sparsity,
    allocate,
)
from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.allocation.objective import metric_name
from secateur.allocation.search import stored_searches
from secateur.errors import ObjectiveError
from tests.handmade import Chain

WIDTHS = (6, 12, 16, 4)
INPUTS = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))


def squared_error(model: nn.Module, batch: Tensor) -> Tensor:
    return F.mse_loss(model(batch), batch[:, :4])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is measured, and not looked up: the metrics' names."""
    real, names = Evaluator.__call__, list[str]()

    def counted(self: Evaluator, coefficients: Mapping[str, float]) -> Measurement:
        found = real(self, coefficients)
        names.append("" if self.objective is None else metric_name(self.objective))
        return found

    monkeypatch.setattr(Evaluator, "__call__", counted)
    return names


class Error:
    """An objective that may be interrupted."""

    name = "error"

    def __init__(self, *, interrupted: bool = False) -> None:
        self.interrupted = interrupted

    def __call__(self, model: nn.Module) -> float:
        if self.interrupted:
            raise KeyboardInterrupt
        return F.mse_loss(model(INPUTS), INPUTS[:, :4]).item()


def solved(
    objective: Any = None,
    storage: Path | None = None,
    *,
    loss: Any = squared_error,
    batches: Any = None,
    **settings: Any,
) -> AllocationResult:
    torch.manual_seed(0)
    model = Chain(WIDTHS)
    graph = secateur.trace(model, INPUTS)
    scores = secateur.importance.Magnitude()(graph, model)
    strategy = GradientDescent(loss, batches or [INPUTS] * 4, steps=5, weights=True, weight_learning_rate=0.02)
    return allocate(
        graph,
        scores,
        Sparsity(0.4, tolerance=0.05),
        strategy=strategy,
        model=model,
        objective=None if objective is None else Minimize(objective),
        search=Search(storage=storage, on_progress=settings.pop("on_progress", None)),
        **settings,
    )


def assert_same(one: AllocationResult, other: AllocationResult) -> None:
    assert one.kept == other.kept
    seconds = 0.0 if one.best is None else one.best.seconds
    assert one.best == (None if other.best is None else replace(other.best, seconds=seconds))
    assert one.weights is not None
    assert other.weights is not None
    assert all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())


def test_nothing_is_measured_twice(tmp_path: Path, measured: list[str]) -> None:
    storage = tmp_path / "search.db"
    first = solved(Error(), storage)
    count = len(measured)
    assert count > 2
    assert measured == ["loss"] * (count - 1) + ["error"]
    assert_same(solved(Error(), storage), first)
    assert len(measured) == count
    assert_same(solved(Error()), first)  # with or without a storage


def test_a_search_that_is_stopped_at_its_end_goes_on_there(tmp_path: Path, measured: list[str]) -> None:
    storage = tmp_path / "search.db"
    with pytest.raises(KeyboardInterrupt):
        solved(Error(interrupted=True), storage)
    assert set(measured) == {"loss"}
    measured.clear()
    result = solved(Error(), storage)
    assert measured == ["error"]
    assert_same(result, solved(Error()))


def test_what_is_measured_on_the_way_is_kept_without_an_objective(tmp_path: Path, measured: list[str]) -> None:
    storage = tmp_path / "search.db"
    first = solved(None, storage)
    count = len(measured)
    assert count > 2
    assert_same(solved(None, storage), first)
    assert len(measured) == count


def test_the_tables_are_found_in_the_storage(tmp_path: Path) -> None:
    storage = tmp_path / "search.db"
    solved(Error(), storage)
    names = sorted(search.name for search in stored_searches(storage))
    assert [name.rpartition(" ")[0] for name in names] == ["", "secateur (loss", "secateur (trained"]
    solved(Error(), storage, batches=[INPUTS * 0.5] * 4)  # another loss, and other weights
    names = sorted(search.name for search in stored_searches(storage))
    assert [name.rpartition(" ")[0] for name in names] == ["", *["secateur (loss"] * 2, *["secateur (trained"] * 2]


def test_those_who_look_on_are_told_of_the_result_alone() -> None:
    told: list[Progress] = []
    result = solved(Error(), on_progress=told.append)
    assert [(progress.done, progress.total) for progress in told] == [(1, 1)]
    assert result.best is not None
    assert told[0].best == result.best


def test_a_loss_that_fails_for_smaller_models_is_an_error() -> None:
    def fails(model: nn.Module, batch: Tensor) -> Tensor:
        if sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in Chain(WIDTHS).parameters()):
            raise ValueError("not to be judged")
        return F.mse_loss(model(batch), batch[:, :4])

    with pytest.raises(ObjectiveError, match="loss_fn failed: ValueError: not to be judged"):
        solved(loss=fails)


def test_constraints_are_held_against_the_trained_model() -> None:
    bounds = [Constraint(Error(), at_most=10.0)]
    result = solved(constraints=bounds)
    assert result.best is not None
    assert result.best.constraints["error"] < 10

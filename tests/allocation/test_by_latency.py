"""Targets of measured latency, with a clock that follows the model's width exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.allocation import Constraint, Random, Sparsity, Uniform, allocate, by_latency
from secateur.errors import ConstraintError, InfeasibleError
from secateur.latency import Latency


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], float]:
    """Latency of one unit, and one for every hundred parameters, so that its sparsity lies below that of the MACs."""

    def seconds(model: nn.Module) -> float:
        return 1 + sum(p.numel() for p in model.parameters()) / 100

    def measured(calls: Mapping[str, Any], **_: Any) -> dict[str, Latency]:
        return {name: Latency(seconds(call.args[0]), 0.0, 1, 1) for name, call in calls.items()}

    monkeypatch.setattr(by_latency, "measure_latency", measured)
    return seconds


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.8])
def test_the_clock_decides(clock: Callable[[nn.Module], float], rho: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    graph = secateur.trace(model, torch.zeros(1, 8))
    scores = secateur.importance.Magnitude()(graph, model)
    target = Sparsity(rho, of="latency", tolerance=0.02)
    result = allocate(graph, scores, target, model=model)
    small = secateur.apply(model, secateur.plan(graph, scores, result.coefficients))
    assert 1 - clock(small) / clock(model) == pytest.approx(rho, abs=0.02)
    assert result.sparsity == pytest.approx(1 - clock(small) / clock(model))
    assert result.target is target


def test_what_the_clock_never_shows_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(calls: Mapping[str, Any], **_: Any) -> dict[str, Latency]:
        return dict.fromkeys(calls, Latency(1.0, 0.0, 1, 1))

    monkeypatch.setattr(by_latency, "measure_latency", stopped)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    graph = secateur.trace(model, torch.zeros(1, 8))
    scores = secateur.importance.Magnitude()(graph, model)
    with pytest.raises(InfeasibleError, match=r"latency sparsity of 0\.5 .* the nearest measured is 0\.000"):
        allocate(graph, scores, Sparsity(0.5, of="latency"), model=model)


def first_width(model: nn.Module) -> float:
    return float(next(model.parameters()).shape[0])


def test_only_the_strategys_candidates_are_held_against_constraints(clock: Callable[[nn.Module], float]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    graph = secateur.trace(model, torch.zeros(1, 8))
    scores = secateur.importance.Magnitude()(graph, model)
    target = Sparsity(0.5, of="latency", tolerance=0.04)
    uniform = allocate(graph, scores, target, model=model)
    bound = Constraint(first_width, at_least=uniform.kept["0"] + 8)
    with pytest.raises(ConstraintError, match="no candidate satisfies every constraint"):
        allocate(graph, scores, target, strategy=Uniform(), model=model, constraints=[bound])
    strategy = Random(draws=20)
    result = allocate(graph, scores, target, strategy=strategy, model=model, constraints=[bound])
    assert result.best is not None
    assert result.kept["0"] == result.best.constraints["first_width"] >= uniform.kept["0"] + 8
    assert result.best in result.history
    assert len(result.history) % 20 == 0  # of the strategy's searches, and none of uniform's


def test_measuring_leaves_the_model_and_the_random_state() -> None:
    torch.manual_seed(0)
    layers = nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 2)
    model = nn.Sequential(*layers).train()
    inputs = torch.randn(4, 8)
    graph = secateur.trace(model, inputs)
    scores = secateur.importance.Magnitude()(graph, model)
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    allocate(graph, scores, Sparsity(0.5, of="latency", tolerance=0.99), model=model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_real_clock_on_a_wide_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 16))
    inputs = torch.zeros(64, 256)
    result = secateur.prune(model, inputs, target=0.5, of="latency", tolerance=0.15)
    assert abs(result.allocation.sparsity - 0.5) <= 0.15
    assert result.after.macs < result.before.macs

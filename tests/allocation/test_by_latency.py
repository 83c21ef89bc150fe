"""Targets of measured latency, with a clock that follows the model's width exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.allocation import Sparsity, allocate, by_latency
from secateur.errors import InfeasibleError
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


def test_a_real_clock_on_a_wide_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 16))
    inputs = torch.zeros(64, 256)
    result = secateur.prune(model, inputs, target=0.5, of="latency", tolerance=0.15)
    assert abs(result.allocation.sparsity - 0.5) <= 0.15
    assert result.after.macs < result.before.macs

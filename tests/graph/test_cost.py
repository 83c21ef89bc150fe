"""The closed-form cost: any kept counts, any batch of them, always what counting gives."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from secateur.errors import PlanError
from secateur.graph import DependencyGraph, trace
from secateur.plan import plan
from secateur.surgery import apply
from tests.models.case import Case
from tests.models.control import WorldModel, rollout
from tests.models.zoo import CASES
from tests.removal import counted_macs, counted_parameters

BY_NAME = {case.name: case for case in CASES}
SAMPLE = (
    "mlp",
    "unet",
    "resnet-bottleneck",
    "densenet",
    "resnext",
    "attention-chunk",
    "vit",
    "tied-transposed",
    "lstm",
)


@lru_cache
def traced(name: str) -> tuple[nn.Module, Any, DependencyGraph]:
    case = BY_NAME[name]
    model, run = case.model(), case.entry_point()
    return model, run, trace(model, run=run)


def kept_units(graph: DependencyGraph, data: st.DataObject) -> dict[str, int]:
    """Units kept, one draw per tie, as kept channels per group."""
    kept = {}
    for tie in graph.ties:
        units = data.draw(st.integers(1, graph.groups[tie[0]].units))
        kept.update({graph.groups[i].name: graph.groups[i].size * units // graph.groups[i].units for i in tie})
    return kept


@pytest.mark.parametrize("name", SAMPLE)
@settings(max_examples=12)
@given(data=st.data())
def test_any_kept_counts_cost_what_is_counted(name: str, data: st.DataObject) -> None:
    model, run, graph = traced(name)
    kept = kept_units(graph, data)
    coefficients = {g.name: 1 - kept[g.name] / g.size for g in graph.groups}
    small = apply(model, plan(graph, {g.name: np.arange(g.size, dtype=float) for g in graph.groups}, coefficients))
    cost = graph.cost(kept)
    assert cost.parameters == counted_parameters(small)
    assert cost.macs == counted_macs(run, small)


@pytest.mark.parametrize("name", SAMPLE)
@settings(max_examples=25)
@given(data=st.data())
def test_a_batch_is_its_rows(name: str, data: st.DataObject) -> None:
    graph = traced(name)[2]
    rows = [kept_units(graph, data) for _ in range(data.draw(st.integers(1, 4)))]
    matrix = np.stack([graph.kept_vector(row) for row in rows])
    model = graph.cost_model
    assert model.parameters(matrix).tolist() == [graph.cost(row).parameters for row in rows]
    assert model.macs(matrix).tolist() == [graph.cost(row).macs for row in rows]
    stacked = np.stack([matrix, matrix[::-1]])
    assert model.macs(stacked).shape == (2, len(rows))
    assert np.array_equal(model.macs(stacked)[1], model.macs(matrix)[::-1])
    for of in ("params", "macs"):
        parts = model.by_component(matrix, of=of)
        total = model.parameters(matrix) if of == "params" else model.macs(matrix)
        assert parts.shape == (len(rows), len(graph.components))
        assert np.array_equal(parts.sum(axis=-1), total)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_removed_costs_the_dense_model(case: Case) -> None:
    model, run, graph = traced(case.name)
    cost = graph.cost()
    assert cost.parameters == counted_parameters(model)
    if case.counted:
        assert cost.macs == counted_macs(run, model)
    assert sum(part.parameters for part in cost.by_component.values()) == cost.parameters
    assert sum(part.macs for part in cost.by_component.values()) == cost.macs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cost_never_rises_when_channels_leave(case: Case) -> None:
    graph = traced(case.name)[2]
    dense = graph.cost()
    for group in graph.groups:
        tied = [g for g in graph.groups if g.tie == group.tie]
        less = graph.cost({g.name: g.size - g.step for g in tied})
        assert less.parameters < dense.parameters
        assert less.macs <= dense.macs


def test_cost_is_bilinear_in_neighbouring_widths() -> None:
    """784-like chain a-b-c: parameters are (in + 1) a + (a + 1) b + (b + 1) out for every a and b."""
    model = nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    graph = trace(model, torch.randn(3, 7))
    a, b = np.meshgrid(np.arange(1, 21), np.arange(1, 31), indexing="ij")
    kept = np.stack([a, b], axis=-1)
    assert np.array_equal(graph.cost_model.parameters(kept), 8 * a + (a + 1) * b + (b + 1) * 4)
    assert np.array_equal(graph.cost_model.macs(kept), 3 * (7 * a + a * b + 4 * b))


def test_macs_count_rows_calls_and_positions() -> None:
    linear = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    once = trace(linear, torch.randn(5, 6)).cost().macs
    assert once == 5 * (6 * 8 + 8 * 2)
    assert trace(linear, torch.randn(5, 4, 6)).cost().macs == 4 * once
    assert trace(linear, run=lambda m: [m(torch.randn(5, 6)) for _ in range(3)]).cost().macs == 3 * once
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    assert trace(conv, torch.randn(2, 3, 8, 8)).cost().macs == 2 * 16 * 8 * 3 * 9
    transposed = nn.ConvTranspose2d(3, 8, 2, stride=2)
    assert trace(transposed, torch.randn(2, 3, 4, 4)).cost().macs == 2 * 16 * 8 * 3 * 4
    depthwise = nn.Conv1d(6, 12, 5, groups=6)
    assert trace(depthwise, torch.randn(2, 6, 9)).cost().macs == 2 * 5 * 12 * 5


def test_twice_the_width_costs_four_times_the_middle() -> None:
    def cost(width: int) -> int:
        model = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False))
        return trace(model, torch.randn(1, width)).cost().parameters

    assert cost(16) == 4 * cost(8)


def test_shared_weights_are_counted_once_and_used_twice() -> None:
    case = BY_NAME["tied-layers"]
    cost = traced(case.name)[2].cost()
    assert cost.parameters == 7 * 10 + (10 * 10 + 10 + 10) + 11 * 3
    assert cost.macs == 4 * (6 * 10 + 2 * 10 * 10 + 10 * 3)


def test_products_between_activations_are_counted() -> None:
    """Attention's own products: 2 batch x 3 heads x 4 x 4 positions x 4 channels, for the logits and for the values."""
    cost = traced("attention-separate")[2].cost()
    linear = 2 * 4 * (5 * 12 + 4 * 12 * 12 + 12 * 2)
    assert cost.macs == linear + 2 * (2 * 3 * 4 * 4 * 4)


def test_buffers_cost_nothing() -> None:
    graph = traced("channel-buffers")[2]
    assert graph.cost().parameters == 6 * 10 + 10 + 10 * 3 + 3
    assert any(p.is_buffer for p in graph.parameters)


def test_components_pay_for_their_own() -> None:
    model = WorldModel().double()
    graph = trace(model, run=rollout())
    dense, less = graph.cost(), graph.cost({"Q1.0": 4})
    changed = {name for name, part in less.by_component.items() if part != dense.by_component[name]}
    assert changed == {"Q1"}
    latent = graph.cost({"encoder.2": 6})
    assert all(part.parameters < dense.by_component[name].parameters for name, part in latent.by_component.items())


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"0": 0}, r"group '0' has 10 channels; 0 can't be kept"),
        ({"0": 11}, r"11 can't be kept"),
        ({"1": 3}, r"no channel group is called '1'"),
    ],
)
def test_counts_that_can_not_be(kept: dict[str, int], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        traced("mlp")[2].cost(kept)

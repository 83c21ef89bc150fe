"""What every allocation strategy must do, whatever it searches by. A new strategy joins the list."""

from __future__ import annotations

import pytest

from secateur.allocation import Sparsity, Strategy, Uniform, allocate
from secateur.errors import TargetError
from secateur.plan import plan
from tests.handmade import GraphSketch, GroupSketch, linear_chain, random_scores

STRATEGIES: list[Strategy] = [Uniform()]

TARGETS = [
    Sparsity(0.3),
    Sparsity(0.6, of="macs"),
    Sparsity(0.5, tolerance=0.03, round_to=4, minimum_width=12),
    Sparsity(components={"c0": 0.4}),
    Sparsity(0.5, components={"c0": 0.3, "c1": 0.6}),
]


@pytest.fixture(params=STRATEGIES, ids=lambda s: type(s).__name__)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    found: Strategy = request.param
    return found


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_target_is_met_as_surgery_counts(strategy: Strategy, target: Sparsity) -> None:
    graph = linear_chain([48, 64, 56, 40, 56, 64, 48], per_component=2).graph()
    scores = random_scores(graph)
    result = allocate(graph, scores, target, strategy=strategy)

    kept = {name: len(channels) for name, channels in plan(graph, scores, result.coefficients).groups.items()}
    assert kept == result.kept
    assert result.coefficients == {g.name: 1 - kept[g.name] / g.size for g in graph.groups}
    small, dense = graph.cost(kept), graph.cost()
    name = "parameters" if target.of == "params" else "macs"
    assert result.sparsity == 1 - getattr(small, name) / getattr(dense, name)
    for component, cost in small.by_component.items():
        achieved = 1 - getattr(cost, name) / getattr(dense.by_component[component], name)
        assert result.component_sparsities[component] == pytest.approx(achieved, abs=1e-12)
        assert abs(achieved - target.components.get(component, achieved)) <= target.tolerance
    if target.rho is not None:
        assert abs(result.sparsity - target.rho) <= target.tolerance
    assert all(kept[g.name] == g.size or kept[g.name] % target.round_to == 0 for g in graph.groups)
    assert all(kept[g.name] >= target.minimum_width for g in graph.groups)

    assert result.target is target
    assert result.history[-1].coefficients == result.coefficients
    assert result.history[-1].sparsity == result.sparsity


def test_tied_groups_keep_equal_fractions(strategy: Strategy) -> None:
    shapes = {"c.a": (8, 5), "c.b": (16, 5), "c.d": (10, 7)}
    sketches = [
        GroupSketch("a", 8, {("c.a", 0): None}, tie=0, units=8),
        GroupSketch("b", 16, {("c.b", 0): None}, tie=0, units=8),
        GroupSketch("d", 10, {("c.d", 0): None}, tie=1),
    ]
    graph = GraphSketch(shapes, sketches).graph()
    for rho in (0.2, 0.4, 0.6, 0.8):
        result = allocate(graph, random_scores(graph), Sparsity(rho, tolerance=0.05), strategy=strategy)
        assert result.coefficients["a"] == result.coefficients["b"]


def test_units_are_never_split(strategy: Strategy) -> None:
    graph = linear_chain([8, 12, 12, 12, 8], units=[3, 6, 12]).graph()
    for rho in (0.2, 0.4, 0.6, 0.8):
        kept = allocate(graph, random_scores(graph), Sparsity(rho, tolerance=0.1), strategy=strategy).kept
        assert kept["c0.0"] % 4 == 0
        assert kept["c1.0"] % 2 == 0


def test_what_cannot_be_met_is_an_error(strategy: Strategy) -> None:
    graph = linear_chain([4, 2, 4]).graph()
    with pytest.raises(TargetError, match=r"0\.4091"):
        allocate(graph, random_scores(graph), Sparsity(0.9), strategy=strategy)

from __future__ import annotations

import re
import time
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from secateur.allocation import AllocationResult, Sparsity, allocate
from secateur.errors import ScoreError, TargetError
from secateur.graph.graph import DependencyGraph
from secateur.plan import plan
from tests.handmade import GraphSketch, GroupSketch, linear_chain, random_scores


def solve(graph: DependencyGraph, target: Sparsity) -> AllocationResult:
    return allocate(graph, random_scores(graph), target)


def true_sparsity(graph: DependencyGraph, kept: dict[str, int], of: str = "params") -> float:
    small, dense = graph.cost(kept), graph.cost()
    return 1 - small.parameters / dense.parameters if of == "params" else 1 - small.macs / dense.macs


def common_coefficients(graph: DependencyGraph) -> list[dict[str, int]]:
    """Kept counts of every group, for every common coefficient there is, by brute force over a fine grid."""
    grid = np.linspace(0, 1, 4001)[:-1]
    found = {tuple(max(1, int((1 - c) * g.units + 0.5)) * g.step for g in graph.groups): None for c in grid}
    return [dict(zip((g.name for g in graph.groups), kept, strict=True)) for kept in found]


autoencoder = [784, 512, 256, 64, 256, 512, 784]


@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("rho", [0.1, 0.2, 0.5, 0.7, 0.85, 0.97])
def test_the_target_is_met_with_one_coefficient(rho: float, of: str) -> None:
    graph = linear_chain(autoencoder, per_component=3).graph()
    result = solve(graph, Sparsity(rho, of=of))
    assert abs(result.sparsity - rho) <= 0.01
    assert result.sparsity == true_sparsity(graph, dict(result.kept), of)
    coefficients = [result.coefficients[g.name] for g in graph.groups]
    assert max(coefficients) - min(coefficients) <= 1 / 64
    assert result.kept in common_coefficients(graph)


def test_the_result_is_what_the_plan_does() -> None:
    graph = linear_chain(autoencoder, per_component=3).graph()
    result = solve(graph, Sparsity(0.5))
    made = plan(graph, random_scores(graph), result.coefficients)
    assert {name: len(kept) for name, kept in made.groups.items()} == result.kept
    assert made.coefficients == result.coefficients
    cost, dense = graph.cost(dict(result.kept)).by_component, graph.cost().by_component
    assert result.component_sparsities == {
        name: pytest.approx(1 - cost[name].parameters / dense[name].parameters) for name in ("c0", "c1")
    }
    assert [(e.coefficients, e.sparsity, e.objective) for e in result.history] == [
        (result.coefficients, result.sparsity, None)
    ]


@given(
    widths=st.lists(st.integers(1, 12), min_size=3, max_size=6),
    rho=st.floats(0.01, 0.99),
    of=st.sampled_from(["params", "macs"]),
)
def test_the_nearest_common_coefficient_is_found(widths: list[int], rho: float, of: str) -> None:
    graph = linear_chain(widths).graph()
    errors = [abs(true_sparsity(graph, kept, of) - rho) for kept in common_coefficients(graph)]
    assume(min(errors) < 0.05)
    result = solve(graph, Sparsity(rho, tolerance=0.05, of=of))
    assert abs(result.sparsity - rho) == pytest.approx(min(errors), abs=1e-9)


@given(
    widths=st.lists(st.integers(1, 7), min_size=3, max_size=5),
    rho=st.floats(0.02, 0.98),
    tolerance=st.sampled_from([1e-6, 1e-3, 0.02]),
)
def test_between_common_coefficients_single_groups_differ_by_one_step(
    widths: list[int], rho: float, tolerance: float
) -> None:
    """Against brute force: every combination of kept counts, each beside a neighbouring common coefficient's."""
    graph = linear_chain(widths).graph()
    names = [g.name for g in graph.groups]
    uniform = sorted((true_sparsity(graph, kept), list(kept.values())) for kept in common_coefficients(graph))
    below = [kept for sparsity, kept in uniform if sparsity <= rho]
    above = [kept for sparsity, kept in uniform if sparsity > rho]
    low, high = below[-1], (above or below[-1:])[0]
    choices = [range(max(1, h - 1), min(g.size, n + 1) + 1) for n, h, g in zip(low, high, graph.groups, strict=True)]
    kept_counts = [dict(zip(names, map(int, counts), strict=True)) for counts in product(*choices)]
    reachable = [true_sparsity(graph, kept) for kept in kept_counts] if above else [uniform[-1][0]]
    best = min(abs(s - rho) for s in reachable)
    if best <= tolerance:
        assert abs(solve(graph, Sparsity(rho, tolerance=tolerance)).sparsity - rho) <= tolerance + 1e-12
        return
    with pytest.raises(TargetError) as raised:
        solve(graph, Sparsity(rho, tolerance=tolerance))
    for named in named_values(raised.value):
        if 0 < named < 1:
            assert solve(graph, Sparsity(named, tolerance=max(tolerance, 1e-4))).sparsity == pytest.approx(
                named, abs=1e-4
            )
            assert any(abs(named - s) < 1e-4 for s in reachable)


def named_values(error: Exception) -> list[float]:
    return [float(v) for v in re.findall(r"\d\.?\d*(?:e-\d+)?", str(error).split("can't be met")[1])]


def test_equal_groups_are_told_apart_when_their_common_step_is_too_long() -> None:
    graph = linear_chain([16] * 41).graph()
    result = solve(graph, Sparsity(0.5, tolerance=1e-3))
    assert abs(result.sparsity - 0.5) <= 1e-3
    assert max(result.kept.values()) - min(result.kept.values()) <= 2


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.8])
def test_widths_are_multiples_and_not_too_small(rho: float) -> None:
    graph = linear_chain([784, 512, 100, 6, 256, 512, 784]).graph()
    result = solve(graph, Sparsity(rho, tolerance=0.03, round_to=8, minimum_width=64))
    assert abs(result.sparsity - rho) <= 0.03
    assert result.kept["c2.0"] == 6
    for group in graph.groups:
        kept = result.kept[group.name]
        assert kept % 8 == 0 or kept == group.size
        assert kept >= min(64, group.size)


def test_groups_narrower_than_the_multiple_stay_whole() -> None:
    graph = linear_chain([32, 64, 6, 32]).graph()
    kept = solve(graph, Sparsity(0.5, tolerance=0.08, round_to=8)).kept
    assert kept["c0.0"] % 8 == 0
    assert kept["c0.0"] < 64
    assert kept["c1.0"] == 6


def test_targets_of_components() -> None:
    graph = linear_chain(autoencoder, per_component=2).graph()
    result = solve(graph, Sparsity(components={"c0": 0.3, "c2": 0.6}))
    assert abs(result.component_sparsities["c0"] - 0.3) <= 0.01
    assert abs(result.component_sparsities["c2"] - 0.6) <= 0.01
    internal = {g.name for g in graph.groups if g.components in (("c0",), ("c2",))}
    assert {name for name, c in result.coefficients.items() if c > 0} == internal


@pytest.mark.parametrize("of", ["params", "macs"])
def test_a_total_target_beside_those_of_components(of: str) -> None:
    graph = linear_chain([64, 96, 80, 48, 80, 96, 64], per_component=2).graph()
    result = solve(graph, Sparsity(0.5, of=of, components={"c0": 0.3, "c1": 0.7}))
    assert abs(result.sparsity - 0.5) <= 0.01
    assert abs(result.component_sparsities["c0"] - 0.3) <= 0.01
    assert abs(result.component_sparsities["c1"] - 0.7) <= 0.01


# Wrong input, and targets that can't be met


def test_what_cannot_be_met_names_the_nearest_that_can() -> None:
    graph = linear_chain([4, 2, 4]).graph()  # 22 parameters; 13 with one hidden channel
    with pytest.raises(
        TargetError, match=r"0\.2 \(params, within 0\.01\) can't be met: the nearest that can be met are"
    ) as raised:
        solve(graph, Sparsity(0.2))
    assert named_values(raised.value) == [0, pytest.approx(9 / 22, abs=1e-4)]
    assert "0 (nothing removed)" in str(raised.value)
    with pytest.raises(TargetError, match=r"0\.9 .* can't be met: the largest possible is 0\.4091"):
        solve(graph, Sparsity(0.9))


def test_a_fine_tolerance_gets_as_many_digits_as_it_needs() -> None:
    graph = linear_chain([4, 3, 4]).graph()
    with pytest.raises(TargetError, match=r"are 0\.290322580645 and 0\.58064516129") as raised:
        solve(graph, Sparsity(0.5, tolerance=1e-9))
    assert solve(graph, Sparsity(named_values(raised.value)[0], tolerance=1e-9)).kept == {"c0.0": 2}


def test_limits_bound_what_is_possible() -> None:
    graph = linear_chain([64, 64, 64]).graph()
    with pytest.raises(TargetError, match=r"the largest possible is 0\.49"):
        solve(graph, Sparsity(0.8, minimum_width=32))


def test_a_component_target_that_cannot_be_met() -> None:
    graph = linear_chain(autoencoder, per_component=3).graph()
    with pytest.raises(TargetError, match=r"a sparsity of component 'c0' of 0\.999 .* the largest possible is 0\.9"):
        solve(graph, Sparsity(components={"c0": 0.999}, tolerance=1e-4))


def test_targets_that_contradict_each_other() -> None:
    graph = linear_chain(autoencoder, per_component=3).graph()
    with pytest.raises(
        TargetError, match=r"of 0\.2 .* together with the other targets: the smallest possible is 0\.[89]"
    ):
        solve(graph, Sparsity(0.2, components={"c0": 0.9, "c1": 0.9}))


def test_an_unknown_component() -> None:
    graph = linear_chain([4, 8, 8, 4]).graph()
    with pytest.raises(TargetError, match="no component is called 'encoder'; there are 'c0', 'c1', 'c2'"):
        solve(graph, Sparsity(components={"encoder": 0.5}))


def test_a_component_without_groups_of_its_own() -> None:
    graph = linear_chain([4, 8, 8, 4]).graph()
    with pytest.raises(TargetError, match=r"component 'c0' of 0\.5 .* can't be met: no channel group serves it"):
        solve(graph, Sparsity(components={"c0": 0.5}))


def test_a_graph_without_groups() -> None:
    graph = GraphSketch({"c.w": (4, 4)}, []).graph()
    with pytest.raises(TargetError, match="can't be met: no channel group serves it"):
        allocate(graph, {}, Sparsity(0.5))


def test_a_cost_that_there_is_none_of() -> None:
    graph = GraphSketch({"c.w": (4, 4)}, [GroupSketch("g", 4, {("c.w", 0): None})]).graph()
    with pytest.raises(TargetError, match="the model has no macs to remove"):
        solve(graph, Sparsity(0.5, of="macs"))


def test_scores_are_checked() -> None:
    graph = linear_chain([4, 8, 4]).graph()
    with pytest.raises(ScoreError, match=r"'c0\.0' are not finite"):
        allocate(graph, {"c0.0": np.full(8, np.nan)}, Sparsity(0.5))
    with pytest.raises(ScoreError, match=r"group 'c0\.0' has no scores"):
        allocate(graph, {}, Sparsity(0.5))


def test_a_bare_number_is_no_target() -> None:
    graph = linear_chain([4, 8, 4]).graph()
    with pytest.raises(TargetError, match=r"must be a Sparsity, such as Sparsity\(0\.5\), or Smallest\(\), not 0\.5"):
        allocate(graph, random_scores(graph), 0.5)  # type: ignore[arg-type]


def test_a_thousand_groups_take_seconds_at_most() -> None:
    graph = linear_chain([16] * 1002).graph()
    start = time.perf_counter()
    assert abs(solve(graph, Sparsity(0.5, tolerance=1e-4)).sparsity - 0.5) <= 1e-4
    assert time.perf_counter() - start < 10

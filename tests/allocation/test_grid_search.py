from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from secateur.allocation import GridSearch, Sparsity, Uniform, grid_search
from secateur.errors import InfeasibleError, ObjectiveError, SearchError
from tests.allocation.formula import every_level, posed
from tests.handmade import GraphSketch, linear_chain

GRAPH = linear_chain([20, 30, 40, 24, 20], per_component=2).graph()
NAMES = [g.name for g in GRAPH.groups]
COEFFICIENTS = (0.0, 0.2, 0.4, 0.5, 0.8)


def uneven(kept: dict[str, float] | object) -> float:
    widths = np.array([kept[name] for name in NAMES])  # type: ignore[index]
    return float(-np.sum(np.array([1.0, 5.0, 2.0]) * (1 - widths) ** 2))


def combinations(rho: float, tolerance: float) -> set[tuple[int, ...]]:
    """Kept counts of all combinations that meet the target, by brute force."""
    found = set()
    for coefficients in product(COEFFICIENTS, repeat=3):
        counts = {g.name: round((1 - c) * g.size) for g, c in zip(GRAPH.groups, coefficients, strict=True)}
        sparsity = 1 - GRAPH.cost(counts).parameters / GRAPH.cost().parameters
        if abs(sparsity - rho) <= tolerance:
            found.add(tuple(counts.values()))
    return found


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.7])
def test_all_combinations_on_the_target_are_measured_and_no_others(rho: float) -> None:
    problem, measurements = posed(GRAPH, Sparsity(rho, tolerance=0.04), uneven)
    result = GridSearch(coefficients=COEFFICIENTS)(problem)
    expected = combinations(rho, 0.04)
    assert {tuple(e.kept.values()) for e in result.history} == expected
    assert len(result.history) == measurements.expected == len(expected) > 1
    assert result.best is not None
    assert result.best.objective == max(e.objective for e in result.history)  # type: ignore[type-var]


def test_combinations_come_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5, tolerance=0.04), uneven)
    whole = GridSearch(coefficients=COEFFICIENTS)(problem)
    monkeypatch.setattr(grid_search, "_CHUNK", 7)
    assert GridSearch(coefficients=COEFFICIENTS)(problem).history == whole.history


@pytest.mark.parametrize("rho", [0.05, 0.2, 0.5, 0.8, 0.93])
@pytest.mark.parametrize("levels", [3, 4, 5, 6])
def test_uniform_coefficients_are_on_the_default_grid(levels: int, rho: float) -> None:
    problem, _ = posed(GRAPH, Sparsity(rho, tolerance=0.03), uneven)
    result = GridSearch(levels=levels)(problem)
    assert Uniform()(problem).kept in [e.kept for e in result.history]
    for group in GRAPH.groups:
        assert len({e.kept[group.name] for e in result.history}) <= levels


def test_the_default_grid_reaches_from_nothing_to_where_a_group_meets_the_target_alone() -> None:
    graph = linear_chain([40, 10, 40, 10, 40]).graph()
    problem, _ = posed(graph, Sparsity(0.3, tolerance=0.02), lambda kept: kept["c0.0"] + kept["c1.0"])
    assert list(GridSearch(levels=5)(problem).kept.values()) == [10, 40, 4]


def test_a_fine_grid_finds_the_best_there_is() -> None:
    graph = linear_chain([6, 8, 8, 6]).graph()
    problem, _ = posed(graph, Sparsity(0.4, tolerance=0.05), lambda kept: -((kept["c0.0"] - 0.9) ** 2))
    best = GridSearch(coefficients=[i / 8 for i in range(8)])(problem).best
    everything = problem.evaluate(list(every_level(problem)))
    assert best is not None
    assert best.objective == max(e.objective for e in everything)  # type: ignore[type-var]


# Wrong input, and grids that don't work


def test_more_combinations_than_may_be_measured() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.5, tolerance=0.04), uneven)
    count = len(combinations(0.5, 0.04))
    with pytest.raises(
        SearchError, match=rf"{count} of the grid's 125 combinations meet the target, more than"
    ) as raised:
        GridSearch(coefficients=COEFFICIENTS, max_evaluations=count - 1)(problem)
    assert f"max_evaluations={count - 1}; raise it, or take fewer levels" in str(raised.value)
    assert measurements.batches == []
    assert len(GridSearch(coefficients=COEFFICIENTS, max_evaluations=count)(problem).history) == count


def test_more_combinations_than_can_be_gone_through() -> None:
    graph = linear_chain([16] * 22).graph()
    problem, _ = posed(graph, Sparsity(0.5), lambda kept: 0.0)
    with pytest.raises(SearchError, match=r"the grid has 95,367,431,640,625 combinations, too many to go through"):
        GridSearch(coefficients=(0, 0.25, 0.5, 0.75, 0.875))(problem)


def test_a_grid_that_misses_the_target_names_what_it_reaches() -> None:
    problem, _ = posed(linear_chain([10, 10, 10]).graph(), Sparsity(0.45), uneven)
    # 220 parameters; each channel that leaves takes 21 of them.
    with pytest.raises(
        InfeasibleError, match=r"a sparsity of 0\.45 \(params, within 0\.01; its nearest: 0\.1909 and 0\.4773\)"
    ) as raised:
        GridSearch(coefficients=(0, 0.2, 0.5))(problem)
    assert "take more levels, other coefficients or a larger tolerance" in str(raised.value)
    with pytest.raises(InfeasibleError, match=r"its nearest: 0\.1909\)"):
        GridSearch(coefficients=(0, 0.2))(problem)


def test_a_grid_that_misses_a_components_target() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5, components={"c0": 0.3}), uneven)
    with pytest.raises(InfeasibleError, match=r"of component 'c0' of 0\.3 .*; together with a sparsity of 0\.5"):
        GridSearch(coefficients=(0, 0.9))(problem)


def test_a_graph_without_groups() -> None:
    problem, _ = posed(GraphSketch({"c.w": (4, 4)}, []).graph(), Sparsity(0.5), lambda kept: 0.0, scores={})
    for grid in (GridSearch(), GridSearch(coefficients=(0, 0.5))):
        with pytest.raises(InfeasibleError, match="no channel group serves it"):
            grid(problem)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": 1}, "levels must be a whole number, at least 2; it is 1"),
        ({"levels": 2.5}, "levels must be a whole number, at least 2; it is 2.5"),
        ({"max_evaluations": 0}, "max_evaluations must be a whole number, at least 1; it is 0"),
        ({"coefficients": (0.5, 1.0)}, r"the grid's coefficients must lie in \[0, 1\); they are \(0.5, 1.0\)"),
        ({"coefficients": 0.5}, r"the grid's coefficients must lie in \[0, 1\); they are 0.5"),
        ({"coefficients": "half"}, r"the grid's coefficients must lie in \[0, 1\); they are 'half'"),
        ({"coefficients": ("a",)}, r"the grid's coefficients must lie in \[0, 1\); they are \('a',\)"),
        ({"coefficients": ()}, r"the grid's coefficients must lie in \[0, 1\); they are \(\)"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        GridSearch(**settings)  # type: ignore[arg-type]


def test_coefficients_may_be_an_array_or_an_iterator() -> None:
    given = (0.25, 0.5)
    for coefficients in (np.array(given), iter(given), list(given)):
        assert GridSearch(coefficients=coefficients) == GridSearch(coefficients=given)  # type: ignore[arg-type]


def test_it_needs_something_to_compare_by() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5))
    with pytest.raises(ObjectiveError, match="give objective="):
        GridSearch()(problem)

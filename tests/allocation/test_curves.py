"""Curves of single groups, the allocation they suggest, and swaps, against brute force."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from secateur.allocation import Constraint, Minimize, Sparsity
from secateur.allocation.curves import Curves, curve_candidates, measured_curves, suggested
from secateur.allocation.swaps import SwapSearch
from tests.allocation.formula import best_value, every_level, posed
from tests.handmade import GraphSketch, GroupSketch, linear_chain

GRAPH = linear_chain([12, 16, 20, 12, 12]).graph()
NAMES = [g.name for g in GRAPH.groups]
WEIGHTS = np.array([1.0, 6.0, 0.3])


def additive(kept: Mapping[str, float]) -> float:
    """Losses of the groups add: each grows with the square of the logarithm of how much narrower it is."""
    return float(7.0 - np.sum(WEIGHTS * np.log([kept[n] for n in NAMES]) ** 2))


def entangled(kept: Mapping[str, float]) -> float:
    """Losses don't add: the narrowest of the groups, nearly, decides."""
    return float(-np.log(np.sum(np.array([1.0, 3.0, 0.5]) / np.array([kept[n] for n in NAMES]) ** 4)))


# --- curves -----------------------------------------------------------------------------------------------------------


def test_every_variable_is_measured_alone() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.5), additive)
    curves = measured_curves(problem, (0.5, 0.75))
    assert [e.kept for e in curves.evaluations] == [
        {name: counts[i] for i, name in enumerate(NAMES)}
        for counts in [(16, 20, 12), (8, 20, 12), (4, 20, 12), (16, 10, 12), (16, 5, 12), (16, 20, 6), (16, 20, 3)]
    ]
    assert measurements.batches == [list(curves.evaluations)]


def test_curves_pass_through_what_was_measured_and_never_fall() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5), additive)
    curves = measured_curves(problem, (0.5, 0.75))
    for weight, losses, fractions in zip(WEIGHTS, curves.losses, problem.fractions, strict=True):
        assert losses.shape == fractions.shape
        for fraction in (1.0, 0.5, 0.25):
            (level,) = np.flatnonzero(fractions == fraction)
            assert losses[level] == pytest.approx(weight * np.log(fraction) ** 2, abs=1e-12)
        assert (np.diff(losses) >= 0).all()
        # Beyond the last point a straight line in the logarithm, as steep as between the last two points.
        slope = weight * (np.log(4) ** 2 - np.log(2) ** 2) / np.log(2)
        assert losses[-1] == pytest.approx(weight * np.log(4) ** 2 + slope * np.log(0.25 / fractions[-1]))
        # Between the points, near the truth.
        inside = fractions >= 0.25
        assert losses[inside] == pytest.approx(weight * np.log(fractions[inside]) ** 2, abs=0.1 * weight)


def test_less_is_better_where_the_objective_says_so() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5), additive)
    minimized, _ = posed(GRAPH, Sparsity(0.5), lambda kept: -additive(kept), wrap=Minimize)
    pairs = zip(measured_curves(problem, (0.6,)).losses, measured_curves(minimized, (0.6,)).losses, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_a_gain_counts_as_no_loss() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5), lambda kept: -kept[NAMES[0]])
    assert not any(losses.any() for losses in measured_curves(problem, (0.3, 0.6)).losses)


def test_points_that_fail_leave_a_gap() -> None:
    def failing(kept: Mapping[str, float]) -> float:
        if kept[NAMES[0]] == 0.5 or kept[NAMES[1]] < 1:
            raise ArithmeticError("too narrow")
        return additive(kept)

    problem, _ = posed(GRAPH, Sparsity(0.5), failing)
    first, second, third = measured_curves(problem, (0.5, 0.75)).losses
    assert first[12] == pytest.approx(np.log(4) ** 2)
    assert 0 < first[8] < np.log(4) ** 2
    assert not second.any()
    assert third[6] == pytest.approx(0.3 * np.log(2) ** 2)


def test_points_are_different_widths() -> None:
    problem, _ = posed(linear_chain([4, 3, 8, 4]).graph(), Sparsity(0.4, round_to=2), additive)
    points = curve_candidates(problem, (0.01, 0.3, 0.35, 0.9))
    # The first group, of 3 channels, keeps 3 or 2; the other of 8 keeps 8, 6, 4 or 2, nearest to 8, 6, 6 and 2 (or 0).
    assert [(v, problem.kept(levels).tolist()) for v, levels in points] == [(0, [2, 8]), (1, [3, 6]), (1, [3, 2])]


# --- the allocation that curves suggest -------------------------------------------------------------------------------


def exact_curves(weights: np.ndarray, fractions: tuple[np.ndarray, ...]) -> Curves:
    return Curves(tuple(w * np.log(f) ** 2 for w, f in zip(weights, fractions, strict=True)), ())


@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("rho", [0.1, 0.3, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("weights", [WEIGHTS, np.ones(3), np.array([0.01, 1, 100])], ids=str)
def test_the_suggestion_is_nearly_the_least_sum_of_losses(weights: np.ndarray, rho: float, of: str) -> None:
    problem, _ = posed(GRAPH, Sparsity(rho, tolerance=0.02, of=of), additive)
    curves = exact_curves(weights, problem.fractions)

    def total(levels: np.ndarray) -> float:
        return float(sum(losses[level] for losses, level in zip(curves.losses, levels, strict=True)))

    levels = suggested(problem, curves)
    assert problem.is_met_by(levels)
    # The best may lie at the lower edge of the tolerance, where the suggestion aims at the target itself.
    near, _ = posed(GRAPH, Sparsity(rho, tolerance=0.005, of=of), additive)
    least = min(total(levels) for levels in every_level(near))
    assert total(levels) <= 1.1 * least


def test_a_group_that_costs_nothing_to_lose_goes_first() -> None:
    shapes = {"c.a": (10, 5), "c.b": (10, 5)}
    sketches = [GroupSketch(name, 10, {(f"c.{name}", 0): None}) for name in "ab"]
    problem, _ = posed(GraphSketch(shapes, sketches).graph(), Sparsity(0.4, tolerance=1e-6), additive)
    curves = Curves((np.arange(10.0), np.zeros(10)), ())
    assert problem.kept(suggested(problem, curves)).tolist() == [10, 2]


def test_a_destroyed_group_is_not_taken_for_a_cheap_one() -> None:
    """After a cliff the curve is flat; what is left of the group is no bargain."""
    shapes = {"c.a": (10, 5), "c.b": (10, 5)}
    sketches = [GroupSketch(name, 10, {(f"c.{name}", 0): None}) for name in "ab"]
    problem, _ = posed(GraphSketch(shapes, sketches).graph(), Sparsity(0.4, tolerance=1e-6), additive)
    cliff = np.array([0.0, 50, 50, 50, 50, 50, 50, 50, 50, 50])
    slope = np.arange(10.0)
    assert problem.kept(suggested(problem, Curves((cliff, slope), ()))).tolist() == [10, 2]


def test_components_have_prices_of_their_own() -> None:
    graph = linear_chain([12, 16, 20, 12, 16, 12, 12], per_component=2).graph()
    target = Sparsity(0.5, components={"c0": 0.3}, tolerance=0.03)
    problem, _ = posed(graph, target, lambda kept: 0.0)
    curves = exact_curves(np.array([1, 1, 5, 1, 0.2]), problem.fractions)
    assert problem.is_met_by(suggested(problem, curves))


# --- swaps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", [additive, entangled])
@pytest.mark.parametrize("rho", [0.3, 0.5, 0.7])
def test_swaps_find_the_best_there_is_nearly(rho: float, formula: object) -> None:
    problem, _ = posed(GRAPH, Sparsity(rho, tolerance=0.01), formula)  # type: ignore[arg-type]
    feasible = every_level(problem)
    values = np.array([problem.value(e) for e in problem.evaluate(list(feasible))])
    search = SwapSearch(problem, (), evaluations=200, step=0.4, seed=0)
    best = search.run([feasible[values.argmin()]])
    assert problem.value(best) >= values.max() - 0.03 * (values.max() - values.min())
    assert all(abs(e.sparsity - rho) <= 0.01 + 1e-12 for e in search.history)
    assert best_value(problem) == values.max()


def test_no_more_is_measured_than_allowed_and_nothing_twice() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.5), entangled)
    start = every_level(problem)[0]
    for most in (1, 2, 7, 40):
        measurements.batches.clear()
        search = SwapSearch(problem, (), evaluations=most, step=0.4, seed=1)
        search.run([start])
        measured = [tuple(e.kept.values()) for batch in measurements.batches for e in batch]
        assert len(measured) == len(set(measured)) == len(search.history) <= most
    assert all(len(batch) <= 2 for batch in measurements.batches)


def test_swaps_leave_a_start_that_misses_a_constraint() -> None:
    bound = Constraint(lambda model: 0.0, at_least=0.9, name="width of c1.0")
    problem, _ = posed(
        GRAPH,
        Sparsity(0.5),
        lambda kept: kept["c2.0"],
        constraints=[bound],
        bounded={bound.name: lambda kept: kept["c1.0"]},
    )
    starts = [levels for levels in every_level(problem) if problem.kept(levels)[1] <= 10]
    best = SwapSearch(problem, (), evaluations=200, step=0.4, seed=0).run(starts[:1])
    assert best.satisfied
    assert best.kept["c1.0"] >= 18


def test_candidates_that_fail_are_passed_over() -> None:
    def failing(kept: Mapping[str, float]) -> float:
        if kept[NAMES[1]] < 0.7:
            raise ArithmeticError("too narrow")
        return -kept[NAMES[1]]

    problem, _ = posed(GRAPH, Sparsity(0.5), failing)
    best = SwapSearch(problem, (), evaluations=100, step=0.4, seed=0).run(list(every_level(problem)[:1]))
    assert best.kept[NAMES[1]] == 14

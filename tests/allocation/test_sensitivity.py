from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from secateur.allocation import Sensitivity, Sparsity, Uniform
from secateur.errors import InfeasibleError, ObjectiveError, SearchError
from tests.allocation.formula import every_level, posed
from tests.handmade import linear_chain

GRAPH = linear_chain([24, 20, 16, 6, 16, 20, 24], per_component=3).graph()
NAMES = [g.name for g in GRAPH.groups]


def bottleneck(kept: Mapping[str, float]) -> float:
    """The narrow group in the middle matters most, the outer ones little; losses don't add."""
    weights = np.array([0.5, 1.0, 4.0, 1.0, 0.7])
    return float(-10 * np.log10(0.01 + np.sum(weights * (1 / np.array([kept[n] for n in NAMES]) - 1)) ** 2))


@pytest.fixture(scope="module", params=[0.3, 0.6])
def known(request: pytest.FixtureRequest) -> tuple[float, np.ndarray]:
    """A target and the values of all candidates that meet it."""
    rho: float = request.param
    graph = linear_chain([24, 20, 16, 6, 16, 20, 24], per_component=3).graph()
    problem, _ = posed(graph, Sparsity(rho, tolerance=0.002), bottleneck)
    feasible = every_level(problem)
    return rho, np.array([problem.value(e) for e in problem.evaluate(list(feasible))])


def test_it_comes_near_the_best_there_is_with_few_measurements(known: tuple[float, np.ndarray]) -> None:
    rho, values = known
    problem, measurements = posed(GRAPH, Sparsity(rho, tolerance=0.002), bottleneck)
    result = Sensitivity()(problem)
    uniform = Uniform()(problem).best
    assert result.best is not None
    assert uniform is not None
    best, reference = problem.value(result.best), problem.value(uniform)
    assert best >= reference + 0.95 * (values.max() - reference)
    assert len(result.history) <= 1 + 15 + 60 == measurements.expected - 1  # Uniform announces one, too
    assert len(values) > 1000


def test_the_history_holds_curves_then_candidates_on_the_target() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.5), bottleneck)
    result = Sensitivity(points=(0.5,), evaluations=20)(problem)
    assert [e for batch in measurements.batches for e in batch][: len(result.history)] == list(result.history)
    assert len(result.history) == 20
    dense, *curves = result.history[:6]
    assert dense.sparsity == 0
    assert [sum(c > 0 for c in e.coefficients.values()) for e in curves] == [1] * 5
    assert all(abs(e.sparsity - 0.5) <= 0.01 for e in result.history[6:])
    assert Uniform()(problem).kept in [e.kept for e in result.history[6:8]]
    assert result.best in result.history[6:]


def test_searches_at_other_targets_share_the_curves() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5), bottleneck)
    histories = [Sensitivity()(problem.at(Sparsity(rho))).history for rho in (0.3, 0.7)]
    assert histories[0][:16] == histories[1][:16]
    assert not {tuple(e.kept.values()) for e in histories[0][16:]} & {tuple(e.kept.values()) for e in histories[1][16:]}


def test_the_seed_decides_the_order_of_the_swaps() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5), bottleneck)
    first, again, other = (Sensitivity(seed=seed)(problem).history for seed in (0, 0, 1))
    assert first == again
    assert first[:18] == other[:18]
    assert first != other


def test_a_hint_is_a_start() -> None:
    """One candidate alone is good; nothing leads there but the hint."""
    problem, _ = posed(GRAPH, Sparsity(0.5), bottleneck)
    needle = every_level(replace(problem, target=Sparsity(0.52, tolerance=0.001)))[500]
    hint = problem.evaluation(needle)

    def near_the_hint(kept: Mapping[str, float]) -> float:
        return float(sum(abs(kept[n] - (1 - hint.coefficients[n])) for n in NAMES) < 0.3)

    plain, _ = posed(GRAPH, Sparsity(0.5), near_the_hint)
    hinted = replace(plain, hints=(hint,))
    results = [Sensitivity(evaluations=22)(p).best for p in (plain, hinted)]
    assert [r.objective for r in results if r is not None] == [0, 1]


def test_a_model_that_can_hardly_shrink() -> None:
    graph = linear_chain([4, 2, 4]).graph()
    problem, _ = posed(graph, Sparsity(9 / 22), lambda kept: kept["c0.0"])
    assert Sensitivity()(problem).kept == {"c0.0": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": ()}, r"the points of a curve must lie in \(0, 1\); they are \(\)"),
        ({"points": (0.5, 1.0)}, r"the points of a curve must lie in \(0, 1\); they are \(0.5, 1.0\)"),
        ({"points": 0.5}, r"the points of a curve must lie in \(0, 1\); they are 0.5"),
        ({"points": ("a", "b")}, r"the points of a curve must lie in \(0, 1\); they are \('a', 'b'\)"),
        ({"points": None}, r"the points of a curve must lie in \(0, 1\); they are None"),
        ({"evaluations": 1.5}, "evaluations must be a whole number, at least 1; it is 1.5"),
        ({"step": None}, "the step must be above 0; it is None"),
        ({"step": float("inf")}, "the step must be above 0; it is inf"),
        ({"evaluations": 0}, "evaluations must be a whole number, at least 1; it is 0"),
        ({"step": 0.0}, r"the step must be above 0; it is 0\.0"),
    ],
)
def test_wrong_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        Sensitivity(**settings)  # type: ignore[arg-type]


def test_too_few_evaluations_for_the_curves() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.5), bottleneck)
    with pytest.raises(
        SearchError, match=r"evaluations=16 don't suffice: the curves of 5 groups at 3 points need 16, and"
    ):
        Sensitivity(evaluations=16)(problem)
    assert measurements.batches == []
    assert len(Sensitivity(evaluations=17)(problem).history) == 17


def test_it_needs_something_to_measure() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5))
    with pytest.raises(ObjectiveError, match="give objective="):
        Sensitivity()(problem)


def test_what_cannot_be_met() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.999), bottleneck)
    with pytest.raises(InfeasibleError, match="the largest possible is"):
        Sensitivity()(problem)
    assert measurements.batches == []


def test_an_objective_that_always_fails() -> None:
    def failing(kept: Mapping[str, float]) -> float:
        raise ArithmeticError("no luck")

    problem, _ = posed(GRAPH, Sparsity(0.5), failing)
    with pytest.raises(ObjectiveError, match="no luck"):
        Sensitivity()(problem)

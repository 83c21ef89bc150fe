"""Finalists: the search's own choice, uniform coefficients, then what is best and somewhat apart; the best one wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from torch import nn

from secateur.allocation import AllocationResult, Evaluation, Minimize, Smallest, Sparsity, Uniform, allocate
from secateur.errors import TargetError
from secateur.experiments.tdmpc.agent_graph import trace_agent
from secateur.experiments.tdmpc.finishing import Finisher, Stopwatch, best_few, own_choice
from secateur.experiments.tdmpc.surrogate import PredictionError
from secateur.graph import DependencyGraph
from secateur.importance import Magnitude
from secateur.plan import FloatArray
from tests.experiments.tdmpc.small_agent import random_visits, small_told

Scores = Mapping[str, FloatArray]
TARGET = Sparsity(0.5, tolerance=0.05)


@pytest.fixture(scope="module")
def graph() -> DependencyGraph:
    return trace_agent(small_told(), random_visits())


@pytest.fixture(scope="module")
def scores(graph: DependencyGraph) -> Scores:
    return Magnitude()(graph, small_told())


def candidate(graph: DependencyGraph, kept: Mapping[str, int], objective: float | None) -> Evaluation:
    counts = {g.name: kept.get(g.name, g.size) for g in graph.groups}
    sparsity = 1 - graph.cost(counts).parameters / graph.cost().parameters
    coefficients = {g.name: 1 - counts[g.name] / g.size for g in graph.groups}
    return Evaluation(coefficients, sparsity, counts, objective)


def balanced(graph: DependencyGraph, objective: float, **kept: int) -> Evaluation:
    """Near the target: every hidden layer keeps 11 of 16 channels, but for those named."""
    names = {name.replace("_", "."): count for name, count in kept.items()}
    return candidate(graph, {**{g.name: min(g.size, 11) for g in graph.groups}, "encoder.2": 8, **names}, objective)


def result(best: Evaluation, history: list[Evaluation]) -> AllocationResult:
    return AllocationResult(best.coefficients, best.kept, best.sparsity, {}, TARGET, tuple(history), best)


def test_own_choice_uniform_and_what_is_apart(graph: DependencyGraph, scores: Scores) -> None:
    best = balanced(graph, 9.0, pi_0=4, pi_2=4, q1_0=15)
    nearly = balanced(graph, 8.0, pi_0=4, pi_2=4, q1_0=16)  # as good, but hardly another model
    apart = balanced(graph, 7.0, reward_0=4, reward_2=4, q1_0=15)
    worse = balanced(graph, 6.0, dynamics_0=6)
    uniform = own_choice(allocate(graph, scores, TARGET))
    history = [worse, apart, nearly, best]
    assert [e.sparsity for e in history] == pytest.approx([0.5] * 4, abs=0.05)
    found = best_few(graph, scores, result(best, history), lambda model: 0.0, 4)
    assert [e.kept for e in found] == [best.kept, uniform.kept, apart.kept, worse.kept]
    assert [e.kept for e in best_few(graph, scores, result(best, history), lambda model: 0.0, 2)] == [
        best.kept,
        uniform.kept,
    ]
    assert best_few(graph, scores, result(best, history), None, 1) == [best]


def test_less_is_better_where_the_objective_says_so(graph: DependencyGraph, scores: Scores) -> None:
    best = balanced(graph, 0.1, pi_0=4, pi_2=4)
    second, third = balanced(graph, 0.2, reward_0=4, reward_2=4), balanced(graph, 0.3, dynamics_0=6)
    found = best_few(graph, scores, result(best, [third, second, best]), Minimize(lambda model: 0.0), 4)
    assert [e.objective for e in found] == [0.1, None, 0.2, 0.3]


def test_failures_and_other_sizes_are_left_out(graph: DependencyGraph, scores: Scores) -> None:
    best = balanced(graph, 1.0, pi_0=4, pi_2=4)
    failed = replace(balanced(graph, 2.0, reward_0=4, reward_2=4), objective=None, error="boom")
    larger = replace(candidate(graph, {"pi.0": 2}, 3.0), on_target=False)
    found = best_few(graph, scores, result(best, [failed, larger, best]), lambda model: 0.0, 4)
    assert [e.objective for e in found] == [1.0, None]


@pytest.mark.parametrize(
    ("target", "count", "message"),
    [
        (TARGET, 0, "at least 1 finalist, not 0"),
        (Smallest(), 3, "a final choice compares models of one size"),
        (Sparsity(0.5, of="latency"), 3, "a final choice compares models of one size"),
    ],
)
def test_what_can_not_be_chosen_from(
    graph: DependencyGraph, scores: Scores, target: Sparsity | Smallest, count: int, message: str
) -> None:
    allocation = replace(allocate(graph, scores, TARGET), target=target)
    with pytest.raises(TargetError, match=message):
        best_few(graph, scores, allocation, None, count)


@pytest.mark.parametrize("least", [False, True])
def test_the_best_one_wins(graph: DependencyGraph, scores: Scores, least: bool) -> None:
    """Judged by the parameters that are left, high or low."""

    def parameters(model: nn.Module) -> float:
        return float(sum(p.numel() for p in model.parameters()))

    model, visits, watch = small_told(), random_visits(), Stopwatch()
    finisher = Finisher(model=model, graph=graph, scores=scores, calibration=visits.run, stopwatch=watch)
    candidates = [candidate(graph, {"pi.0": kept}, None) for kept in (5, 3, 9)]
    found = finisher.choice(candidates, Minimize(parameters) if least else parameters)
    order = (3, 5, 9) if least else (9, 5, 3)
    assert tuple(len(f.plan.groups["pi.0"]) for f in found) == order
    assert [f.judged.value for f in found if f.judged] == [parameters(f.model) for f in found]
    assert [f.model.get_submodule("pi.0").out_features for f in found] == list(order)
    assert set(watch.seconds) == {"surgery", "verify", "refit", "judge"}


def test_refit_is_made_where_there_is_data(graph: DependencyGraph, scores: Scores) -> None:
    model, visits = small_told(), random_visits()
    error = PredictionError(model, visits)
    halves = own_choice(allocate(graph, scores, Sparsity(0.4), strategy=Uniform()))

    def finished(calibration: bool) -> nn.Module:
        data = visits.run if calibration else None
        watch = Stopwatch()
        finisher = Finisher(model=model, graph=graph, scores=scores, calibration=data, stopwatch=watch)
        small = finisher.finish(halves).model
        assert ("refit" in watch.seconds) == calibration
        return small

    plain, refitted = finished(False), finished(True)
    assert error(refitted) < 0.6 * error(plain)


def test_a_stopwatch_adds_up() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.time("phase"):
            sum(range(1000))
    first = watch.seconds["phase"]
    with pytest.raises(ZeroDivisionError), watch.time("phase"):
        _ = 1 / 0
    assert 0 < first < watch.seconds["phase"]

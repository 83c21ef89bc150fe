from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.allocation import (
    AllocationResult,
    BlackBox,
    Constraint,
    Evaluation,
    Measurements,
    Minimize,
    Objective,
    Problem,
    Smallest,
    Sparsity,
    Target,
    allocate,
    meet,
    uniform_path,
)
from secateur.allocation.evaluator import Evaluator
from secateur.allocation.proposers import CovarianceMatrixAdaptation, Proposer, TreeParzen
from secateur.errors import ConstraintError, InfeasibleError, ObjectiveError, SearchError
from secateur.graph.graph import DependencyGraph
from tests.handmade import Chain, linear_chain, random_scores

Value = Callable[[dict[str, int]], float | None]


@dataclass
class Formula:
    """Measurements of candidates by a formula of their kept counts, without a model."""

    value: Value
    objective: Objective | None = field(default=lambda model: 0.0)
    constraints: Sequence[Constraint] = ()
    constrained: Value = field(default=lambda kept: 0.0)
    model: Any = None
    calibration: Any = None
    batches: list[int] = field(default_factory=list)
    announced: int = 0

    def beside(self, name: str, evaluator: Evaluator, *, counted: bool = False) -> Measurements:
        raise AssertionError(f"there is no model to measure {name} of")

    def expect(self, evaluations: int) -> None:
        self.announced += evaluations

    def evaluate(self, candidates: Sequence[Evaluation]) -> list[Evaluation]:
        self.batches.append(len(candidates))
        return [self._one(c) for c in candidates]

    def _one(self, candidate: Evaluation) -> Evaluation:
        value = self.value(dict(candidate.kept))
        if value is None:
            return replace(candidate, satisfied=False, error="Traceback\nValueError: no")
        values = {c.name: float(self.constrained(dict(candidate.kept)) or 0) for c in self.constraints}
        satisfied = all(c.margin(values[c.name]) >= 0 for c in self.constraints)
        objective = None if self.objective is None else value
        return replace(candidate, objective=objective, constraints=values, satisfied=satisfied)


def problem(graph: DependencyGraph, measurements: Formula, rho: float | None = 0.5, **options: Any) -> Problem:
    hints = options.pop("hints", ())
    return Problem(graph, random_scores(graph), Sparsity(rho, **options), measurements, hints)


def sizes(graph: DependencyGraph) -> dict[str, int]:
    return {g.name: g.size for g in graph.groups}


def damage(graph: DependencyGraph, weights: Sequence[float]) -> Value:
    """Groups that matter by their weights, more with every channel that leaves."""
    full = sizes(graph)

    def value(kept: dict[str, int]) -> float:
        shares = [(1 - kept[name] / size) for name, size in full.items()]
        return -float(sum(w * s**2 / (1.05 - s) for w, s in zip(weights, shares, strict=True)))

    return value


CHAIN = linear_chain([16, 24, 20, 24, 16]).graph()
WEIGHTS = [1.0, 20.0, 0.1]


@pytest.mark.parametrize("settings", [{}, {"sampler": "tpe"}, {"sampler": "cmaes"}, {"batch": 4}], ids=str)
def test_near_the_best_there_is_by_brute_force(settings: dict[str, Any]) -> None:
    value = damage(CHAIN, WEIGHTS)
    on = problem(CHAIN, Formula(value))
    every = np.array(list(product(*(range(n + 1) for n in on.last_levels))))
    feasible = every[on.is_met_by(every)]
    values = [value(on.evaluation(levels).kept) or 0.0 for levels in feasible]  # type: ignore[arg-type]
    uniform = value(on.evaluation(meet(on, uniform_path(on))).kept) or 0.0  # type: ignore[arg-type]
    found = BlackBox(evaluations=60, **settings)(on)
    assert found.best is not None
    assert found.best.objective is not None
    assert found.best.objective >= uniform + 0.97 * (max(values) - uniform)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_many_groups(sampler: str) -> None:
    graph = linear_chain([24] * 33).graph()
    value = damage(graph, 10 ** np.linspace(-1, 1, 31))  # type: ignore[arg-type]
    on = problem(graph, Formula(value))
    found = BlackBox(evaluations=150, sampler=sampler)(on)  # type: ignore[arg-type]
    first, best = found.history[0].objective, found.best.objective if found.best else None
    assert first is not None
    assert best is not None
    assert best > 0.75 * first  # all values are negative
    if sampler == "cmaes":
        assert BlackBox(evaluations=150)(on).best == found.best


def test_the_first_candidates_are_the_sensible_ones() -> None:
    on = problem(CHAIN, Formula(damage(CHAIN, WEIGHTS)))
    uniform = on.evaluation(meet(on, uniform_path(on)))
    hint = replace(uniform, kept={"c0.0": 10, "c1.0": 19, "c2.0": 5})
    hinted = replace(on, hints=(hint,))
    first, second, *_ = BlackBox(evaluations=12)(hinted).history
    assert first.kept == uniform.kept
    assert abs(second.kept["c1.0"] - 19) <= 2
    assert second.kept["c0.0"] > second.kept["c2.0"]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_no_candidate_twice_and_all_on_target(sampler: Any) -> None:
    on = problem(CHAIN, Formula(damage(CHAIN, WEIGHTS)))
    history = BlackBox(evaluations=50, sampler=sampler)(on).history
    assert len(history) == len({tuple(e.kept.values()) for e in history}) == 50
    assert all(abs(e.sparsity - 0.5) <= 0.01 for e in history)


def test_the_seed_decides() -> None:
    on = problem(CHAIN, Formula(damage(CHAIN, WEIGHTS)))
    assert BlackBox(evaluations=20)(on).history == BlackBox(evaluations=20)(on).history
    assert BlackBox(evaluations=20)(on).history != BlackBox(evaluations=20, seed=1)(on).history


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_batches_are_asked_for_together(sampler: Any) -> None:
    measurements = Formula(damage(CHAIN, WEIGHTS))
    result = BlackBox(evaluations=21, batch=4, sampler=sampler)(problem(CHAIN, measurements))
    assert len(result.history) == 21
    assert measurements.announced == 21
    assert set(measurements.batches[1:-1]) == {4}


def test_it_ends_when_every_candidate_is_measured() -> None:
    graph = linear_chain([4, 3, 3, 4]).graph()
    on = problem(graph, Formula(damage(graph, [1, 2])), tolerance=0.1)
    every = np.array(list(product(*(range(n + 1) for n in on.last_levels))))
    feasible = every[on.is_met_by(every)]
    history = BlackBox(evaluations=80)(on).history
    assert 1 < len(history) <= len(feasible)


def test_a_single_candidate() -> None:
    graph = linear_chain([4, 2, 4]).graph()
    on = problem(graph, Formula(damage(graph, [1])), rho=9 / 22)
    assert [e.kept for e in BlackBox(sampler="cmaes")(on).history] == [{"c0.0": 1}]
    fixed = problem(CHAIN, Formula(damage(CHAIN, WEIGHTS)), rho=None, interfaces={"c1.0": 0.5, "c0.0": 0, "c2.0": 0})
    assert [e.kept for e in BlackBox()(fixed).history] == [{"c0.0": 24, "c1.0": 10, "c2.0": 24}]


def test_groups_without_a_choice_stay() -> None:
    on = problem(CHAIN, Formula(damage(CHAIN, WEIGHTS)), rho=0.4, protected=["c1.0"])
    assert {e.kept["c1.0"] for e in BlackBox(evaluations=20)(on).history} == {20}


def test_a_target_that_cannot_be_met_names_the_nearest() -> None:
    with pytest.raises(InfeasibleError, match=r"0\.99 .* can't be met: the largest possible is 0\.9"):
        BlackBox()(problem(CHAIN, Formula(damage(CHAIN, WEIGHTS)), rho=0.99))


# Constraints and failures


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_candidates_that_miss_a_constraint_lead_to_those_that_do_not(sampler: Any) -> None:
    bound = Constraint(lambda model: 0.0, at_least=21, name="width of the third")
    measurements = Formula(damage(CHAIN, WEIGHTS), constraints=[bound], constrained=lambda kept: float(kept["c2.0"]))
    result = BlackBox(evaluations=60, sampler=sampler)(problem(CHAIN, measurements))
    assert not result.history[0].satisfied
    assert result.kept["c2.0"] >= 21
    assert sum(e.satisfied for e in result.history[30:]) > sum(e.satisfied for e in result.history[:10]) + 3


def test_the_nearest_miss_is_named() -> None:
    bound = Constraint(lambda model: 0.0, at_least=25, name="width of the third")
    measurements = Formula(damage(CHAIN, WEIGHTS), constraints=[bound], constrained=lambda kept: float(kept["c2.0"]))
    with pytest.raises(ConstraintError, match=r"width of the third = 2[34] where 25 <= width of the third is asked"):
        BlackBox(evaluations=40)(problem(CHAIN, measurements))


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_candidates_that_fail_are_avoided(sampler: Any) -> None:
    good = damage(CHAIN, WEIGHTS)
    measurements = Formula(lambda kept: None if kept["c0.0"] < 12 else good(kept))
    result = BlackBox(evaluations=60, sampler=sampler)(problem(CHAIN, measurements))
    assert result.kept["c0.0"] >= 12
    assert sum(e.error is None for e in result.history[30:]) >= 10
    with pytest.raises(ObjectiveError, match=r"failed for every one of 12 candidates"):
        BlackBox(evaluations=12, sampler=sampler)(problem(CHAIN, Formula(lambda kept: None)))


def test_constraints_without_an_objective() -> None:
    bound = Constraint(lambda model: 0.0, at_most=12, name="width of the first")
    measurements = Formula(lambda kept: 0.0, None, constraints=[bound], constrained=lambda kept: float(kept["c0.0"]))
    assert BlackBox(evaluations=30)(problem(CHAIN, measurements)).kept["c0.0"] <= 4


def test_less_may_be_better() -> None:
    good = damage(CHAIN, WEIGHTS)
    up = BlackBox(evaluations=30)(problem(CHAIN, Formula(good)))
    minimized = Formula(lambda kept: -(good(kept) or 0.0), Minimize(lambda model: 0.0))
    down = BlackBox(evaluations=30)(problem(CHAIN, minimized))
    assert [e.kept for e in down.history] == [e.kept for e in up.history]
    assert down.kept == up.kept


def test_a_real_model_end_to_end() -> None:
    torch.manual_seed(0)
    model, inputs = Chain([8, 16, 12, 8]), torch.randn(64, 8)
    graph = secateur.trace(model, inputs)
    scores = secateur.importance.Magnitude()(graph, model)

    def error(small: nn.Module) -> float:
        with torch.no_grad():
            return float((small(inputs) - model(inputs)).square().mean())

    def solve(target: Target, **metrics: Any) -> AllocationResult:
        strategy = BlackBox(evaluations=20)
        return allocate(graph, scores, target, strategy=strategy, model=model, calibration=[inputs], **metrics)

    found = solve(Sparsity(0.4, tolerance=0.02), objective=Minimize(error))
    values = [e.objective for e in found.history if e.objective is not None]
    assert min(values) < values[0]
    smallest = solve(Smallest(resolution=0.02), constraints=[Constraint(error, at_most=min(values), name="error")])
    assert smallest.sparsity >= 0.38
    assert smallest.best is not None
    assert smallest.best.constraints["error"] <= min(values)


# Wrong input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": 0}, "evaluations must be a whole number of candidates, at least 1; it is 0"),
        ({"batch": 0}, "batch must be a whole number of candidates, at least 1; it is 0"),
        ({"evaluations": 2.5}, r"evaluations must be a whole number of candidates, at least 1; it is 2\.5"),
        ({"sampler": "gp"}, "sampler must be 'auto', 'tpe' or 'cmaes', not 'gp'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        BlackBox(**settings)


def test_without_an_objective() -> None:
    graph = CHAIN
    with pytest.raises(ObjectiveError, match="give model= to allocate, and objective= or constraints="):
        allocate(graph, random_scores(graph), Sparsity(0.5), strategy=BlackBox())


# The samplers


PROPOSERS: dict[str, Callable[[int], Proposer]] = {
    "tpe": lambda seed: TreeParzen(3, seed=seed, together=False),
    "cmaes": lambda seed: CovarianceMatrixAdaptation(np.zeros(3), spread=0.5, seed=seed),
}


@pytest.mark.parametrize("make", PROPOSERS.values(), ids=list(PROPOSERS))
def test_samplers_find_the_top_of_a_hill(make: Callable[[int], Proposer]) -> None:
    top = np.array([1.0, -0.5, 0.25])
    proposer, points = make(0), []
    for _ in range(120):
        point = proposer.ask()
        points.append(point)
        proposer.tell(point, -1e6 * float(((point - top) ** 2).sum()))
    assert min(np.abs(p - top).max() for p in points) < 0.25
    assert np.array_equal(make(0).ask(), make(0).ask())
    assert not np.array_equal(make(0).ask(), make(1).ask())


@pytest.mark.parametrize("make", PROPOSERS.values(), ids=list(PROPOSERS))
def test_samplers_are_told_of_points_they_did_not_ask_for(make: Callable[[int], Proposer]) -> None:
    top = np.array([2.0, 2.0, 2.0])
    proposer, rng = make(0), np.random.default_rng(0)
    for _ in range(40):
        proposer.tell(top + rng.normal(0, 0.3, 3), 1.0)
        proposer.tell(-top + rng.normal(0, 0.3, 3), -1.0)
    asked = np.array([proposer.ask() for _ in range(20)])
    assert asked.mean() > 0.5

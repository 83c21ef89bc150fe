"""Find the pruning coefficients that meet a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from secateur.allocation.by_latency import by_latency, latency_sparsity
from secateur.allocation.objective import Constraint, Objective
from secateur.allocation.problem import Measurements, Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.search import MeasuredSearch, Search
from secateur.allocation.smallest import smallest
from secateur.allocation.strategy import Strategy, check_strategy
from secateur.allocation.targets import Smallest, Sparsity, Target
from secateur.allocation.uniform import Uniform
from secateur.calibration import CalibrationData
from secateur.errors import ObjectiveError, TargetError
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray, checked_scores

_UNIFORM = Uniform()
_SEARCH = Search()


def allocate(
    graph: DependencyGraph,
    scores: Mapping[str, FloatArray],
    target: Target,
    *,
    strategy: Strategy = _UNIFORM,
    model: nn.Module | None = None,
    objective: Objective | None = None,
    constraints: Sequence[Constraint] = (),
    calibration: CalibrationData | None = None,
    search: Search = _SEARCH,
) -> AllocationResult:
    """One pruning coefficient per channel group, such that the target is met exactly as surgery will count it.

    Either the best objective at a given sparsity (``Sparsity``), or the smallest model (``Smallest``), in both cases
    among the candidates that satisfy every constraint. A candidate is measured as it will be used: after surgery and,
    if there is calibration data, after refit.

    Args:
        graph: what :func:`secateur.trace` returned.
        scores: group name to importance, shape (group size,); higher stays longer.
        target: what fraction to remove, of what, to which tolerance; or the smallest model.
        strategy: how to find the coefficients.
        model: the dense model; untouched. Needed to measure candidates, and for targets of latency.
        objective: takes a model and returns the application's metric; higher is better, unless in ``Minimize``.
        constraints: bounds on other metrics, or on the same.
        calibration: what candidates are refitted on before they are measured; as in :func:`secateur.refit`.
        search: where measurements are kept, so that a search can be resumed and shared, and who hears of its progress.

    Returns:
        The coefficients, the sparsities they achieve, and the candidates that were looked at.

    Raises:
        ScoreError: scores are missing, have the wrong size or aren't finite.
        TargetError: the target is malformed, or names what the graph doesn't have.
        InfeasibleError: the target can't be met; the message names the nearest that can.
        ConstraintError: no candidate satisfies every constraint; the message names the nearest miss.
        ObjectiveError: the objective failed for every candidate, or is missing where the strategy needs it.
        SearchError: the strategy is none, or its settings or the search's don't fit the problem.
        StorageError: the search's storage can't be used, or belongs to another search.
    """
    if not isinstance(target, (Sparsity, Smallest)):
        raise TargetError(f"the target must be a Sparsity, such as Sparsity(0.5), or Smallest(), not {target!r}")
    check_strategy(strategy)
    checked = checked_scores(graph, scores)
    measurements = _measurements(search, graph, checked, target, model, objective, constraints, calibration)
    if target.of == "latency" and measurements is None:
        raise TargetError("latency is measured: give allocate(..., model=model) too")
    full = measurements.full if measurements is not None and isinstance(target, Smallest) else None
    return solve(graph, checked, target, strategy, measurements, full)


def solve(
    graph: DependencyGraph,
    scores: Mapping[str, FloatArray],
    target: Target,
    strategy: Strategy,
    measurements: Measurements | None,
    full: Measurements | None = None,
) -> AllocationResult:
    """Answer either question with a strategy that meets sparsities of parameters or multiply-adds.

    Args:
        graph: what was traced.
        scores: of every group, checked.
        target: any target.
        strategy: how to find the coefficients.
        measurements: how candidates are measured, and the model; targets of latency and the smallest model need them.
        full: how the finished model is measured, where candidates are measured with less.
    """
    problem = Problem(graph, scores, _of_products(target), measurements)
    if isinstance(target, Smallest):
        return _smallest(problem, target, strategy, full)
    if target.of == "latency" and target.rho is not None:
        return by_latency(problem, target, target.rho, strategy)
    return strategy(problem)


def _smallest(problem: Problem, target: Smallest, strategy: Strategy, full: Measurements | None) -> AllocationResult:
    """The smallest model; of latency, the one with the fewest multiply-adds, and its latency as measured."""
    result = smallest(problem, replace(target, of=problem.target.of), strategy, full)
    measured = latency_sparsity(problem, result) if target.of == "latency" else result.sparsity
    return replace(result, sparsity=measured, target=target)


def _of_products(target: Target) -> Sparsity:
    """A target that has a closed form: multiply-adds stand for latency."""
    of = "macs" if target.of == "latency" else target.of
    return replace(target, of=of) if isinstance(target, Sparsity) else Sparsity(0.5, of=of)


def _measurements(
    search: Search,
    graph: DependencyGraph,
    scores: Mapping[str, FloatArray],
    target: Target,
    model: nn.Module | None,
    objective: Objective | None,
    constraints: Sequence[Constraint],
    calibration: CalibrationData | None,
) -> MeasuredSearch | None:
    if model is not None:
        return search.start(graph, scores, model, objective, constraints, calibration, target)
    for name, given in (("objective", objective is not None), ("constraints", len(constraints) > 0)):
        if given:
            raise ObjectiveError(f"{name} can't be measured without the model; give allocate(..., model=model) too")
    return None

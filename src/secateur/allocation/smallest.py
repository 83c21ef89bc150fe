"""The smallest model that satisfies every constraint: bisection over the sparsity, a search at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from torch import Tensor, nn

from secateur.allocation.budget import path_sparsities, uniform_path
from secateur.allocation.objective import Constraint, Objective
from secateur.allocation.problem import ROUNDING, Measurements, Problem
from secateur.allocation.result import AllocationResult, Evaluation
from secateur.allocation.strategy import Strategy
from secateur.allocation.targets import Limits, Smallest, Sparsity
from secateur.calibration import CalibrationData
from secateur.errors import ConstraintError, InfeasibleError, TargetError

_WIDER = (0.5, 1.0, 2.0, 4.0)
"""Tolerances that are tried around a sparsity, in units of the resolution."""

_WIDEST = 0.99
"""A tolerance must be below 1."""


def smallest(problem: Problem, target: Smallest, strategy: Strategy) -> AllocationResult:
    """Search at one sparsity after the other; the first candidate that satisfies ends the search at its sparsity.

    A candidate that satisfies rules out all smaller sparsities, a search that finds none all larger ones: this takes
    the best value of a constraint's metric to fall with the sparsity. Runs the strategy O(log(1 / resolution)) times.

    Args:
        problem: the graph, scores and measurements; its own target is replaced.
        target: the limits, and how finely to search.
        strategy: searches at one sparsity.

    Raises:
        ConstraintError: no candidate satisfies at any sparsity; the message names the nearest miss.
        TargetError: there are no constraints.
    """
    if problem.measurements is None or not problem.measurements.constraints:
        raise TargetError("the smallest model is bounded by constraints alone: give model= and constraints=")
    history: list[Evaluation] = []
    dense = replace(problem, target=_sparsity(target, 0.5, target.resolution))
    reachable = [s for s in path_sparsities(dense, uniform_path(dense)) if 0 < s <= target.largest]
    best: Evaluation | None = None
    weights: Mapping[str, Tensor] | None = None
    low, high = -1, len(reachable)
    while high - low > 1 and _gap(reachable, low, high) > target.resolution:
        middle = (low + high) // 2
        found = _search(dense, target, reachable[middle], strategy, best, history)
        if found is None:
            high = middle
            continue
        low = middle
        if best is None or found.evaluation.sparsity > best.sparsity:
            best, weights = found.evaluation, found.weights
    if best is None:
        history += dense.evaluate([np.zeros(len(dense.fractions), dtype=np.int64)])
        best = dense.best(history)  # the dense model, or an error that names the nearest miss
    return replace(dense.result(best, history), target=target, weights=weights)


def _gap(reachable: Sequence[float], low: int, high: int) -> float:
    """Between the largest sparsity known to satisfy, if any, and the smallest known not to."""
    if low < 0:
        return 1.0
    return (reachable[high] if high < len(reachable) else reachable[-1]) - reachable[low]


def _sparsity(target: Smallest, rho: float, tolerance: float) -> Sparsity:
    """A sparsity within the same limits."""
    return Sparsity(rho, tolerance=tolerance, **{f.name: getattr(target, f.name) for f in fields(Limits)})


def _search(
    problem: Problem,
    target: Smallest,
    rho: float,
    strategy: Strategy,
    hint: Evaluation | None,
    history: list[Evaluation],
) -> _Found | None:
    """The first candidate found near a sparsity that satisfies every constraint.

    A strategy that has no candidate so near, such as a coarse grid, is asked for one in a wider neighbourhood.
    """
    hints = () if hint is None else (hint,)
    for wider in _WIDER:
        tolerance = min(wider * target.resolution, _WIDEST)
        near = replace(problem, target=_sparsity(target, rho, tolerance), hints=hints)
        assert near.measurements is not None
        watched = replace(near, measurements=_Until(near.measurements, near, target.largest, history))
        try:
            result = strategy(watched)
        except _EnoughError as enough:
            return _Found(enough.evaluation)
        except ConstraintError:
            return None
        except InfeasibleError:
            continue
        if result.weights is not None:  # such a strategy measures its candidate itself
            history.extend(result.history)
        if result.best is None or result.best.sparsity > target.largest + ROUNDING:
            return None
        return _Found(result.best, result.weights)
    return None


@dataclass(frozen=True, eq=False)
class _Found:
    """A candidate that satisfies, and the weights that were trained along with it, if any."""

    evaluation: Evaluation
    weights: Mapping[str, Tensor] | None = None


class _EnoughError(Exception):
    """Ends a search at the first candidate that satisfies."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__("a candidate satisfies every constraint")
        self.evaluation = evaluation


@dataclass(frozen=True)
class _Until:
    """Measurements that end the search at the first candidate that is small enough and satisfies every constraint."""

    inner: Measurements
    problem: Problem
    largest: float
    history: list[Evaluation]

    @property
    def model(self) -> nn.Module:
        return self.inner.model

    @property
    def objective(self) -> Objective | None:
        return self.inner.objective

    @property
    def constraints(self) -> Sequence[Constraint]:
        return self.inner.constraints

    @property
    def calibration(self) -> CalibrationData | None:
        return self.inner.calibration

    def expect(self, evaluations: int) -> None:
        self.inner.expect(evaluations)

    def evaluate(self, candidates: Sequence[Evaluation]) -> list[Evaluation]:
        measured = self.inner.evaluate(candidates)
        self.history.extend(measured)
        for evaluation in measured:
            if evaluation.satisfied and evaluation.error is None and self._is_small(evaluation):
                raise _EnoughError(evaluation)
        return measured

    def _is_small(self, evaluation: Evaluation) -> bool:
        """Whether as much leaves as was asked for, and no more than may: some candidates only probe a group."""
        (goal,) = self.problem.goals
        levels = self.problem.levels_of(evaluation)
        caps = (cap.is_met_by(float(self.problem.sparsity(levels, cap.component))) for cap in self.problem.caps)
        return goal.low - ROUNDING <= evaluation.sparsity <= self.largest + ROUNDING and all(caps)

"""The smallest model that satisfies every constraint: bisection over the sparsity, a search at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from torch import Tensor

from secateur.allocation.budget import path_sparsities, uniform_path
from secateur.allocation.problem import ROUNDING, Measurements, Problem
from secateur.allocation.result import AllocationResult, Evaluation
from secateur.allocation.strategy import Strategy
from secateur.allocation.targets import Limits, Smallest, Sparsity
from secateur.errors import ConstraintError, InfeasibleError, TargetError
from secateur.graph.cost import IntArray

_WIDER = (0.5, 1.0, 2.0, 4.0)
"""Tolerances that are tried around a sparsity, in units of the resolution."""

_WIDEST = 0.99
"""A tolerance must be below 1."""


def smallest(
    problem: Problem, target: Smallest, strategy: Strategy, full: Measurements | None = None
) -> AllocationResult:
    """Search at one sparsity after the other; the first candidate that satisfies ends the search at its sparsity.

    A candidate that satisfies rules out all smaller sparsities, a search that finds none all larger ones: this takes
    the best value of a constraint's metric to fall with the sparsity. Runs the strategy O(log(1 / resolution)) times.

    Where candidates are measured with less than the finished model has, what they measure says which of them is best,
    not whether it will do. So the search's best candidate is then measured in full, and that decides: one measurement
    more at each sparsity.

    Args:
        problem: the graph, scores and measurements; its own target is replaced.
        target: the limits, and how finely to search.
        strategy: searches at one sparsity.
        full: how the finished model is measured; None if candidates are measured like that.

    Raises:
        ConstraintError: no candidate satisfies at any sparsity; the message names the nearest miss.
        TargetError: there are no constraints.
    """
    if problem.measurements is None or not problem.measurements.constraints:
        raise TargetError("the smallest model is bounded by constraints alone: give model= and constraints=")
    dense = replace(problem, target=_sparsity(target, 0.5, target.resolution))
    searches = _Searches(dense, target, strategy, full or problem.measurements, is_quick=full is not None)
    reachable = [s for s in path_sparsities(dense, uniform_path(dense)) if 0 < s <= target.largest]
    best: _Found | None = None
    low, high = -1, len(reachable)
    while high - low > 1 and _gap(reachable, low, high) > target.resolution:
        middle = (low + high) // 2
        found = searches.at(reachable[middle], () if best is None else (best.evaluation,))
        if found is None:
            high = middle
            continue
        low = middle
        if best is None or found.evaluation.sparsity > best.evaluation.sparsity:
            best = found
    best = best or searches.whole()
    return replace(dense.result(best.evaluation, searches.history), target=target, weights=best.weights)


def _gap(reachable: Sequence[float], low: int, high: int) -> float:
    """Between the largest sparsity known to satisfy, if any, and the smallest known not to."""
    if low < 0:
        return 1.0
    return (reachable[high] if high < len(reachable) else reachable[-1]) - reachable[low]


def _sparsity(target: Smallest, rho: float, tolerance: float) -> Sparsity:
    """A sparsity within the same limits."""
    return Sparsity(rho, tolerance=tolerance, **{f.name: getattr(target, f.name) for f in fields(Limits)})


@dataclass(frozen=True, eq=False)
class _Found:
    """A candidate that satisfies, and the weights that were trained along with it, if any."""

    evaluation: Evaluation
    weights: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class _Searches:
    """Searches at several sparsities.

    Attributes:
        problem: what they have in common.
        target: the limits.
        strategy: searches at one sparsity.
        full: how the finished model is measured.
        is_quick: whether candidates are measured with less.
        history: what was looked at so far, in order.
    """

    problem: Problem
    target: Smallest
    strategy: Strategy
    full: Measurements
    is_quick: bool
    history: list[Evaluation] = field(default_factory=list)

    def at(self, rho: float, hints: tuple[Evaluation, ...]) -> _Found | None:
        """A candidate near a sparsity that satisfies every constraint, if there is one.

        A strategy that has no candidate so near, such as a coarse grid, is asked for one in a wider neighbourhood.
        """
        for wider in _WIDER:
            near = self._near(rho, min(wider * self.target.resolution, _WIDEST), hints)
            try:
                result = self.strategy(near)
            except _EnoughError as enough:
                return self._decided(enough.evaluation)
            except ConstraintError:
                return self._decided(near.best_small)
            except InfeasibleError:
                continue
            chosen = result.best
            if chosen is not None and chosen.sparsity > self.target.largest + ROUNDING:
                chosen = None
            if result.weights is None:
                return self._decided(chosen or near.best_small)
            self.history.extend(result.history)  # such a strategy measures its candidate itself, as it will be used
            return None if chosen is None else _Found(chosen, result.weights)
        return None

    def whole(self) -> _Found:
        """The dense model.

        Raises:
            ConstraintError: it doesn't satisfy either; the message names the nearest miss.
        """
        nothing = np.zeros(len(self.problem.fractions), dtype=np.int64)
        self._measured(self.problem.evaluation(nothing))
        return _Found(self.problem.best([e for e in self.history if e.full] if self.is_quick else self.history))

    def _near(self, rho: float, tolerance: float, hints: tuple[Evaluation, ...]) -> _Watched:
        common, target = self.problem, _sparsity(self.target, rho, tolerance)
        return _Watched(
            common.graph, common.scores, target, common.measurements, hints, self.target.largest, self.history
        )

    def _decided(self, candidate: Evaluation | None) -> _Found | None:
        """The candidate, if it satisfies as the finished model will be."""
        if candidate is None or candidate.error is not None:
            return None
        decided = self._measured(candidate) if self.is_quick else candidate
        return _Found(decided) if decided.satisfied else None

    def _measured(self, candidate: Evaluation) -> Evaluation:
        """A candidate as the finished model will be."""
        self.full.expect(1)
        (measured,) = self.full.evaluate([replace(candidate, full=self.is_quick)])
        self.history.append(measured)
        return measured


class _EnoughError(Exception):
    """Ends a search at the first candidate that satisfies."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__("a candidate satisfies every constraint")
        self.evaluation = evaluation


@dataclass(frozen=True, eq=False)
class _Watched(Problem):
    """A problem whose search ends at the first candidate that is small enough and satisfies every constraint.

    Attributes:
        largest: no more than this may leave.
        history: gets whatever is measured.
        small: gets what of it is small enough.
    """

    largest: float = 1.0
    history: list[Evaluation] = field(default_factory=list)
    small: list[Evaluation] = field(default_factory=list)

    @property
    def best_small(self) -> Evaluation | None:
        """The best so far that is small enough; one that misses a constraint by little, if all do."""
        return max(self.small, key=self.rank, default=None)

    def evaluate(self, candidates: Sequence[IntArray]) -> list[Evaluation]:
        """Measure candidates, until one is small enough and satisfies."""
        measured = super().evaluate(candidates)
        self.history.extend(measured)
        small = [e for e, levels in zip(measured, candidates, strict=True) if self._is_small(levels)]
        self.small.extend(small)
        for evaluation in small:
            if evaluation.satisfied and evaluation.error is None:
                raise _EnoughError(evaluation)
        return measured

    def _is_small(self, levels: IntArray) -> bool:
        """Whether as much leaves as was asked for, and no more than may: some candidates only probe a group."""
        (goal,), sparsity = self.goals, float(self.sparsity(levels))
        caps = (cap.is_met_by(float(self.sparsity(levels, cap.component))) for cap in self.caps)
        return goal.low - ROUNDING <= sparsity <= self.largest + ROUNDING and all(caps)

"""Sensitivity: what each group is worth alone, an allocation from that, and swaps judged by the metric itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.allocation.budget import meet, nearby_path, uniform_path
from secateur.allocation.curves import curve_candidates, measured_curves, suggested
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.strategy import check_positive, check_seed, check_whole, checked_coefficients
from secateur.allocation.swaps import SwapSearch
from secateur.errors import InfeasibleError, SearchError
from secateur.graph.cost import IntArray

_SWAPS_PER_VARIABLE = 12
"""Evaluations of swaps for each variable where the user doesn't say how many."""


@dataclass(frozen=True)
class Sensitivity:
    """Curves of the metric per group, an allocation against the exact cost, then swaps that keep the target met.

    1. Every group alone is measured at a few coefficients (after refit, if there is calibration data). The points
       don't depend on the target: searches at several targets share them.
    2. The coefficients that meet the target with the least sum of the curves' losses are found by the exact cost.
    3. Losses of several groups don't add, so that this is only a start, as are uniform coefficients. From the better
       one on, one group after the other is made wider and narrower while all others make up for it, and what the
       metric itself finds better is kept. When nothing is better, the steps are halved.

    Each group's two swaps are measured at once. Needs an objective or constraints.

    Attributes:
        points: the coefficients of the curves, in (0, 1).
        evaluations: the most to measure, curves included; what the curves and some sweeps of swaps need if not given.
        step: of the first swaps, in the logarithm of a group's width, above 0.
        seed: of the order in which groups take turns.

    Raises:
        SearchError: a setting outside its range.
    """

    points: Sequence[float] = (0.5, 0.75, 0.9)
    evaluations: int | None = None
    step: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        points = checked_coefficients(self.points, "the points of a curve", with_zero=False)
        object.__setattr__(self, "points", points)
        if self.evaluations is not None:
            check_whole(self.evaluations, "evaluations")
        check_positive(self.step, "the step")
        check_seed(self.seed)

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            SearchError: ``evaluations`` don't suffice for the curves.
            InfeasibleError: the target can't be met; the message names the nearest that can.
            ObjectiveError: there is neither objective nor constraint, or measuring failed for every candidate.
            ConstraintError: no candidate satisfies every constraint.
        """
        uniform = meet(problem, uniform_path(problem))
        evaluations = self._most(problem)
        problem.expect(evaluations)
        curves = measured_curves(problem, self.points)
        search = SwapSearch(problem, curves.evaluations, evaluations=evaluations, step=self.step, seed=self.seed)
        best = search.run([suggested(problem, curves), *_hinted(problem), uniform])
        return problem.result(best, search.history)

    def _most(self, problem: Problem) -> int:
        """The most to measure."""
        variables, points = len(problem.fractions), len(curve_candidates(problem, self.points))
        if self.evaluations is None:
            return 1 + points + _SWAPS_PER_VARIABLE * variables
        if self.evaluations < 2 + points:
            raise SearchError(
                f"evaluations={self.evaluations} don't suffice: the curves of {variables} groups at {len(self.points)} "
                f"points need {1 + points}, and the search one more at least; give more evaluations, or fewer points"
            )
        return self.evaluations


def _hinted(problem: Problem) -> Iterator[IntArray]:
    """Levels that meet the target near candidates that are good for other targets."""
    for hint in problem.hints:
        coefficients = problem.coefficients(problem.levels_of(hint))
        try:
            yield meet(problem, nearby_path(problem, np.asarray(coefficients)))
        except InfeasibleError:
            continue  # another hint, or none

"""Random: random directions to the target, the classical baseline; the best of them, if there are several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secateur.allocation.budget import direction_path
from secateur.allocation.mixture import meet_near
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.strategy import check_seed, check_whole
from secateur.graph.cost import IntArray

_SPARE_DRAWS = 20
"""Draws that may repeat earlier ones: where channels are few, there aren't many candidates that meet the target."""


@dataclass(frozen=True)
class Random:
    """Coefficients in random proportions that meet the target; with ``draws`` above 1, the best by the objective.

    The fraction of a group's channels that stays falls as ``exp(-t d)``, with d drawn per group from the exponential
    distribution, so that all mixtures of groups are equally likely, and t where the target is met. A direction that
    can't meet all targets, those of components among them, is bent towards the uniform one as little as is needed.

    Attributes:
        draws: how many candidates to draw; more than one needs an objective or constraints.
        seed: of the draws.

    Raises:
        SearchError: a setting outside its range.
    """

    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self.draws, "draws")
        check_seed(self.seed)

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
            ObjectiveError: ``draws`` is above 1 and there is nothing to compare the draws by, or measuring all failed.
            ConstraintError: no draw satisfies every constraint.
        """
        candidates = self._candidates(problem)
        if self.draws == 1:
            return problem.settled(candidates[0])
        problem.expect(len(candidates))
        evaluations = problem.evaluate(candidates)
        return problem.result(problem.best(evaluations), evaluations)

    def _candidates(self, problem: Problem) -> list[IntArray]:
        """Different levels that meet the target; fewer than ``draws`` if the directions give no more."""
        rng = np.random.default_rng(self.seed)
        found: dict[bytes, IntArray] = {}
        for _ in range(self.draws + _SPARE_DRAWS):
            directions = rng.exponential(size=len(problem.fractions))
            levels = meet_near(problem, direction_path(problem, directions))
            found.setdefault(levels.tobytes(), levels)
            if len(found) == self.draws:
                break
        return list(found.values())

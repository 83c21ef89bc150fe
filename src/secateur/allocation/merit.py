"""What makes one measured candidate better than another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secateur.allocation.objective import Constraint, Minimize, Objective
from secateur.allocation.result import Evaluation


@dataclass(frozen=True)
class Merit:
    """An order of candidates by the application's objective and constraints.

    Attributes:
        objective: the metric to keep high, or low.
        constraints: the bounds on other metrics.
    """

    objective: Objective | None = None
    constraints: tuple[Constraint, ...] = ()

    def value(self, evaluation: Evaluation) -> float:
        """What to maximise: the objective, negative where less is better; without one, the least margin.

        Constraints don't enter where there is an objective; NaN for a candidate that failed.
        """
        if evaluation.error is not None:
            return math.nan
        if evaluation.objective is None:
            return self.margin(evaluation)
        return -evaluation.objective if isinstance(self.objective, Minimize) else evaluation.objective

    def margin(self, evaluation: Evaluation) -> float:
        """The least margin of the constraints, negative if one isn't satisfied; infinite if there are none."""
        return min((c.margin(evaluation.constraints[c.name]) for c in self.constraints), default=math.inf)

    def rank(self, evaluation: Evaluation) -> tuple[int, float]:
        """A key that orders candidates: failed ones, those that miss a constraint by least margin, then by value."""
        if evaluation.error is not None:
            return (0, 0.0)
        if not evaluation.satisfied:
            return (1, self.margin(evaluation))
        return (2, self.value(evaluation))

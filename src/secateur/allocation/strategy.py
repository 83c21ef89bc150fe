"""The interface that every allocation strategy has."""

from __future__ import annotations

from typing import Protocol

from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult


class Strategy(Protocol):
    """Finds pruning coefficients that meet a target; one class, in one file, for each way to do it."""

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
        """
        ...

"""Uniform: the same pruning coefficient for every group, but for rounding to whole channels."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.allocation.budget import meet, uniform_path
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult


@dataclass(frozen=True)
class Uniform:
    """One common coefficient for all groups, as near to the target as whole channels allow.

    With targets for components, each of these has a common coefficient of its own, and all other groups another. Needs
    no objective; one that is given is measured once.
    """

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
            ConstraintError: the one candidate misses a constraint.
        """
        return problem.settled(meet(problem, uniform_path(problem)))

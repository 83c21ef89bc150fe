"""The interface that every allocation strategy has."""

from __future__ import annotations

from typing import Protocol

from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.errors import SearchError


class Strategy(Protocol):
    """Finds pruning coefficients that meet a target; one class, in one file, for each way to do it."""

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
        """
        ...


def check_strategy(strategy: object) -> None:
    """Check what a user gives as a strategy.

    Raises:
        SearchError: it is a class instead of an instance, or can't be called.
    """
    if isinstance(strategy, type) or not callable(strategy):
        given = strategy.__name__ if isinstance(strategy, type) else repr(strategy)
        raise SearchError(f"the strategy must be one such as Uniform() or Sensitivity(), not {given}")


def check_seed(seed: object) -> None:
    """Check the seed of a strategy.

    Raises:
        SearchError: it is none that every random generator takes.
    """
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise SearchError(f"seed must be a whole number from 0 to 2**32 - 1; it is {seed!r}")

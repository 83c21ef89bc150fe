"""The interface that every allocation strategy has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.errors import SearchError
from secateur.metrics.checks import is_number, is_positive, is_whole


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


def check_whole(value: object, name: str, least: int = 1) -> None:
    """Check a number of things in a strategy's settings.

    Raises:
        SearchError: it is no whole number, or less than that.
    """
    if not is_whole(value, least):
        raise SearchError(f"{name} must be a whole number, at least {least}; it is {value!r}")


def check_positive(value: object, name: str) -> None:
    """Check a rate or a width in a strategy's settings.

    Raises:
        SearchError: it is no finite number above 0.
    """
    if not is_positive(value):
        raise SearchError(f"{name} must be above 0; it is {value!r}")


def checked_coefficients(values: object, what: str, *, with_zero: bool) -> tuple[float, ...]:
    """The pruning coefficients in a strategy's settings; an iterator is read here.

    Raises:
        SearchError: there are none, or one of them is no number in (0, 1), or in [0, 1) with zero.
    """
    found = tuple(values) if isinstance(values, Iterable) else ()
    if not found or not all(is_number(c) and 0 <= c < 1 and (with_zero or c > 0) for c in found):
        raise SearchError(f"{what} must lie in {'[' if with_zero else '('}0, 1); they are {values!r}")
    return tuple(float(c) for c in found)


def check_seed(seed: object) -> None:
    """Check the seed of a strategy.

    Raises:
        SearchError: it is none that every random generator takes.
    """
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise SearchError(f"seed must be a whole number from 0 to 2**32 - 1; it is {seed!r}")

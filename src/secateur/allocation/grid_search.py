"""GridSearch: every combination of a few coefficients per group; those off the target cost nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.allocation.budget import meet, uniform_path
from secateur.allocation.problem import ROUNDING, Goal, Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.strategy import check_whole, checked_coefficients
from secateur.errors import InfeasibleError, SearchError
from secateur.graph.cost import IntArray
from secateur.plan import FloatArray

_MOST_COMBINATIONS = 20_000_000
"""Combinations whose cost is computed at most: minutes."""

_CHUNK = 2**14
"""Combinations in memory at a time."""


@dataclass(frozen=True)
class GridSearch:
    """Every combination of a few coefficients per group (per tie, where groups must shrink alike), the best measured.

    Combinations that miss the target are skipped by their exact cost, before anything is measured. By default a group's
    coefficients go from 0 to the uniform one that meets the target, and on to where the group alone would meet it (at
    most to an eighth of its width, or to the square of uniform's fraction), in equal steps of the logarithm of the
    width. From 3 levels on, uniform coefficients are among the combinations.

    Memory: a chunk of combinations, and those that meet the target, at most ``max_evaluations``.

    Attributes:
        levels: coefficients per group, at least 2.
        coefficients: instead, the coefficients, in [0, 1), the same for every group; each to the nearest that the
            group's channels and the target's limits allow.
        max_evaluations: measurements at most. A grid that needs more is an error, not cut short.

    Raises:
        SearchError: a setting outside its range.
    """

    levels: int = 5
    coefficients: Sequence[float] | None = None
    max_evaluations: int = 1000

    def __post_init__(self) -> None:
        check_whole(self.levels, "levels", 2)
        check_whole(self.max_evaluations, "max_evaluations")
        if self.coefficients is not None:
            coefficients = checked_coefficients(self.coefficients, "the grid's coefficients", with_zero=True)
            object.__setattr__(self, "coefficients", coefficients)

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            SearchError: too many combinations to go through, or more of them to measure than ``max_evaluations``.
            InfeasibleError: no combination meets the target; the message names the nearest sparsities on the grid.
            ObjectiveError: there is neither objective nor constraint, or measuring failed for every combination.
            ConstraintError: no combination satisfies every constraint.
        """
        candidates = self._candidates(problem)
        problem.expect(len(candidates))
        evaluations = problem.evaluate(candidates)
        return problem.result(problem.best(evaluations), evaluations)

    def _candidates(self, problem: Problem) -> list[IntArray]:
        """The combinations that meet the target, each of shape (variables,)."""
        grid = self._grid(problem)
        count = math.prod(len(levels) for levels in grid)
        if count > _MOST_COMBINATIONS:
            raise SearchError(
                f"the grid has {count:,} combinations, too many to go through ({_MOST_COMBINATIONS:,} at most);"
                f" {_SMALLER}"
            )
        met: list[IntArray] = []
        found = 0
        for combinations in _combinations(grid):
            fitting = combinations[problem.is_met_by(combinations)]
            found += len(fitting)
            if found <= self.max_evaluations:
                met.extend(fitting)
        if found > self.max_evaluations:
            raise SearchError(
                f"{found:,} of the grid's {count:,} combinations meet the target, more than "
                f"max_evaluations={self.max_evaluations:,}; raise it, or {_SMALLER}"
            )
        if found == 0:
            raise InfeasibleError(_complaint(problem, grid))
        return met

    def _grid(self, problem: Problem) -> list[IntArray]:
        """The levels of every variable, ascending and different."""
        if self.coefficients is not None and problem.fractions:
            rows = [problem.nearest_levels(np.full(len(problem.fractions), c)) for c in self.coefficients]
        else:
            rows = [problem.nearest_levels(1 - np.exp(-shrinkage)) for shrinkage in self._shrinkages(problem)]
        return [np.unique(column) for column in np.array(rows).T]

    def _shrinkages(self, problem: Problem) -> FloatArray:
        """The logarithms of how many times narrower each variable gets, shape (levels, variables)."""
        uniform = -np.log(1 - problem.coefficients(meet(problem, uniform_path(problem))))
        most = np.minimum(_alone(problem), np.maximum(2 * uniform, np.log(_NARROWEST)))
        below = (self.levels + 1) // 2
        return np.concatenate(
            [
                np.linspace(0, uniform, below),
                np.linspace(uniform, np.maximum(most, uniform), self.levels - below + 1)[1:],
            ]
        )


_NARROWEST = 8
"""How many times narrower than dense a group of the default grid gets, unless uniform coefficients come near that."""


def _alone(problem: Problem) -> FloatArray:
    """How far each variable must shrink to meet its goal alone, as a logarithm, shape (variables,); else infinite."""
    count = len(problem.fractions)
    shrinkages = np.full(count, np.inf)
    for goal in problem.goals:
        for variable in goal.variables:
            fractions = problem.fractions[variable]
            levels = np.arange(len(fractions))[:, None] * (np.arange(count) == variable)
            enough = np.flatnonzero(problem.sparsity(levels, goal.component) >= goal.low)
            if len(enough):
                shrinkages[variable] = -np.log(fractions[enough[0]])
    return shrinkages


_SMALLER = "take fewer levels, protect groups, or search with Sensitivity or BlackBox instead"


def _combinations(grid: Sequence[IntArray]) -> Iterator[IntArray]:
    """All combinations of levels, shape (at most ``_CHUNK``, variables) at a time."""
    shape = [len(levels) for levels in grid]
    count = math.prod(shape)
    for start in range(0, count, _CHUNK):
        indices = np.unravel_index(np.arange(start, min(start + _CHUNK, count)), shape)
        yield np.stack([levels[i] for levels, i in zip(grid, indices, strict=True)], axis=-1)


def _complaint(problem: Problem, grid: Sequence[IntArray]) -> str:
    """Why no combination meets the target, and what the grid reaches."""
    goals = "; together with ".join(_reached(problem, goal, grid) for goal in problem.goals)
    return f"the grid can't meet {goals}; take more levels, other coefficients or a larger tolerance"


def _reached(problem: Problem, goal: Goal, grid: Sequence[IntArray]) -> str:
    """A goal, and the grid's nearest sparsities on both sides of it."""
    below, above = -math.inf, math.inf
    for combinations in _combinations(grid):
        sparsities = problem.sparsity(combinations, goal.component)
        is_below = sparsities <= goal.rho + ROUNDING
        below = max(below, float(np.max(sparsities, where=is_below, initial=-math.inf)))
        above = min(above, float(np.min(sparsities, where=~is_below, initial=math.inf)))
    whose = "" if goal.component is None else f" of component {goal.component!r}"
    nearest = " and ".join(f"{value:.4f}" for value in (below, above) if math.isfinite(value))
    target = problem.target
    return f"a sparsity{whose} of {goal.rho:g} ({target.of}, within {target.tolerance:g}; its nearest: {nearest})"

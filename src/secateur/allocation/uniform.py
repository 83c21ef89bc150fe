"""Uniform: the same pruning coefficient for every group, but for rounding to whole channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from secateur.allocation.problem import ROUNDING, Goal, Problem
from secateur.allocation.result import AllocationResult
from secateur.errors import TargetError
from secateur.graph.cost import IntArray
from secateur.plan import FloatArray

_PROBES = 15
"""Candidates evaluated at once while searching the staircase."""

_SWEEPS = 40
"""Rounds over all goals, when there are several; each goal's solution moves the others' a little less every round."""

_MOST_COMBINATIONS = 4**7
"""Up to here, all combinations of levels beside the common coefficient's are tried while refining."""


@dataclass(frozen=True)
class Uniform:
    """One common coefficient for all groups, as near to the target as whole channels allow.

    Sparsity is a staircase in the common coefficient; the two steps around the target are found by bisection with the
    exact cost. If both miss the tolerance, single groups may differ from the common coefficient by one step of their
    own. With targets for components, each of these has a common coefficient of its own, and all other groups another.

    Evaluates O(log channels) candidates; a refinement at most 4 ** 7, or O(groups) for each of its steps.
    """

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            TargetError: the target can't be met; the message names the nearest that can.
        """
        goals = problem.goals
        levels = np.zeros(len(problem.fractions), dtype=np.int64)
        for _ in range(_SWEEPS):
            before, searches = levels, []
            for goal in goals:
                searches.append(_Search(problem, goal, levels))
                levels = searches[-1].nearest
            if all(s.is_met_by(levels) for s in searches) or np.array_equal(before, levels):
                break
        for search in searches:
            if not search.is_met_by(levels):
                raise TargetError(search.complaint(others=len(goals) > 1))
        return problem.result(levels, [problem.evaluation(levels)])


class _Search:
    """The search for one goal's variables while all others stay as they are.

    Attributes:
        nearest: the levels nearest to the goal, shape (variables,).
    """

    def __init__(self, problem: Problem, goal: Goal, levels: IntArray) -> None:
        self._problem, self._goal = problem, goal
        self._others = levels.copy()
        self._others[goal.variables] = 0
        self._is_mine = np.isin(np.arange(len(levels)), goal.variables)
        self._below, self._above = -math.inf, math.inf
        self._moves, ends = _staircase(problem, goal)
        low, high = self._bracket(ends)
        self.nearest = self._nearest_of(self._after(ends[max(low, 0) : high + 1]))
        if low >= 0 and high < len(ends) and not self.is_met_by(self.nearest):
            self.nearest = self._refined(int(ends[low]), int(ends[high]))

    def is_met_by(self, levels: IntArray) -> bool:
        """Whether these levels meet the goal."""
        achieved = float(self._problem.sparsity(levels, self._goal.component))
        return self._problem.met(self._goal, achieved)

    def complaint(self, *, others: bool) -> str:
        """Why the goal can't be met, and what can."""
        goal, target = self._goal, self._problem.target
        whose = "" if goal.component is None else f" of component {goal.component!r}"
        wanted = f"a sparsity{whose} of {goal.rho:g} ({target.of}, within {target.tolerance:g})"
        if len(goal.variables) == 0:
            return f"{wanted} can't be met: no channel group serves it; print(graph) says what can't be pruned and why"
        together = " together with the other targets" if others else ""
        return f"{wanted} can't be met{together}: {self._nearest_values()}"

    def _nearest_values(self) -> str:
        below, above = (_shown(value, self._problem.target.tolerance) for value in (self._below, self._above))
        if math.isinf(self._above):
            return f"the largest possible is {below}"
        if math.isinf(self._below):
            return f"the smallest possible is {above}"
        lower = "0 (nothing removed)" if self._below <= ROUNDING else below
        return f"the nearest that can be met are {lower} and {above}"

    # --- the staircase ----------------------------------------------------------------------------------------------

    def _after(self, counts: IntArray) -> IntArray:
        """Levels after the first moves, shape (candidates, variables), for numbers of moves, shape (candidates,)."""
        width = len(self._others)
        made = [np.bincount(self._moves[:n], minlength=width) for n in counts]
        return self._others + np.array(made, dtype=np.int64)

    def _bracket(self, counts: IntArray) -> tuple[int, int]:
        """The last of these ascending numbers of moves that doesn't exceed the goal, and the next; -1, len if none."""
        low, high = -1, len(counts)
        while high - low > 1:
            probes = np.unique(np.linspace(low, high, _PROBES + 2).astype(np.int64).clip(low + 1, high - 1))
            exceeding = self._sparsities(self._after(counts[probes])) > self._goal.rho + ROUNDING
            first = int(np.argmax(exceeding)) if exceeding.any() else len(probes)
            low, high = (
                (int(probes[first - 1]) if first else low),
                (int(probes[first]) if first < len(probes) else high),
            )
        return low, high

    def _nearest_of(self, candidates: IntArray) -> IntArray:
        """The candidate nearest to the goal; of equals the first. Shape (variables,) of (candidates, variables)."""
        nearest: IntArray = candidates[np.argmin(self._errors(candidates))]
        return nearest

    def _sparsities(self, candidates: IntArray) -> FloatArray:
        """Sparsity of every candidate, shape (candidates,); remembers the nearest on both sides of the goal."""
        values = self._problem.sparsity(candidates, self._goal.component)
        exceeding = values > self._goal.rho + ROUNDING
        self._below = max(self._below, np.max(values, where=~exceeding, initial=-math.inf))
        self._above = min(self._above, np.min(values, where=exceeding, initial=math.inf))
        return values

    def _errors(self, candidates: IntArray) -> FloatArray:
        return np.abs(self._sparsities(candidates) - self._goal.rho)

    # --- between two steps of the staircase -------------------------------------------------------------------------

    def _refined(self, low: int, high: int) -> IntArray:
        """Levels near the goal, each at most one beside the levels after ``low`` or ``high`` moves."""
        lowest, highest = self._after(np.array([low, high]))
        lower, upper = np.maximum(lowest - 1, 0), np.minimum(highest + 1, self._problem.last_levels)
        lower, upper = (np.where(self._is_mine, levels, self._others) for levels in (lower, upper))
        if math.prod((upper - lower + 1).tolist()) <= _MOST_COMBINATIONS:
            ranges = (range(a, b + 1) for a, b in zip(lower.tolist(), upper.tolist(), strict=True))
            return self._nearest_of(np.array(list(product(*ranges)), dtype=np.int64))
        return self._descended(low, high, lower, upper)

    def _descended(self, low: int, high: int, lower: IntArray, upper: IntArray) -> IntArray:
        """From the nearest of the single moves between two steps, one level at a time as long as that comes nearer."""
        counts = np.arange(low, high + 1)
        levels = self._nearest_of(self._after(counts[list(self._bracket(counts))]))
        single = np.eye(len(levels), dtype=np.int64)[self._goal.variables]
        steps = np.vstack([single, -single])
        while True:
            candidates = levels + steps
            inside = ((candidates >= lower) & (candidates <= upper)).all(axis=1)
            best = self._nearest_of(np.vstack([levels, candidates[inside]]))
            if np.array_equal(best, levels):
                return levels
            levels = best


def _staircase(problem: Problem, goal: Goal) -> tuple[IntArray, IntArray]:
    """All moves of a goal's variables to their next level, as the common coefficient grows.

    Returns:
        The variable of every move, shape (moves,), in order; and the numbers of moves made at each step of the
        staircase, from 0 to all.
    """
    # A variable goes to its next level when the common coefficient passes the middle between the two.
    passed = [1 - (problem.fractions[v][:-1] + problem.fractions[v][1:]) / 2 for v in goal.variables]
    variables = np.repeat(goal.variables, [len(p) for p in passed])
    coefficients = np.round(np.concatenate([np.zeros(0), *passed]), 12)
    order = np.argsort(coefficients, kind="stable")
    ends = np.flatnonzero(np.diff(coefficients[order], append=np.inf)) + 1
    return variables[order].astype(np.int64), np.concatenate([[0], ends])


def _shown(value: float, tolerance: float) -> str:
    """A sparsity with enough digits to be asked for."""
    return f"{value:.4f}" if tolerance >= 1e-3 else f"{value:.12g}"

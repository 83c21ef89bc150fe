"""Whole channels that meet a target, along a path from the dense model to the narrowest.

A *path* says in which order the variables take their next levels: per variable an ascending array of shape
(levels - 1,) with the moment at which each next level is reached. A common pruning coefficient that grows is one path;
one that grows faster for some groups is another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from secateur.allocation.problem import ROUNDING, Goal, Problem
from secateur.errors import InfeasibleError
from secateur.graph.cost import IntArray
from secateur.plan import FloatArray

Path = Sequence[FloatArray]

_PROBES = 15
"""Candidates evaluated at once while searching the staircase."""

_SWEEPS = 40
"""Rounds over all goals, when there are several; each goal's solution moves the others' a little less every round."""

_MOST_COMBINATIONS = 4**7
"""Up to here, all combinations of levels beside the path's are tried while refining."""

_UNMET = 2.0
"""Further from an aim than any sparsity is."""

_SMALLEST = 1e-9
"""Coefficients nearer to 0 or 1 than this are taken to be this far from it."""


def uniform_path(problem: Problem) -> Path:
    """The path of one common pruning coefficient."""
    return [np.round(middles, 12) for middles in _middles(problem)]


def direction_path(problem: Problem, directions: FloatArray) -> Path:
    """The path on which the fraction of channels kept falls as ``exp(-t d)``.

    Args:
        problem: what is searched.
        directions: d, shape (variables,), not negative; equal ones are the uniform path, 0 leaves a variable whole.
    """
    with np.errstate(divide="ignore"):
        return [-np.log1p(-middles) / d for middles, d in zip(_middles(problem), directions, strict=True)]


def nearby_path(problem: Problem, coefficients: FloatArray) -> Path:
    """The path through these coefficients, shape (variables,), on which the logits of all move by the same amount."""
    aims = _logit(coefficients)
    return [_logit(middles) - aim for middles, aim in zip(_middles(problem), aims, strict=True)]


def meet(problem: Problem, path: Path) -> IntArray:
    """Levels, shape (variables,), that meet every goal and stay below every cap, on the path or beside it.

    Sparsity is a staircase along the path; the two steps around the target are found by bisection with the exact cost.
    If both miss the tolerance, single variables may differ by one level of their own. With goals for components, each
    of these has a staircase of its own, and all other variables another; a component that would exceed its cap is given
    one too. Evaluates the cost of O(log channels) candidates; a refinement of at most 4 ** 7, or O(groups) for each of
    its steps.

    Raises:
        InfeasibleError: the target can't be met; the message names the nearest that can.
    """
    goals = problem.goals
    for _ in range(len(problem.caps) + 1):
        levels = _meet_all(problem, goals, path)
        exceeded = [c for c in problem.caps if not c.is_met_by(float(problem.sparsity(levels, c.component)))]
        if not exceeded:
            break
        goals = (*exceeded, *(_without(goal, exceeded) for goal in goals))
    return levels


def _without(goal: Goal, others: Sequence[Goal]) -> Goal:
    """The goal, served only by variables that don't serve others."""
    taken = np.concatenate([other.variables for other in others])
    return replace(goal, variables=np.setdiff1d(goal.variables, taken))


def _meet_all(problem: Problem, goals: Sequence[Goal], path: Path) -> IntArray:
    levels = np.zeros(len(problem.fractions), dtype=np.int64)
    searches: list[_Search] = []
    for _ in range(_SWEEPS):
        before, searches = levels, []
        for goal in goals:
            searches.append(_Search(problem, goal, levels, path))
            levels = searches[-1].nearest
        if all(s.is_met_by(levels) for s in searches) or np.array_equal(before, levels):
            break
    for search in searches:
        if not search.is_met_by(levels):
            raise InfeasibleError(search.complaint(others=len(goals) > 1))
    return levels


def _middles(problem: Problem) -> list[FloatArray]:
    """The coefficients in the middle between each level and the next, per variable."""
    return [1 - (f[:-1] + f[1:]) / 2 for f in problem.fractions]


def _logit(coefficients: FloatArray) -> FloatArray:
    inside = np.clip(coefficients, _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(inside / (1 - inside)))


class _Search:
    """The search for one goal's variables while all others stay as they are.

    Attributes:
        nearest: the levels nearest to the goal, shape (variables,).
    """

    def __init__(self, problem: Problem, goal: Goal, levels: IntArray, path: Path) -> None:
        self._problem, self._goal = problem, goal
        self._others = levels.copy()
        self._others[goal.variables] = 0
        self._is_mine = np.isin(np.arange(len(levels)), goal.variables)
        self._below, self._above = -math.inf, math.inf
        self._moves, ends = _staircase(goal, path)
        low, high = self._bracket(ends)
        self.nearest = self._nearest_of(self._after(ends[max(low, 0) : high + 1]))
        if low >= 0 and high < len(ends) and not self.is_met_by(self.nearest):
            self.nearest = self._refined(int(ends[low]), int(ends[high]))

    def is_met_by(self, levels: IntArray) -> bool:
        """Whether these levels meet the goal."""
        return self._goal.is_met_by(float(self._problem.sparsity(levels, self._goal.component)))

    def complaint(self, *, others: bool) -> str:
        """Why the goal can't be met, and what can."""
        goal, target = self._goal, self._problem.target
        whose = "" if goal.component is None else f" of component {goal.component!r}"
        wanted = f"a sparsity{whose} of {goal.rho:g} ({target.of}, within {target.tolerance:g})"
        if math.isinf(goal.low):
            return (
                f"the cap of {goal.high:g}{whose} can't be kept: channels that it shares take more; cap or protect them"
            )
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
        """The candidate nearest to the goal, of those that meet it if any do; of equals the first.

        Shape (variables,) of (candidates, variables).
        """
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
        """Distance from the aim, shape (candidates,); more than any other where the goal isn't met, as above a cap."""
        values, goal = self._sparsities(candidates), self._goal
        is_met = (values >= goal.low - ROUNDING) & (values <= goal.high + ROUNDING)
        return np.asarray(np.abs(values - goal.rho) + np.where(is_met, 0.0, _UNMET))

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


def _staircase(goal: Goal, path: Path) -> tuple[IntArray, IntArray]:
    """All moves of a goal's variables to their next level, as the path goes.

    Returns:
        The variable of every move, shape (moves,), in order; and the numbers of moves made at each step of the
        staircase, from 0 to all. Moves at infinity are never made.
    """
    variables = np.repeat(goal.variables, [len(path[v]) for v in goal.variables])
    moments = np.concatenate([np.zeros(0), *(path[v] for v in goal.variables)])
    order = np.argsort(moments, kind="stable")[: int(np.isfinite(moments).sum())]
    ends = np.flatnonzero(np.diff(moments[order], append=np.inf)) + 1
    return variables[order].astype(np.int64), np.concatenate([[0], ends])


def _shown(value: float, tolerance: float) -> str:
    """A sparsity with enough digits to be asked for."""
    return f"{value:.4f}" if tolerance >= 1e-3 else f"{value:.12g}"


def path_sparsities(problem: Problem, path: Path, most: int = 512) -> list[float]:
    """Sparsities of the whole model on a path, ascending and distinct, at most so many of them."""
    everything = Goal(None, 1.0, 0.0, 1.0, np.arange(len(problem.fractions), dtype=np.int64))
    moves, ends = _staircase(everything, path)
    counts = ends[np.unique(np.linspace(0, len(ends) - 1, most).round().astype(np.int64))]
    levels = np.array([np.bincount(moves[:n], minlength=len(path)) for n in counts], dtype=np.int64)
    return sorted(set(problem.sparsity(levels).tolist()))

"""What each group's channels are worth alone: curves of the metric, and the allocation that they suggest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from secateur.allocation.budget import Path, meet, uniform_path
from secateur.allocation.mixture import meet_near
from secateur.allocation.problem import Problem
from secateur.allocation.result import Evaluation
from secateur.graph.cost import IntArray
from secateur.plan import FloatArray

_ROUNDS = 15
"""Prices and allocation follow each other; on the models tried they stay within a channel or two from the fifth on."""

_PRICE_STEP = 0.02
"""Width of the difference quotient that a price is, as a fraction of a variable's levels."""

_TIE = 1e-9
"""Weight of the uniform path, which decides between steps that lose equally little."""


@dataclass(frozen=True, eq=False)
class Curves:
    """How much the metric loses when one variable shrinks and all others stay.

    Attributes:
        losses: per variable, the loss at each level, shape (levels,), from 0 up; interpolated between measured ones.
        evaluations: what was measured, the model with nothing removed first.
    """

    losses: tuple[FloatArray, ...]
    evaluations: tuple[Evaluation, ...]


def curve_candidates(problem: Problem, coefficients: Sequence[float]) -> list[tuple[int, IntArray]]:
    """For every variable and coefficient the levels at which that variable alone shrinks: (variable, levels)."""
    count = len(problem.fractions)
    found = []
    for variable in range(count):
        alone = [np.where(np.arange(count) == variable, c, 0.0) for c in coefficients]
        levels = {int(problem.nearest_levels(c)[variable]) for c in alone} - {0}
        found += [(variable, np.where(np.arange(count) == variable, level, 0)) for level in sorted(levels)]
    return found


def measured_curves(problem: Problem, coefficients: Sequence[float]) -> Curves:
    """Measure the model with nothing removed, and every variable alone at these coefficients; each at most once.

    What can't be measured leaves a gap. Curves never fall: a smaller width that happens to be better counts as equal.

    Raises:
        ObjectiveError: there is neither objective nor constraint.
    """
    points = curve_candidates(problem, coefficients)
    nothing = np.zeros(len(problem.fractions), dtype=np.int64)
    evaluations = problem.evaluate([nothing, *(levels for _, levels in points)])
    values = np.array([problem.value(e) for e in evaluations])  # NaN where measuring failed
    reference = values[0] if np.isfinite(values[0]) else np.max(values, where=np.isfinite(values), initial=-np.inf)
    known: list[dict[int, float]] = [{0: 0.0} for _ in nothing]
    for (variable, levels), value in zip(points, values[1:], strict=True):
        if np.isfinite(value):
            known[variable][int(levels[variable])] = float(reference - value)
    curves = (_curve(fractions, losses) for fractions, losses in zip(problem.fractions, known, strict=True))
    return Curves(tuple(curves), tuple(evaluations))


def _curve(fractions: FloatArray, known: Mapping[int, float]) -> FloatArray:
    """Loss at every level, shape (levels,): monotone interpolation in the width's logarithm, then a straight line."""
    shrinkage = np.log(fractions[0] / fractions)
    at = sorted(known)
    losses = np.maximum.accumulate([max(known[level], 0.0) for level in at])
    if len(at) == 1:
        return np.zeros(len(fractions))
    x = shrinkage[at]
    slope = (losses[-1] - losses[-2]) / (x[-1] - x[-2])
    beyond = np.maximum(shrinkage - x[-1], 0)
    return np.asarray(PchipInterpolator(x, losses)(np.minimum(shrinkage, x[-1])) + slope * beyond)


def suggested(problem: Problem, curves: Curves) -> IntArray:
    """Levels, shape (variables,), that meet the target with the least sum of losses, as far as losses add.

    A variable's next level is worth its loss per cost that it saves. The cost of a variable's channels depends on its
    neighbours' widths, so that prices and levels are found in turns; of the levels seen, the best.

    Raises:
        InfeasibleError: the target can't be met.
    """
    levels = meet(problem, uniform_path(problem))
    best, least = levels, _total(curves, levels)
    prices = _prices(problem, levels)
    for _ in range(_ROUNDS):
        levels = meet_near(problem, _path(problem, curves, prices))
        if _total(curves, levels) < least:
            best, least = levels, _total(curves, levels)
        # The geometric mean with the last prices, because the turns may overshoot.
        prices = np.sqrt(prices * _prices(problem, levels))
    return best


def _total(curves: Curves, levels: IntArray) -> float:
    return float(sum(losses[level] for losses, level in zip(curves.losses, levels, strict=True)))


def _path(problem: Problem, curves: Curves, prices: FloatArray) -> Path:
    """The path that takes the steps in the order of what they lose for what they save."""
    saved = [price * -np.diff(f) for f, price in zip(problem.fractions, prices, strict=True)]
    rates = [np.diff(losses) / s for losses, s in zip(curves.losses, saved, strict=True)]
    largest = max((float(rate.max()) for rate in rates if len(rate)), default=0.0) or 1.0
    # A flat piece after a steep one isn't cheap: what it keeps is destroyed already.
    steps = zip(rates, uniform_path(problem), strict=True)
    return [np.maximum.accumulate(rate) / largest + _TIE * middles for rate, middles in steps]


def _prices(problem: Problem, levels: IntArray) -> FloatArray:
    """Sparsity that a variable's whole width is worth while the others are as they are, shape (variables,).

    Sparsity is that of the goal which the variable serves.
    """
    count = len(levels)
    step = np.maximum(np.round(_PRICE_STEP * problem.last_levels).astype(np.int64), 1)
    fewer = np.where(np.eye(count, dtype=bool), np.maximum(levels - step, 0), levels)
    more = np.where(np.eye(count, dtype=bool), np.minimum(levels + step, problem.last_levels), levels)
    widths = np.diagonal(problem.coefficients(more) - problem.coefficients(fewer))
    prices = np.ones(count)
    for goal in problem.goals:
        saved = problem.sparsity(more, goal.component) - problem.sparsity(fewer, goal.component)
        prices[goal.variables] = (saved / np.where(widths > 0, widths, 1.0))[goal.variables]
    return np.maximum(prices, np.finfo(np.float64).tiny)

"""Swap search: one variable gives or takes channels, the others make up for it, so that the target stays met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from secateur.allocation.budget import meet, nearby_path
from secateur.allocation.problem import Problem
from secateur.allocation.result import Evaluation
from secateur.errors import InfeasibleError
from secateur.graph.cost import IntArray

_AT_ONCE = 1e12
"""Long before any moment of a path."""

_SMALLEST_STEP = 0.01
"""A swap that changes a width by less than this, as a fraction, ends the search."""


class SwapSearch:
    """From the best of some candidates on, swap after swap, as long as that is better; steps are halved when none is.

    Attributes:
        history: what was measured, in order; each candidate once.
    """

    def __init__(
        self, problem: Problem, history: Sequence[Evaluation], *, evaluations: int, step: float, seed: int
    ) -> None:
        """Nothing is measured yet.

        Args:
            problem: what is searched.
            history: what was measured before; it counts towards ``evaluations``.
            evaluations: the most to measure in all.
            step: of the first swaps, in the logarithm of a width.
            seed: of the order in which variables take turns.
        """
        self.history = list(history)
        self._problem, self._evaluations, self._step = problem, evaluations, step
        self._rng = np.random.default_rng(seed)
        self._seen: dict[bytes, Evaluation] = {}

    def run(self, starts: Sequence[IntArray]) -> Evaluation:
        """Search from the best of these levels, each meeting the target.

        Raises:
            ObjectiveError: measuring failed for every candidate.
            ConstraintError: no candidate satisfies every constraint.
        """
        self._measure(starts)
        count, rank = len(self._problem.fractions), self._problem.rank
        best = max(self._seen.values(), key=rank)
        step = self._step
        while step >= _SMALLEST_STEP and self._left > 0:
            before = best
            for variable in self._rng.permutation(count):
                levels = self._problem.levels_of(best)
                swapped = self._measure([*self._swaps(levels, int(variable), step)])
                best = max([best, *swapped], key=rank)
            if best is before:
                step /= 2
        return self._problem.best(list(self._seen.values()))

    @property
    def _left(self) -> int:
        return self._evaluations - len(self.history)

    def _measure(self, candidates: Sequence[IntArray]) -> list[Evaluation]:
        """Measure what is new among the candidates, as far as the evaluations reach."""
        new = {c.tobytes(): c for c in candidates if c.tobytes() not in self._seen}
        chosen = dict(list(new.items())[: self._left])
        evaluations = self._problem.evaluate(list(chosen.values())) if chosen else []
        self._seen.update(zip(chosen, evaluations, strict=True))
        self.history += evaluations
        return evaluations

    def _swaps(self, levels: IntArray, variable: int, step: float) -> Iterator[IntArray]:
        """The variable a step narrower and a step wider, at least a level; the others such that the target is met."""
        fractions = self._problem.fractions[variable]
        now, last = int(levels[variable]), len(fractions) - 1
        wider = int(np.abs(fractions - fractions[now] * np.exp(step)).argmin())
        narrower = int(np.abs(fractions - fractions[now] * np.exp(-step)).argmin())
        for level in (max(narrower, now + 1), min(wider, now - 1)):
            if 0 <= level <= last:
                path = list(nearby_path(self._problem, self._problem.coefficients(levels)))
                path[variable] = np.where(np.arange(last) < level, -_AT_ONCE, np.inf)
                try:
                    yield meet(self._problem, path)
                except InfeasibleError:
                    continue  # the others can't make up for this much

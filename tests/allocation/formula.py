"""Problems whose objective is a formula of the widths, so that the best candidate can be found by trying all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.allocation import Constraint, Evaluation, Measurements, Objective, Problem, Sparsity
from secateur.allocation.evaluator import Evaluator
from secateur.graph.cost import IntArray
from secateur.graph.graph import DependencyGraph
from tests.handmade import random_scores

Formula = Callable[[Mapping[str, float]], float]
"""Takes the fraction of channels that every group keeps."""


@dataclass
class Formulas:
    """Measurements that need no model; what the formula raises is recorded, as a failing objective would be."""

    formula: Formula | None
    constraints: Sequence[Constraint] = ()
    bounded: Mapping[str, Formula] = field(default_factory=dict)
    wrap: Callable[[Any], Objective] = lambda metric: metric
    model: nn.Module = field(default_factory=nn.Identity)
    calibration: None = None
    batches: list[list[Evaluation]] = field(default_factory=list)
    expected: int = 0

    @property
    def objective(self) -> Objective | None:
        return None if self.formula is None else self.wrap(lambda model: torch.nan)

    def beside(self, name: str, evaluator: Evaluator, *, counted: bool = False) -> Measurements:
        raise AssertionError(f"there is no model to measure {name} of")

    def expect(self, evaluations: int) -> None:
        self.expected += evaluations

    def evaluate(self, candidates: Sequence[Evaluation]) -> list[Evaluation]:
        measured = [self._measured(candidate) for candidate in candidates]
        self.batches.append(measured)
        return measured

    def _measured(self, candidate: Evaluation) -> Evaluation:
        kept = {name: 1 - c for name, c in candidate.coefficients.items()}
        try:
            objective = None if self.formula is None else self.formula(kept)
        except ArithmeticError as error:
            return replace(candidate, error=f"Traceback\n{type(error).__name__}: {error}", satisfied=False)
        values = {c.name: self.bounded[c.name](kept) for c in self.constraints}
        satisfied = all(c.margin(values[c.name]) >= 0 for c in self.constraints)
        return replace(candidate, objective=objective, constraints=values, satisfied=satisfied)


def posed(
    graph: DependencyGraph,
    target: Sparsity,
    formula: Formula | None = None,
    scores: Mapping[str, np.ndarray] | None = None,
    **settings: Any,
) -> tuple[Problem, Formulas]:
    """A problem whose candidates are measured by a formula."""
    measurements = Formulas(formula, **settings)
    return Problem(graph, scores or random_scores(graph), target, measurements), measurements


def every_level(problem: Problem) -> IntArray:
    """All combinations of levels that meet the target, shape (combinations, variables)."""
    ranges = (range(n + 1) for n in problem.last_levels.tolist())
    every = np.array(list(product(*ranges)), dtype=np.int64)
    met: IntArray = every[problem.is_met_by(every)]
    return met


def best_value(problem: Problem) -> float:
    """The best value that meets the target."""
    return max(problem.value(e) for e in problem.evaluate(list(every_level(problem))))

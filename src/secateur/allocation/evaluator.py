"""One candidate, measured: plan, surgery, refit, and the application's metrics on what comes out."""

from __future__ import annotations

import random
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.allocation.objective import Constraint, Objective, evaluate, metric_name
from secateur.calibration import CalibrationData, as_calibration
from secateur.errors import CalibrationError, ObjectiveError, SecateurError, SecateurWarning
from secateur.graph.graph import DependencyGraph
from secateur.graph.randomness import same_randomness
from secateur.importance.criterion import prunable_consumers
from secateur.metrics.estimate import Estimate
from secateur.plan import FloatArray, PruningPlan, plan
from secateur.recovery.refit import STEPS, Reference, refit_consumers
from secateur.surgery import apply

SEED = 0
"""The global random generators start from it for every candidate, so that none depends on those before it."""


@dataclass(frozen=True)
class Measurement:
    """What the application's metrics say about one candidate.

    Attributes:
        objective: its value; None if there is none, or if measuring failed.
        interval: its confidence interval; None if it has no width.
        constraints: constraint name to the value that is held against its bounds.
        seconds: that measuring took.
        error: traceback of what failed: a metric, or the refit of this candidate.
    """

    objective: float | None = None
    interval: tuple[float, float] | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None


class Evaluator:
    """Measures candidates one by one. The user's model stays as it is, and so does the global random state.

    Can be sent to other processes: what the dense model does on the calibration data is found anew in each.
    """

    def __init__(
        self,
        graph: DependencyGraph,
        scores: Mapping[str, FloatArray],
        model: nn.Module,
        objective: Objective | None,
        constraints: Sequence[Constraint],
        calibration: CalibrationData | None,
        refit_steps: int = STEPS,
    ) -> None:
        """Keep what candidates are made of and measured with; a one-shot iterator of calibration data is read here."""
        self.refit_steps = refit_steps
        self.graph, self.scores, self.model = graph, scores, model
        self.objective, self.constraints = objective, tuple(constraints)
        self.calibration = None if calibration is None else as_calibration(calibration).source

    def __call__(self, coefficients: Mapping[str, float]) -> Measurement:
        """Measure the candidate with these pruning coefficients.

        What fails for this candidate alone, a metric or its refit, is recorded in the result.

        Raises:
            CalibrationError: the calibration data is no good for the dense model.
            PlanError: the model can't be copied.
        """
        started = time.perf_counter()
        with _seeded():
            reference = self._reference
            pruning = plan(self.graph, self.scores, coefficients)
            small = apply(self.model, pruning)
            try:
                if reference is not None:
                    self._refit(small, pruning, reference)
                measured = self._metrics(small, pruning)
            except CalibrationError:
                measured = Measurement(error=traceback.format_exc())
        return replace(measured, seconds=time.perf_counter() - started)

    @cached_property
    def _reference(self) -> Reference | None:
        if self.calibration is None:
            return None
        return Reference.of(self.model, prunable_consumers(self.graph), self.calibration)

    def _refit(self, small: nn.Module, pruning: PruningPlan, reference: Reference) -> None:
        with warnings.catch_warnings():
            # Of few rows; the refit of the model that is chosen says so once, instead of every candidate's.
            warnings.simplefilter("ignore", SecateurWarning)
            refit_consumers(small, self.model, pruning, reference, steps=self.refit_steps)

    def _metrics(self, small: nn.Module, pruning: PruningPlan) -> Measurement:
        try:
            estimate = None if self.objective is None else evaluate(self.objective, small, pruning)
            constraints = {c.name: c.tested(evaluate(c.metric, small, pruning)) for c in self.constraints}
        except Exception:  # the user's own code may raise anything; the search goes on without this candidate
            return Measurement(error=traceback.format_exc())
        if estimate is None:
            return Measurement(constraints=constraints)
        return Measurement(estimate.value, estimate.interval, constraints)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_reference"}


def measured(
    objective: Objective, model: nn.Module, plan: PruningPlan | None = None, *, infinite: bool = False
) -> Estimate:
    """The objective of a model that is no candidate, with the random numbers that candidates are measured with.

    Args:
        objective: the metric.
        model: dense or small.
        plan: what made ``model`` small; None if it is dense.
        infinite: whether the value may be infinite on the good side.

    Raises:
        ObjectiveError: the metric fails, or its value is no finite number.
    """
    with _seeded():
        try:
            return evaluate(objective, model, plan, infinite=infinite)
        except SecateurError:
            raise
        except Exception as error:  # the user's own code may raise anything; it stays visible as the cause
            what = f"{type(error).__name__}: {error}"
            raise ObjectiveError(f"the metric {metric_name(objective)!r} failed: {what}") from error


@contextmanager
def _seeded() -> Iterator[None]:
    """The same global random state for every candidate; the user's own is put back."""
    with same_randomness():
        torch.manual_seed(SEED)
        np.random.seed(SEED)
        random.seed(SEED)
        yield

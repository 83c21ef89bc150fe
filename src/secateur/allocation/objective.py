"""The application's own metric: what pruning should keep high, or low, and within which bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.errors import ConstraintError, ObjectiveError
from secateur.metrics.estimate import Estimate, PlanMetric
from secateur.plan import PruningPlan

Metric = Callable[[nn.Module], Any]
"""Takes a model and returns a finite number, a tensor of one number, or an ``Estimate``."""


@dataclass(frozen=True)
class Minimize:
    """An objective that is better when it is lower, such as a loss: ``objective=Minimize(test_loss)``.

    Attributes:
        metric: takes a model and returns a finite number.
    """

    metric: Metric | PlanMetric

    def __call__(self, model: nn.Module) -> Any:
        """The metric's own value, sign and all."""
        return evaluate(self.metric, model).value


Objective = Metric | PlanMetric | Minimize
"""A metric that is better when it is higher, or ``Minimize`` of one that is better when it is lower."""


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric: ``Constraint(psnr, at_least=21)``.

    Attributes:
        metric: takes a model and returns a finite number.
        at_least: the lowest value that satisfies.
        at_most: the highest value that satisfies.
        name: what reports call it; the metric's own name if not given.
        confident: a noisy metric satisfies only if its whole confidence interval does, not just its value.

    Raises:
        ConstraintError: there is no bound, or none that a number can satisfy.
    """

    metric: Metric | PlanMetric
    at_least: float | None = None
    at_most: float | None = None
    name: str = ""
    confident: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", metric_name(self.metric))
        bounds = [b for b in (self._bound("at_least"), self._bound("at_most")) if b is not None]
        if not bounds or not all(math.isfinite(b) for b in bounds):
            raise ConstraintError(f"constraint {self.name!r} needs a finite bound: at_least= or at_most=")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ConstraintError(
                f"nothing satisfies constraint {self.name!r}: at least {bounds[0]}, at most {bounds[1]}"
            )

    def _bound(self, side: str) -> float | None:
        """A bound, kept as a number whatever it was given as, such as a tensor of one."""
        given = getattr(self, side)
        if given is None:
            return None
        try:
            bound = float(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConstraintError(f"constraint {self.name!r}: {side} must be a number, not {given!r}") from error
        object.__setattr__(self, side, bound)
        return bound

    def tested(self, estimate: Estimate) -> float:
        """The value that is held against the bounds: the estimate, or the worse end of its interval."""
        if not self.confident:
            return estimate.value
        return min(estimate.low, estimate.high, key=self.margin)

    def margin(self, value: float) -> float:
        """How far inside its nearest bound a value is, in units of the bound; negative if outside."""
        margins = []
        if self.at_least is not None:
            margins.append((value - self.at_least) / (abs(self.at_least) or 1.0))
        if self.at_most is not None:
            margins.append((self.at_most - value) / (abs(self.at_most) or 1.0))
        return min(margins)

    def __str__(self) -> str:
        low = "" if self.at_least is None else f"{self.at_least:g} <= "
        high = "" if self.at_most is None else f" <= {self.at_most:g}"
        return f"{low}{self.name}{high}"


def metric_name(metric: Any) -> str:
    """What a metric calls itself: its ``name``, a function's name, or its class's."""
    if isinstance(metric, Minimize):
        return metric_name(metric.metric)
    own = getattr(metric, "name", None) or getattr(metric, "__name__", None)
    return own if isinstance(own, str) else type(metric).__name__


def evaluate(
    objective: Objective, model: nn.Module, plan: PruningPlan | None = None, *, infinite: bool = False
) -> Estimate:
    """The objective of a model, as the user's metric gives it, with its confidence interval if it has one.

    Args:
        objective: the metric.
        model: dense or small.
        plan: what made ``model`` small; None if it is dense. Only metrics with a ``measure`` method see it.
        infinite: whether a value may be infinite on the good side, as is the PSNR of the model whose outputs are the
            targets.

    Raises:
        ObjectiveError: the value is no finite number.
    """
    metric, best = (objective.metric, -math.inf) if isinstance(objective, Minimize) else (objective, math.inf)
    allowed = best if infinite else None
    value: Any = metric.measure(model, plan) if isinstance(metric, PlanMetric) else metric(model)
    if isinstance(value, Estimate):
        return Estimate(*(_number(metric, part, allowed) for part in (value.value, value.low, value.high)))
    number = _number(metric, value, allowed)
    return Estimate(number, number, number)


def _number(metric: Any, value: Any, allowed: float | None) -> float:
    """A value as a finite number, or the one infinity that is allowed."""
    name = metric_name(metric)
    try:
        number = float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ObjectiveError(
            f"the metric {name!r} must return a number for a model; it returned {_shown(value)}"
        ) from error
    if not math.isfinite(number) and number != allowed:
        raise ObjectiveError(f"the metric {name!r} must return a finite number for a model; it returned {number}")
    return number


def _shown(value: Any) -> str:
    """A value in one line, whatever its size."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return " ".join(repr(value).split())

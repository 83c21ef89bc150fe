"""What a metric may return besides a number, and what it may ask for besides a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn

from secateur.plan import PruningPlan


@dataclass(frozen=True)
class Estimate:
    """A number that was measured with noise.

    Attributes:
        value: the estimate, usually a mean.
        low: lower end of its confidence interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the confidence interval; None if it has no width."""
        return (self.low, self.high) if self.low < self.high else None


@runtime_checkable
class PlanMetric(Protocol):
    """A metric that must know which channels a model has kept, such as the drift of an interface."""

    def measure(self, model: nn.Module, plan: PruningPlan | None) -> Any:
        """The metric of a model that this plan made; None for the dense model.

        A finite number, a tensor of one number, or an :class:`Estimate`.
        """
        ...

"""What a metric may return besides a number, and what it may ask for besides a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import stats
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

    @classmethod
    def of_mean(cls, values: NDArray[np.floating[Any]], confidence: float) -> Estimate:
        """The mean of repeated measurements with its confidence interval, by Student's t.

        Args:
            values: at least two, shape (count,).
            confidence: in (0, 1).
        """
        mean, count = float(values.mean()), len(values)
        error = float(values.std(ddof=1)) / math.sqrt(count)
        margin = float(stats.t.ppf((1 + confidence) / 2, df=count - 1)) * error
        return cls(mean, mean - margin, mean + margin)

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

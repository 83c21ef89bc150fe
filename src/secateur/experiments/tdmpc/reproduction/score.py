"""Returns of several episodes in few numbers: mean, interval, the worst, and how many failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secateur.experiments.tdmpc.episodes import CONFIDENCE
from secateur.metrics import Estimate


@dataclass(frozen=True)
class Score:
    """What several episodes returned.

    Attributes:
        mean: of the returns.
        low: lower end of the mean's 95 % confidence interval, by Student's t.
        high: its upper end.
        worst: the lowest return.
        failures: episodes that returned less than a threshold.
        episodes: how many there were.
    """

    mean: float
    low: float
    high: float
    worst: float
    failures: int
    episodes: int

    @classmethod
    def of(cls, returns: Sequence[float], threshold: float) -> Score:
        """Of at least two episodes; those below ``threshold`` have failed."""
        values = np.asarray(returns, dtype=np.float64)
        mean = Estimate.of_mean(values, CONFIDENCE)
        failures = int((values < threshold).sum())
        return cls(mean.value, mean.low, mean.high, float(values.min()), failures, len(values))

    def __str__(self) -> str:
        """Mean and half the interval's width; the worst episode and the failures in brackets."""
        failed = f", {self.failures} failed" if self.failures else ""
        return f"{self.mean:.1f} ± {self.high - self.mean:.1f} ({self.worst:.0f}{failed})"

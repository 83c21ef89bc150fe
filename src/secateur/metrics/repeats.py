"""Noisy metrics: repeats on common seeds, and a confidence interval."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from secateur.calibration import evaluating
from secateur.errors import ObjectiveError
from secateur.metrics.checks import is_number, is_seed
from secateur.metrics.estimate import Estimate

SeededMetric = Callable[[nn.Module, int], Any]
"""Takes a model and a seed and returns a number, such as an episode's return."""


@dataclass(frozen=True, eq=False)
class Repeats:
    """A noisy metric, measured on the same seeds for every model: its mean with a confidence interval.

    Common seeds make the differences between candidates less noisy than the values themselves. The global random
    generators are seeded, too, before each repeat, for code that draws from them.

    Attributes:
        metric: takes a model and a seed and returns a finite number.
        seeds: the seeds, or how many: 5 stands for 0 ... 4.
        confidence: of the interval, in (0, 1): the mean's, by Student's t.
        aggregate: ``"mean"``; or ``"lowest"`` or ``"highest"`` for the worst case of a metric to keep high or low. The
            interval of these is the range of the values.

    Raises:
        ObjectiveError: fewer than two seeds, or other things than whole numbers; a confidence outside (0, 1), or an
            unknown aggregate.
    """

    metric: SeededMetric
    seeds: Sequence[int] | int = 5
    confidence: float = 0.95
    aggregate: Literal["mean", "lowest", "highest"] = "mean"

    def __post_init__(self) -> None:
        if not _are_seeds(self.seeds):
            raise ObjectiveError(
                f"seeds must be how many, or a list of whole numbers of 64 bits; given: {self.seeds!r}"
            )
        if len(self._seeds) < 2:
            raise ObjectiveError(f"an interval needs at least 2 seeds; given: {self.seeds!r}")
        if not is_number(self.confidence) or not 0 < self.confidence < 1:
            raise ObjectiveError(f"the confidence must lie in (0, 1); it is {self.confidence!r}")
        if self.aggregate not in ("mean", "lowest", "highest"):
            raise ObjectiveError(f"aggregate must be 'mean', 'lowest' or 'highest', not {self.aggregate!r}")

    def __call__(self, model: nn.Module) -> Estimate:
        """The aggregate over the seeds, with its interval; infinite where every repeat is.

        Raises:
            ObjectiveError: a repeat gives no number, or only some are infinite.
        """
        values = np.array([self._value(model, seed) for seed in self._seeds])
        low, high = float(values.min()), float(values.max())
        if low == high:
            return Estimate(low, low, low)
        if not np.isfinite(values).all():
            raise ObjectiveError(f"the repeated metric must return finite numbers; for the seeds: {values.tolist()}")
        if self.aggregate != "mean":
            return Estimate(low if self.aggregate == "lowest" else high, low, high)
        return Estimate.of_mean(values, self.confidence)

    @property
    def name(self) -> str:
        """That of the metric, if it has one."""
        own = getattr(self.metric, "name", None) or getattr(self.metric, "__name__", None)
        return own if isinstance(own, str) else type(self.metric).__name__

    @property
    def _seeds(self) -> Sequence[int]:
        return range(self.seeds) if isinstance(self.seeds, int) else [int(seed) for seed in self.seeds]

    def _value(self, model: nn.Module, seed: int) -> float:
        with evaluating(model), torch.no_grad():
            _seed_everything(seed)
            value = self.metric(model, seed)
        try:
            number = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ObjectiveError(f"the repeated metric must return a number; for seed {seed}: {value!r}") from error
        if math.isnan(number):
            raise ObjectiveError(f"the repeated metric must return a finite number; for seed {seed}: {number}")
        return number


def _are_seeds(given: object) -> bool:
    """Whether it is a number of seeds, or several that every random generator takes, to be gone through repeatedly."""
    if not isinstance(given, (Sequence, np.ndarray)):
        return type(given) is int
    return all(is_seed(seed) for seed in given)


def _seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)

"""The application's own metric: what pruning should keep high, or low."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.errors import SecateurError

Metric = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Minimize:
    """An objective that is better when it is lower, such as a loss: ``objective=Minimize(test_loss)``.

    Attributes:
        metric: takes a model and returns a finite number.
    """

    metric: Metric

    def __call__(self, model: nn.Module) -> float:
        """The metric's own value, sign and all."""
        return self.metric(model)


Objective = Metric | Minimize
"""A metric that is better when it is higher, or ``Minimize`` of one that is better when it is lower."""


def evaluate(objective: Objective, model: nn.Module) -> float:
    """The objective's value for a model, as the user's metric gives it.

    Raises:
        SecateurError: the value is no finite number.
    """
    value: Any = objective(model)
    try:
        number = float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SecateurError(f"the objective must return a number for a model; it returned {value!r}") from error
    if not math.isfinite(number):
        raise SecateurError(f"the objective must return a finite number for a model; it returned {number}")
    return number

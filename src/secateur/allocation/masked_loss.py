"""The task's loss as a function of pruning coefficients: hard masks forward, the gradient of soft ones backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateur.allocation.problem import Problem
from secateur.allocation.soft_masks import SoftMasks
from secateur.allocation.substituted import Substituted
from secateur.allocation.task_loss import TaskLoss


class MaskedLoss:
    """The loss of a problem's model with its channels masked; the model itself stays as it is.

    Args:
        problem: with a model.
        loss: what to minimise.
    """

    def __init__(self, problem: Problem, loss: TaskLoss) -> None:
        self._masks = SoftMasks.of(problem.graph, problem.scores)
        self._substituted = Substituted(problem.model)
        self._tensors = self._substituted.detached()
        self._loss = loss

    def gradient(self, coefficients: Tensor, temperature: float, batch: Any) -> tuple[float, Tensor]:
        """The loss with hard masks, and its straight-through gradient, shape (variables,).

        Raises:
            ObjectiveError: the loss isn't one finite number, or has no gradient.
        """
        point = coefficients.detach().requires_grad_()
        loss = self._at(self._masks.straight_through(point, temperature), batch)
        self._loss.check_gradient(loss)
        (gradient,) = torch.autograd.grad(loss, point)
        return loss.item(), gradient

    def value(self, coefficients: Tensor, batch: Any) -> float:
        """The loss with hard masks.

        Raises:
            ObjectiveError: the loss isn't one finite number.
        """
        with torch.no_grad():
            return self._at(self._masks.hard(coefficients), batch).item()

    def _at(self, masks: Tensor, batch: Any) -> Tensor:
        masked = self._masks.masked(self._tensors, masks)
        return self._substituted.run(lambda model: self._loss(model, batch), masked)

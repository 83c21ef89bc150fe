"""What gradient descent minimises: the user's loss, the distance from the dense model, or the objective itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateur.allocation.dense_distance import DenseDistance
from secateur.allocation.objective import Minimize, Objective
from secateur.allocation.problem import Problem
from secateur.errors import CalibrationError, ObjectiveError, SecateurError
from secateur.metrics.estimate import PlanMetric

LossFunction = Callable[[nn.Module, Any], Tensor]
"""Takes a model and a batch; returns a tensor of one number."""

_WHAT_TO_USE = (
    "give GradientDescent(loss_fn, batches) with a loss that has one, or use BlackBox or Sensitivity, which need none"
)


@dataclass(frozen=True)
class TaskLoss:
    """A loss to minimise.

    Attributes:
        loss_fn: takes the model and a batch.
        batches: read again and again.
        name: what messages call it.
    """

    loss_fn: LossFunction
    batches: Iterable[Any]
    name: str = "loss_fn"

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss, shape ().

        Raises:
            ObjectiveError: it fails, or is no tensor of one finite number.
        """
        try:
            loss: object = self.loss_fn(model, batch)
        except SecateurError:
            raise
        except Exception as error:  # the user's code may raise anything; it stays visible as the cause
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            raise ObjectiveError(f"GradientDescent: {self.name} failed: {reason}") from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ObjectiveError(f"GradientDescent: {self.name} must return a tensor of one number; it returned {got}")
        if not math.isfinite(loss.item()):
            raise ObjectiveError(
                f"GradientDescent: {self.name} gave {loss.item()}; look at the data, or lower the learning rate"
            )
        return loss.reshape(())

    def endless(self) -> Iterator[Any]:
        """The batches, from the first again after the last.

        Raises:
            CalibrationError: there are none.
        """
        while True:
            count = 0
            for batch in self.batches:
                count += 1
                yield batch
            if count == 0:
                raise CalibrationError("GradientDescent was given no batches")

    def check_gradient(self, loss: Tensor) -> None:
        """Check that the loss depends on the tensors it was given.

        Raises:
            ObjectiveError: it has no gradient.
        """
        if not loss.requires_grad:
            raise ObjectiveError(
                f"GradientDescent: {self.name} has no gradient by the model's parameters; {_WHAT_TO_USE}"
            )


def task_loss(problem: Problem, loss_fn: LossFunction | None, batches: Iterable[Any] | None) -> TaskLoss:
    """The user's loss; else the distance from the dense model on the calibration data; else the objective itself.

    Raises:
        ObjectiveError: there is none of them, or no model.
    """
    model = problem.model
    if loss_fn is not None and batches is not None:
        return TaskLoss(loss_fn, batches)
    if problem.calibration is not None:
        distance = DenseDistance(model, problem.calibration)
        return TaskLoss(distance, distance.batches, "the distance from the dense model on the calibration data")
    return TaskLoss(_of_objective(problem.objective), [None], "the objective")


def _of_objective(objective: Objective | None) -> LossFunction:
    metric, sign = (objective.metric, 1.0) if isinstance(objective, Minimize) else (objective, -1.0)
    if metric is None or isinstance(metric, PlanMetric):
        raise ObjectiveError(f"GradientDescent needs something with a gradient; {_WHAT_TO_USE}")

    def loss_fn(model: nn.Module, _: Any) -> Tensor:
        value = metric(model)
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ObjectiveError(f"GradientDescent: the objective's {kind} has no gradient; {_WHAT_TO_USE}")
        return sign * value

    return loss_fn

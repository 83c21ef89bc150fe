"""GradientDescent: one soft coefficient per group, moved along the gradient of the task's loss under the budget."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.allocation.budget import meet, nearby_path, uniform_path
from secateur.allocation.masked_loss import MaskedLoss
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.soft_budget import SoftBudget, logits_of
from secateur.allocation.task_loss import LossFunction, TaskLoss, task_loss
from secateur.calibration import evaluating
from secateur.errors import InfeasibleError, SearchError
from secateur.extras import needs
from secateur.graph.cost import IntArray
from secateur.plan import FloatArray

_JUDGED_BATCHES = 8
"""On so many batches candidates are compared by the loss, where there is no objective."""


@dataclass(frozen=True)
class GradientDescent:
    """Soft pruning coefficients, found by the gradient of a loss through the channels' masks.

    The channels of a group fade out in the order of their scores; the forward pass sees them there or gone, the
    backward pass sees soft masks whose temperature falls. From uniform coefficients on, the loss is minimised on the
    budget by augmented Lagrangian. At the end a few points of the way are rounded to whole channels that meet the
    target, and the best of them and of the uniform ones is chosen: by the objective and the constraints, if there are
    any, as always after refit; else by the loss.

    The loss is, in this order: ``loss_fn`` on ``batches``; with calibration data, the squared error of the model's
    outputs against the dense model's; the objective itself, if it returns a tensor with a gradient. The model runs in
    evaluation mode, and keeps its parameters, buffers and flags.

    Source: arXiv 2507.14882.

    Attributes:
        loss_fn: takes the model and one batch; returns a tensor of one number. It may call any of the model's methods.
        batches: read from the first again after the last; a one-shot iterator is read into a list here.
        steps: of descent, each on one batch.
        learning_rate: how far a step moves the logits of the coefficients, above 0.
        temperatures: of the masks at the first and at the last step, in units of a group's size.
        candidates: how many points of the way are compared at the end.
        seed: of the global random generators while the loss runs.

    Raises:
        SearchError: a setting outside its range.
    """

    loss_fn: LossFunction | None = None
    batches: Iterable[Any] | None = None
    _: KW_ONLY
    steps: int = 80
    learning_rate: float = 0.2
    temperatures: tuple[float, float] = (0.1, 0.02)
    candidates: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.loss_fn is None) != (self.batches is None):
            raise SearchError("GradientDescent needs loss_fn and batches together, or neither")
        if isinstance(self.batches, Iterator):
            object.__setattr__(self, "batches", list(self.batches))
        for name in ("steps", "candidates"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise SearchError(f"{name} must be a whole number, at least 1; it is {value!r}")
        if not 0 < self.learning_rate < math.inf:
            raise SearchError(f"the learning rate must be above 0; it is {self.learning_rate!r}")
        if not all(0 < t < math.inf for t in self.temperatures):
            raise SearchError(f"temperatures must be numbers above 0; they are {self.temperatures!r}")

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
            ObjectiveError: nothing has a gradient, or a loss isn't finite.
            CalibrationError: there are no batches.
            ConstraintError: no candidate satisfies every constraint.
        """
        uniform = meet(problem, uniform_path(problem))
        loss = task_loss(problem, self.loss_fn, self.batches)
        with _repeatable(problem.model, self.seed):
            masked = MaskedLoss(problem, loss)
            way = list(self._descend(problem, masked, loss, uniform))
            candidates = _whole(problem, [*reversed(way[:: -max(1, len(way) // self.candidates)])], uniform)
            if not problem.is_measured:
                values = _judged(problem, masked, loss, candidates)
        if not problem.is_measured:
            history = [problem.evaluation(levels) for levels in candidates]
            return problem.result(history[int(np.argmin(values))], history)
        problem.expect(len(candidates))
        evaluations = problem.evaluate(candidates)
        return problem.result(problem.best(evaluations), evaluations)

    def _descend(self, problem: Problem, masked: MaskedLoss, loss: TaskLoss, levels: IntArray) -> Iterator[Tensor]:
        """The coefficients after every step, shape (variables,)."""
        with needs("cooper", extra="search"):
            from secateur.allocation.augmented_lagrangian import CoefficientDescent
        first, last = self.temperatures
        descent = CoefficientDescent(SoftBudget(problem), logits_of(problem.coefficients(levels)), self.learning_rate)
        for step, batch in enumerate(islice(loss.endless(), self.steps)):
            temperature = first * (last / first) ** (step / max(1, self.steps - 1))
            _, gradient = masked.gradient(descent.coefficients, temperature, batch)
            descent.step(gradient)
            yield descent.coefficients


def _whole(problem: Problem, points: Sequence[Tensor], uniform: IntArray) -> list[IntArray]:
    """Levels that meet the target nearest to these points, each once, and the uniform ones."""
    found = {tuple(uniform.tolist()): uniform}
    for point in points:
        try:
            levels = meet(problem, nearby_path(problem, point.numpy()))
        except InfeasibleError:  # this path misses the target between two whole channels; another needn't
            continue
        found[tuple(levels.tolist())] = levels
    return list(found.values())


def _judged(problem: Problem, masked: MaskedLoss, loss: TaskLoss, candidates: Sequence[IntArray]) -> FloatArray:
    """The loss of every candidate, summed over the same batches."""
    points = [torch.from_numpy(problem.coefficients(levels)) for levels in candidates]
    values = [[masked.value(point, batch) for point in points] for batch in islice(loss.batches, _JUDGED_BATCHES)]
    return np.asarray(np.sum(values, axis=0))


@contextmanager
def _repeatable(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode, gradients, and the global random generators seeded; all as before afterwards."""
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield

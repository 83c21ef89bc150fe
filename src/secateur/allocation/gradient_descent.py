"""GradientDescent: one soft coefficient per group, moved along the gradient of the task's loss under the budget."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.allocation.budget import Path, direction_path, meet, nearby_path, uniform_path
from secateur.allocation.evaluator import Evaluator
from secateur.allocation.masked_loss import MaskedLoss
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.soft_budget import SoftBudget
from secateur.allocation.strategy import check_positive, check_seed, check_whole
from secateur.allocation.task_loss import LossFunction, TaskLoss, task_loss
from secateur.calibration import evaluating
from secateur.errors import InfeasibleError, SearchError
from secateur.extras import needs
from secateur.graph.cost import IntArray
from secateur.metrics.checks import is_positive

_JUDGED_BATCHES = 8
"""On so many batches candidates are compared by the loss, where there is no objective."""

_MILDER = (0.5, 0.75)
"""Shares of the target at which the descent is run too, where candidates are refitted."""

_LEAST = 1e-3
"""Coefficients nearer to 0 or 1 than this are taken to be this far from it, so that every group has a direction."""

_JOINT = 0.1
"""Fraction of the weights' training in which the coefficients move, too."""


@dataclass(frozen=True)
class GradientDescent:
    """Soft pruning coefficients, found by the gradient of a loss through the channels' masks.

    The channels of a group fade out in the order of their scores; the forward pass sees them there or gone, the
    backward pass sees soft masks whose temperature falls. From uniform coefficients on, the loss is minimised on the
    budget by augmented Lagrangian. At the end a few points of the way are rounded to whole channels that meet the
    target, and the best of them and of the uniform ones is chosen: by the objective and the constraints, if there are
    any, as always after refit; else by the loss.

    Masks know nothing of a repair. Where much leaves, the best masked model may be one that gives the same output for
    every input, which no refit and no training brings back. So where candidates are refitted or trained, the descent
    is run at milder targets too, and what it finds there is carried on to the target in the same proportions.

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
        weights: train the remaining weights, too, jointly with the coefficients; needs ``loss_fn`` and ``batches``. The
            result has them in ``weights``.
        epochs: of that training, over the batches.
        weight_learning_rate: its learning rate, at most; above 0.

    Raises:
        SearchError: a setting outside its range.
    """

    loss_fn: LossFunction | None = None
    batches: Iterable[Any] | None = None
    _: KW_ONLY
    steps: int = 60
    learning_rate: float = 0.2
    temperatures: tuple[float, float] = (0.1, 0.02)
    candidates: int = 4
    seed: int = 0
    weights: bool = False
    epochs: int = 1
    weight_learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        if (self.loss_fn is None) != (self.batches is None):
            raise SearchError("GradientDescent needs loss_fn and batches together, or neither")
        if self.weights and self.loss_fn is None:
            raise SearchError("GradientDescent(weights=True) trains on your own loss; give loss_fn and batches")
        if self.loss_fn is not None and not callable(self.loss_fn):
            raise SearchError(f"loss_fn must be a function of the model and a batch, not {self.loss_fn!r}")
        if self.batches is not None and not isinstance(self.batches, Iterable):
            raise SearchError(f"batches must be an iterable of what the loss is given, not {self.batches!r}")
        if isinstance(self.batches, Iterator):
            object.__setattr__(self, "batches", list(self.batches))
        for name in ("steps", "candidates", "epochs"):
            check_whole(getattr(self, name), name)
        for name in ("learning_rate", "weight_learning_rate"):
            check_positive(getattr(self, name), name)
        if not _are_temperatures(self.temperatures):
            raise SearchError(f"temperatures must be two numbers above 0; they are {self.temperatures!r}")
        check_seed(self.seed)

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
            ObjectiveError: nothing has a gradient, a loss isn't finite, or measuring failed for every candidate.
            CalibrationError: there are no batches, or the calibration data can't be used.
            ConstraintError: no candidate satisfies every constraint.
        """
        loss = task_loss(problem, self.loss_fn, self.batches)
        with _repeatable(problem.model, self.seed):
            masked = MaskedLoss(problem, loss)
            candidates = _whole(problem, [uniform_path(problem), *self._paths(problem, masked, loss)])
            if self.weights:
                levels, weights = self._trained(problem, loss, _best_after_refit(problem, loss, candidates))
            elif not problem.is_measured:
                losses = _judged(problem, masked, loss, candidates)
        if self.weights:
            return _settled(problem, levels, weights)
        if problem.is_measured:
            problem.expect(len(candidates))
            evaluations = problem.evaluate(candidates)
            return problem.result(problem.best(evaluations), evaluations)
        evaluations = [problem.evaluation(levels) for levels in candidates]
        return problem.result(evaluations[int(np.argmin(losses))], evaluations)

    def _paths(self, problem: Problem, masked: MaskedLoss, loss: TaskLoss) -> Iterator[Path]:
        """Paths to points of the descent's way; and, for candidates that are refitted, those from milder targets."""
        way = list(self._descend(problem, masked, loss))
        for point in way[:: -math.ceil(max(1, len(way)) / self.candidates)]:
            yield nearby_path(problem, point.numpy())
        if self.weights or problem.calibration is not None:
            yield from self._milder(problem, masked, loss)

    def _milder(self, problem: Problem, masked: MaskedLoss, loss: TaskLoss) -> Iterator[Path]:
        """Paths to the target in the proportions that the descent finds at milder ones."""
        target = problem.target
        for share in _MILDER:
            rho = None if target.rho is None else share * target.rho
            parts = {name: share * part for name, part in target.components.items()}
            milder = problem.at(replace(target, rho=rho, components=parts))
            found = list(self._descend(milder, masked, loss))
            if found:
                yield direction_path(problem, -np.log1p(-np.clip(found[-1].numpy(), _LEAST, 1 - _LEAST)))

    def _trained(self, problem: Problem, loss: TaskLoss, levels: IntArray) -> tuple[IntArray, dict[str, Tensor]]:
        """What a joint training makes of these levels, and the weights."""
        with needs("cooper", extra="search"):
            from secateur.allocation.joint_training import JointTraining, Schedule
        slow, temperature = self.learning_rate / 10, self.temperatures[1]
        schedule = Schedule(self.epochs, _JOINT, self.weight_learning_rate, slow, temperature)
        return JointTraining(problem, loss, schedule, levels).run()

    def _descend(self, problem: Problem, masked: MaskedLoss, loss: TaskLoss) -> Iterator[Tensor]:
        """The coefficients after every step, shape (variables,)."""
        with needs("cooper", extra="search"):
            from secateur.allocation.augmented_lagrangian import CoefficientDescent
        first, last = self.temperatures
        budget = SoftBudget(problem)
        if not bool(budget.free.any()):
            return
        # Equal logits are uniform coefficients; the descent begins where these meet the budget.
        descent = CoefficientDescent(
            budget, torch.zeros(len(problem.fractions), dtype=torch.float64), self.learning_rate
        )
        for step, batch in enumerate(islice(loss.endless(), self.steps)):
            temperature = first * (last / first) ** (step / max(1, self.steps - 1))
            _, gradient = masked.gradient(descent.coefficients, temperature, batch)
            descent.step(gradient)
            yield descent.coefficients


def _are_temperatures(values: object) -> bool:
    return isinstance(values, Sequence) and len(values) == 2 and all(is_positive(t) for t in values)


def _whole(problem: Problem, paths: Iterable[Path]) -> list[IntArray]:
    """Levels that meet the target, on these paths or beside them; each once.

    Raises:
        InfeasibleError: there are none.
    """
    found: dict[tuple[int, ...], IntArray] = {}
    missed: list[InfeasibleError] = []
    for path in paths:
        try:
            levels = meet(problem, path)
            found[tuple(levels.tolist())] = levels
        except InfeasibleError as error:  # one path may miss the target between two whole channels, and another meet it
            missed.append(error)
    if not found:
        raise missed[0]
    return list(found.values())


def _best_after_refit(problem: Problem, loss: TaskLoss, candidates: Sequence[IntArray]) -> IntArray:
    """The candidate of least loss after surgery and refit, summed over the same batches; each is stored as it ends.

    Raises:
        ObjectiveError: the loss fails.
    """
    with needs("cooper", extra="search"):
        from secateur.allocation.joint_training import judge_after_refit
    judge = judge_after_refit(problem, loss, list(islice(loss.batches, _JUDGED_BATCHES)))
    judged = problem.measured_by("loss", judge)
    evaluations = judged.evaluate(candidates)
    return candidates[evaluations.index(judged.best(evaluations))]


def _judged(problem: Problem, masked: MaskedLoss, loss: TaskLoss, candidates: Sequence[IntArray]) -> list[float]:
    """The loss of every candidate, summed over the same batches."""
    points = [torch.from_numpy(problem.coefficients(levels)) for levels in candidates]
    values = [[masked.value(point, batch) for point in points] for batch in islice(loss.batches, _JUDGED_BATCHES)]
    return [float(value) for value in np.sum(values, axis=0)]


def _settled(problem: Problem, levels: IntArray, weights: Mapping[str, Tensor]) -> AllocationResult:
    """The one candidate with its own weights; measured, if there is something to measure it with.

    Raises:
        ConstraintError: it misses a constraint.
        ObjectiveError: measuring it failed.
    """
    result = replace(problem.result(problem.evaluation(levels)), weights=weights)
    if problem.measurements is None or not problem.is_measured:
        return result
    metrics = problem.measurements.objective, problem.measurements.constraints
    # Not the problem's own measurements: those are of candidates that are made from the dense model's weights.
    trained = Evaluator(problem.graph, problem.scores, result.dense(problem.model), *metrics, None)
    own = problem.measured_by("trained", trained, counted=True)
    own.expect(1)
    best = own.best(own.evaluate([levels]))
    return replace(result, best=best, history=(best,))


@contextmanager
def _repeatable(model: nn.Module, seed: int) -> Iterator[None]:
    """Evaluation mode, gradients, and the global random generators seeded; all as before afterwards."""
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield

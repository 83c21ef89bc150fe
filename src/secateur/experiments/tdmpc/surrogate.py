"""What stands for the return while coefficients are searched: how far a model's predictions are from the dense one's.

An episode's return has no gradient, takes seconds, and is flat until the controller fails. The error of what the
planner reads off its model, along sequences of actions that it considered, has a gradient and takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.calibration import evaluating
from secateur.errors import ObjectiveError
from secateur.experiments.tdmpc.rollout import Rollout
from secateur.experiments.tdmpc.visits import Visits


@dataclass(frozen=True)
class _Scales:
    """Variances of the dense model's predictions over all rows and steps, shapes (), (), () and (actions,)."""

    of: Rollout

    @classmethod
    def over(cls, dense: Rollout) -> _Scales:
        flat = [dense.rewards.flatten(), dense.q1.flatten(), dense.q2.flatten(), dense.actions.flatten(0, 1)]
        return cls(Rollout(*(_variance(values) for values in flat)))


def _variance(values: Tensor) -> Tensor:
    """Over the rows; where the values don't vary, their mean square, or 1 where they are zero."""
    values = values.double()
    variance, squares = values.var(dim=0, correction=0), values.square().mean(dim=0)
    scale = torch.where(variance > 1e-12 * squares, variance, squares)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _relative(found: Rollout, dense: Rollout, scales: _Scales) -> Rollout:
    """Mean squared error over variance of every output, shapes ()."""
    return Rollout(
        *(((f - d).double().square() / scale).mean() for f, d, scale in zip(found, dense, scales.of, strict=True))
    )


def _total(errors: Rollout) -> Tensor:
    """Rewards, values and actions count alike."""
    return (errors.rewards + (errors.q1 + errors.q2) / 2 + errors.actions) / 3


@dataclass(frozen=True, eq=False)
class PredictionError:
    """Squared error of predicted rewards, values and actions along rollouts, in units of the dense ones' variance.

    0 for the dense model, 1 where the predictions are no better than their mean. A metric to keep low:
    ``objective=Minimize(PredictionError(dense, held_out))``. The dense model runs once, when this is made.

    Attributes:
        dense: the dense model; untouched.
        visits: other than those that candidates are refitted on.

    Raises:
        CalibrationError: the visits are of another task.
        ObjectiveError: the dense model's predictions aren't finite.
    """

    dense: nn.Module
    visits: Visits

    name: ClassVar[str] = "prediction error"
    _expected: Rollout = field(init=False, repr=False)
    _scales: _Scales = field(init=False, repr=False)

    def __post_init__(self) -> None:
        expected = _predictions(self.dense, self.visits)
        object.__setattr__(self, "_expected", expected)
        object.__setattr__(self, "_scales", _Scales.over(expected))

    def __call__(self, model: nn.Module) -> float:
        """The mean of the errors of rewards, values and actions."""
        return float(_total(self._errors(model)))

    def parts(self, model: nn.Module) -> Mapping[str, float]:
        """The errors of each output alone."""
        return {name: float(error) for name, error in self._errors(model)._asdict().items()}

    def _errors(self, model: nn.Module) -> Rollout:
        with evaluating(model), torch.no_grad():
            return _relative(self.visits.run(model), self._expected, self._scales)


@dataclass(frozen=True, eq=False)
class Aimed:
    """A minibatch: visits and what the dense model predicts along them."""

    visits: Visits
    dense: Rollout


class PredictionLoss:
    """The same error as a loss: ``loss = PredictionLoss(dense, visits)``, ``GradientDescent(loss, loss.batches)``.

    Attributes:
        batches: of the visits, with the dense model's predictions.
    """

    def __init__(self, dense: nn.Module, visits: Visits, *, rows: int = 512) -> None:
        """Roll the dense model out.

        Args:
            dense: the dense model; untouched.
            visits: what the loss is taken on.
            rows: of a minibatch, at most.

        Raises:
            CalibrationError: the visits are of another task, or there are no rows in a minibatch.
            ObjectiveError: the dense model's predictions aren't finite.
        """
        self._scales = _Scales.over(_predictions(dense, visits))
        self.batches = [Aimed(piece, _predictions(dense, piece)) for piece in visits.pieces(rows)]

    def __call__(self, model: nn.Module, batch: Aimed) -> Tensor:
        """The loss on a minibatch, shape ()."""
        return _total(_relative(batch.visits.run(model), batch.dense, self._scales))


def _predictions(dense: nn.Module, visits: Visits) -> Rollout:
    with evaluating(dense), torch.no_grad():
        predicted = visits.run(dense)
    for name, values in predicted._asdict().items():
        if not bool(values.isfinite().all()):
            raise ObjectiveError(f"the dense model's {name} on the visits of task {visits.task!r} are not all finite")
    return predicted

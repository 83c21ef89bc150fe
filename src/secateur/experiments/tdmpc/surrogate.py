"""What stands for the return while coefficients are searched: how far a model's predictions are from the dense one's.

An episode's return has no gradient, takes seconds, and is flat until the controller fails. The error of what the
planner reads off its model, along sequences of actions that it considered, has a gradient and takes milliseconds.

Two errors: of all that is predicted, and of the differences on which planning depends. Each alone misleads a search
somewhere. Where nothing is repaired all predictions are far off, and the model that is nearest to the dense one's
predicts no more than their mean; where much is repaired some models tell sequences apart and are wrong about all of
them. Their geometric mean, :class:`SurrogateError`, is what candidates are compared by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.calibration import evaluating
from secateur.errors import CalibrationError, ObjectiveError
from secateur.experiments.tdmpc.rollout import Rollout, sequence_values
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


@dataclass(frozen=True, eq=False)
class PlanningError:
    """Squared error of the differences between what sequences are worth, in units of the dense ones' variance.

    A planner compares sequences of actions from one state: what is wrong with all of them alike doesn't matter to it.
    From every state as many sequences are compared, its own and those of other states. 0 for the dense model, 1 where
    all sequences from a state are worth the same. A metric to keep low:
    ``objective=Minimize(PlanningError(dense, held_out))``. The dense model runs once, when this is made.

    Attributes:
        dense: the dense model; untouched.
        visits: of at least two states.
        discount: per step.
        sequences: from every state, at least 2; as many as there are states, if there are fewer.

    Raises:
        CalibrationError: the visits are of another task, or there is only one state or sequence.
        ObjectiveError: the values that the dense model gives aren't finite.
    """

    dense: nn.Module
    visits: Visits
    discount: float = 0.99
    sequences: int = 6

    name: ClassVar[str] = "planning error"
    _loss: PlanningLoss = field(init=False, repr=False)

    def __post_init__(self) -> None:
        loss = PlanningLoss(
            self.dense, self.visits, rows=self.visits.rows, discount=self.discount, sequences=self.sequences
        )
        object.__setattr__(self, "_loss", loss)

    def __call__(self, model: nn.Module) -> float:
        """The mean of the squared differences."""
        (batch,) = self._loss.batches
        with evaluating(model), torch.no_grad():
            return float(self._loss(model, batch))


@dataclass(frozen=True, eq=False)
class Compared:
    """A minibatch: visits, and by how much the dense model values their sequences above their mean, (sequences, B)."""

    visits: Visits
    advantages: Tensor


class PlanningLoss:
    """The same error as a loss: ``loss = PlanningLoss(dense, visits)``, ``GradientDescent(loss, loss.batches)``.

    Attributes:
        batches: of the visits, with the dense model's differences.
    """

    def __init__(
        self, dense: nn.Module, visits: Visits, *, rows: int = 512, discount: float = 0.99, sequences: int = 6
    ) -> None:
        """Value the sequences by the dense model.

        Args:
            dense: the dense model; untouched.
            visits: what the loss is taken on.
            rows: of a minibatch, at most.
            discount: per step.
            sequences: from every state, at least 2.

        Raises:
            CalibrationError: as for :class:`PlanningError`.
            ObjectiveError: likewise.
        """
        if min(sequences, visits.rows) < 2:
            raise CalibrationError(
                f"planning compares 2 sequences from a state at least, not {sequences} of the {visits.rows} recorded"
            )
        if rows < 2:
            raise CalibrationError(f"planning is compared on minibatches of at least 2 states, not {rows}")
        self._discount, self._sequences = discount, sequences
        pieces = [piece for piece in visits.pieces(rows) if piece.rows > 1]
        with evaluating(dense), torch.no_grad():
            self.batches = [Compared(piece, self._advantages(dense, piece)) for piece in pieces]
        squares = torch.cat([batch.advantages.double().square().flatten() for batch in self.batches])
        if not bool(squares.isfinite().all()):
            raise ObjectiveError(f"what the dense model's sequences are worth on task {visits.task!r} isn't all finite")
        self._scale = float(squares.mean()) or 1.0

    def __call__(self, model: nn.Module, batch: Compared) -> Tensor:
        """The loss on a minibatch, shape ()."""
        found = self._advantages(model, batch.visits)
        return (found - batch.advantages).double().square().mean() / self._scale

    def _advantages(self, model: nn.Module, visits: Visits) -> Tensor:
        count = min(self._sequences, visits.rows)
        shifted = torch.stack([visits.actions.roll(shift, 1) for shift in range(count)], dim=1)
        values = sequence_values(visits.checked(model), visits.observations, shifted, self._discount)
        return values - values.mean(dim=0)


@dataclass(frozen=True, eq=False)
class SurrogateError:
    """The geometric mean of :class:`PredictionError` and :class:`PlanningError`: halving either counts the same.

    Return of the best of 80 candidates on cartpole-swingup: 69 % removed and not repaired, TPE, 73 by the predictions'
    error alone, 784 by planning's alone and 690 by the mean; 97 % removed and refitted, ``Sensitivity``, 485 by
    planning's alone and 856 by the mean. On walker-walk, 75 % removed and refitted, TPE: 936 by planning's and 943 by
    the mean.

    Attributes:
        dense: the dense model; untouched.
        visits: other than those that candidates are refitted on; of at least two states.

    Raises:
        CalibrationError: as for the two.
        ObjectiveError: likewise.
    """

    dense: nn.Module
    visits: Visits

    name: ClassVar[str] = "surrogate error"
    _prediction: PredictionError = field(init=False, repr=False)
    _planning: PlanningError = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_prediction", PredictionError(self.dense, self.visits))
        object.__setattr__(self, "_planning", PlanningError(self.dense, self.visits))

    def __call__(self, model: nn.Module) -> float:
        """The root of the errors' product."""
        return math.sqrt(self._prediction(model) * self._planning(model))


def _predictions(dense: nn.Module, visits: Visits) -> Rollout:
    with evaluating(dense), torch.no_grad():
        predicted = visits.run(dense)
    for name, values in predicted._asdict().items():
        if not bool(values.isfinite().all()):
            raise ObjectiveError(f"the dense model's {name} on the visits of task {visits.task!r} are not all finite")
    return predicted

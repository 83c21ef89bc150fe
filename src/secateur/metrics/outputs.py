"""How far a smaller model's outputs are from the dense model's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from secateur.calibration import CalibrationData, as_calibration, evaluating
from secateur.calibration.layouts import as_float64
from secateur.calibration.runs import Run, failures_named
from secateur.errors import ObjectiveError
from secateur.graph.entry_point import tensors_in
from secateur.graph.randomness import RandomState


@dataclass(frozen=True, eq=False)
class DenseError:
    """Mean squared error of the outputs against the dense model's, in units of their variance; lower is better.

    0 where the outputs are the same, 1 where they are no better than the dense outputs' mean. An output's first
    dimension counts examples; the mean is taken over these, separately for all other indices. Of several outputs, such
    as a policy's and a value's, each counts alike. An output that doesn't vary is held against its mean square.

    Memory: the outputs of one item of the calibration data, or of one call of a calibration function, for both models.

    Attributes:
        dense: the dense model; untouched.
        calibration: an iterable of inputs like ``example_inputs``; or a function that takes a model, exercises it and
            returns the outputs to compare, with the same data whichever model it is given; or an iterable of such
            functions, one per minibatch.

    Raises:
        CalibrationError: the calibration data is no such thing.
    """

    dense: nn.Module
    calibration: CalibrationData

    name: ClassVar[str] = "error against the dense model"

    def __post_init__(self) -> None:
        object.__setattr__(self, "calibration", as_calibration(self.calibration).source)

    def __call__(self, model: nn.Module) -> float:
        """The model's relative squared error.

        Raises:
            ObjectiveError: there are no outputs, or the two models' differ in number or shape.
            CalibrationError: the data is empty, or a model fails on it.
        """
        sums: dict[int, dict[tuple[int, ...], _Squares]] = defaultdict(dict)
        with evaluating(self.dense, model), torch.no_grad():
            for run in as_calibration(self.calibration).minibatches():
                for position, (expected, found) in enumerate(self._outputs(run, model)):
                    by_shape = sums[position]
                    shape = tuple(expected.shape[1:])
                    by_shape.setdefault(shape, _Squares(expected)).add(expected, found)
        if not sums:
            raise ObjectiveError(
                f"{self.name}: the data gives no outputs to compare; a calibration function must return them"
            )
        return sum(_relative(list(by_shape.values())) for by_shape in sums.values()) / len(sums)

    def _outputs(self, run: Run, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """Pairs of the dense model's and the other's outputs, in float64, of one run with the same random numbers."""
        state = RandomState.capture()
        with failures_named("the dense model"):
            expected = _numbers(run(self.dense))
        state.restore()
        with failures_named("the smaller model"):
            found = _numbers(run(model))
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (expected, found)]
        if shapes[0] != shapes[1]:
            raise ObjectiveError(
                f"{self.name}: the dense model's outputs have shapes {shapes[0]}, the smaller model's {shapes[1]}"
            )
        return list(zip(expected, found, strict=True))


class _Squares:
    """Sums over examples: of the dense outputs, their squares, and the squared differences."""

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self.total = torch.zeros(like.shape[1:], dtype=like.dtype, device=like.device)
        self.squares = self.differences = 0.0

    def add(self, expected: Tensor, found: Tensor) -> None:
        self.count += len(expected)
        self.total += expected.sum(dim=0)
        self.squares += float(expected.square().sum())
        self.differences += float((found.to(expected) - expected).square().sum())

    @property
    def deviations(self) -> float:
        """Sum of the squared deviations of the dense outputs from their means."""
        return self.squares - float(self.total.square().sum()) / self.count


def _relative(sums: list[_Squares]) -> float:
    differences, squares, deviations = (
        sum(getattr(s, what) for s in sums) for what in ("differences", "squares", "deviations")
    )
    # Where the outputs don't vary, what is left of their deviations is rounding.
    scale = deviations if deviations > 1e-12 * squares else squares
    return float(differences / scale) if scale > 0 else float(differences)


def _numbers(outputs: object) -> list[Tensor]:
    """The outputs with real numbers, at least one-dimensional, in float64."""
    return [torch.atleast_1d(as_float64(t)) for t in tensors_in(outputs) if t.is_floating_point()]

"""How far a model's outputs are from the dense model's, on calibration data: a loss where the user gives none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.allocation.substituted import Substituted
from secateur.calibration import CalibrationData, as_calibration
from secateur.calibration.runs import run_of
from secateur.errors import CalibrationError
from secateur.graph.entry_point import tensors_in

ROWS = 256
"""Rows of a batch, where rows don't depend on each other."""

Aimed = tuple[Any, list[Tensor]]
"""Inputs, or a function that runs a model on its own, and the dense model's outputs for them."""


@dataclass(frozen=True)
class DenseDistance:
    """Mean squared error of all outputs, in units of the dense outputs' variance.

    Attributes:
        dense: the dense model.
        calibration: inputs for it, or functions that exercise a model and return its outputs, or one such function.
    """

    dense: nn.Module
    calibration: CalibrationData

    def __call__(self, model: nn.Module, batch: Aimed) -> Tensor:
        """The loss of a model.

        Raises:
            CalibrationError: the outputs have other shapes than the dense model's.
        """
        item, aims = batch
        outputs = self.outputs(model, item)
        if [o.shape for o in outputs] != [a.shape for a in aims]:
            raise CalibrationError(
                "two runs of the calibration give outputs of different shapes; it must repeat its calls"
            )
        errors = torch.stack([(o - a).double().square().sum() for o, a in zip(outputs, aims, strict=True)])
        return errors.sum() / _variation(aims)

    @property
    def batches(self) -> Iterable[Aimed]:
        """The calibration data with the dense model's outputs, found anew in every iteration."""
        return _Batches(self)

    def outputs(self, model: nn.Module, item: Any) -> list[Tensor]:
        """The floating-point tensors that a run on inputs, or of a function, returns.

        Raises:
            CalibrationError: there are none.
        """
        outputs = [torch.atleast_1d(t) for t in tensors_in(run_of(item)(model)) if t.is_floating_point()]
        if not outputs:
            raise CalibrationError(
                "GradientDescent compares a model's outputs with the dense model's, but the calibration returns none; "
                "return them from the calibration function, or give GradientDescent(loss_fn, batches)"
            )
        return outputs


@dataclass(frozen=True)
class _Batches:
    distance: DenseDistance

    def __iter__(self) -> Iterator[Aimed]:
        for item in as_calibration(self.distance.calibration).items():
            if callable(item):
                yield item, self._aims(item)
            else:
                yield from self._pieces(item)

    def _pieces(self, inputs: Any) -> Iterator[Aimed]:
        """The inputs in batches of rows, if the dense model shows that its rows don't depend on each other."""
        aims = self._aims(inputs)
        count = -(-(_rows(inputs) or 0) // ROWS)
        if count <= 1 or any(_rows(aim) != _rows(inputs) for aim in aims):
            yield inputs, aims
            return
        for start in range(count):
            # Every count-th row: data may be sorted.
            piece, aimed = _strided(inputs, start, count), [aim[start::count] for aim in aims]
            if start == 0 and not _equal(self._aims(piece), aimed):
                yield inputs, aims
                return
            yield piece, aimed

    def _aims(self, item: Any) -> list[Tensor]:
        dense = Substituted(self.distance.dense)  # so that a run leaves no trace in its buffers
        with torch.no_grad():
            return dense.run(lambda model: self.distance.outputs(model, item), dense.detached())


def _variation(aims: list[Tensor]) -> Tensor:
    """Squared deviations from the means over rows; the plain squares where there is no deviation."""
    squares = torch.stack([aim.double().square().sum() for aim in aims]).sum()
    deviations = torch.stack([(aim - aim.mean(dim=0)).double().square().sum() for aim in aims]).sum()
    scale = deviations if bool(deviations > 1e-12 * squares) else squares
    return scale if bool(scale > 0) else torch.ones_like(scale)


def _rows(inputs: Any) -> int | None:
    """The length of the first dimension that all tensors have in common; None if they have none."""
    lengths = {t.shape[0] if t.dim() else None for t in tensors_in(inputs)}
    return lengths.pop() if len(lengths) == 1 else None


def _strided(inputs: Any, start: int, step: int) -> Any:
    """Every ``step``-th row of all tensors in nested tuples, lists and mappings."""
    if isinstance(inputs, Tensor):
        return inputs[start::step]
    if isinstance(inputs, Mapping):
        return {key: _strided(value, start, step) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        parts = [_strided(value, start, step) for value in inputs]
        return type(inputs)(*parts) if hasattr(inputs, "_fields") else type(inputs)(parts)
    return inputs


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)

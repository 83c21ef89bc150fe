"""The distance from the dense model, in units of its outputs' variance, on rows that don't depend on each other."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from secateur.allocation.dense_distance import ROWS, DenseDistance
from secateur.errors import CalibrationError


def test_it_is_the_squared_error_in_units_of_the_variance() -> None:
    dense, other = nn.Linear(3, 2), nn.Linear(3, 2)
    x = torch.randn(50, 3)
    distance = DenseDistance(dense, [x])
    (batch,) = distance.batches
    aims = dense(x)
    expected = (other(x) - aims).square().sum() / (aims - aims.mean(dim=0)).square().sum()
    assert distance(other, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert distance(dense, batch).item() == 0


def test_many_rows_are_dealt_out_in_batches() -> None:
    x = torch.arange(2.0 * ROWS + 3)[:, None]
    pieces = list(DenseDistance(nn.Linear(1, 2), [x]).batches)
    assert [len(inputs) for inputs, _ in pieces] == [len(aims[0]) for _, aims in pieces]
    assert max(len(inputs) for inputs, _ in pieces) <= ROWS
    assert sorted(torch.cat([inputs for inputs, _ in pieces])[:, 0].tolist()) == x[:, 0].tolist()
    assert pieces[0][0][:3, 0].tolist() == [0, 3, 6]


class Pair(NamedTuple):
    a: Tensor
    b: Tensor


def test_inputs_by_position_and_by_name_are_dealt_out() -> None:
    class Named(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
            return {"sum": a + b, "product": a * b}

    a, b = torch.randn(600, 2), torch.randn(600, 2)
    for inputs in ((a, b), {"a": a, "b": b}, Pair(a, b)):
        pieces = list(DenseDistance(Named(), [inputs]).batches)
        assert len(pieces) == 3
        assert all(len(aims) == 2 for _, aims in pieces)


def test_rows_that_depend_on_each_other_stay_together() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(dim=0)

    x = torch.randn(600, 2)
    ((inputs, _),) = DenseDistance(Centred(), [x]).batches
    assert inputs is x


def test_a_function_gives_one_batch() -> None:
    x = torch.randn(600, 2)
    distance = DenseDistance(nn.Linear(2, 2), lambda model: {"out": model(x), "count": torch.tensor(3)})
    ((_, aims),) = distance.batches
    assert [aim.shape for aim in aims] == [(600, 2)]


def test_functions_and_inputs_are_batches_and_functions_stay_whole() -> None:
    dense, other = nn.Linear(2, 2), nn.Linear(2, 2)
    data = [torch.randn(rows, 2) for rows in (600, 300, 5)]
    functions = [partial(called, rows) for rows in data[:2]]
    distance = DenseDistance(dense, [*functions, data[2]])
    batches = list(distance.batches)
    assert [len(aims[0]) for _, aims in batches] == [600, 300, 5]
    for rows, batch in zip(data, batches, strict=True):
        aims = dense(rows)
        expected = (other(rows) - aims).square().sum() / (aims - aims.mean(dim=0)).square().sum()
        loss = distance(other, batch)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert loss.requires_grad


def called(rows: Tensor, model: nn.Module) -> Tensor:
    out: Tensor = model(rows)
    return out


def test_no_data_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="the calibration data is empty"):
        list(DenseDistance(nn.Linear(2, 2), []).batches)


def test_a_function_that_returns_nothing_is_an_error() -> None:
    x = torch.randn(4, 2)

    def run(model: nn.Module) -> None:
        model(x)

    with pytest.raises(CalibrationError, match=r"the calibration returns none; return them .* or give GradientDescent"):
        list(DenseDistance(nn.Linear(2, 2), run).batches)


def test_outputs_of_other_shapes_are_an_error() -> None:
    lengths = iter([3, 4])

    def run(model: Any) -> Any:
        return model(torch.ones(next(lengths), 2))

    distance = DenseDistance(nn.Linear(2, 2), run)
    (batch,) = distance.batches
    with pytest.raises(CalibrationError, match="it must repeat its calls"):
        distance(nn.Linear(2, 2), batch)


def test_constant_outputs_are_compared_by_their_squares() -> None:
    dense, other = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        for model, bias in ((dense, 2.0), (other, 3.0)):
            model.weight.zero_()
            model.bias.fill_(bias)
    distance = DenseDistance(dense, [torch.ones(5, 1)])
    (batch,) = distance.batches
    assert distance(other, batch).item() == pytest.approx(1 / 4)

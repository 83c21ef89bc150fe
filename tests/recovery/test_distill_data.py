"""Calibration data for distillation: functions of the model as minibatches, inputs cut into rows, models left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from secateur.calibration import as_calibration
from secateur.calibration.runs import left_alone
from secateur.errors import CalibrationError
from secateur.recovery import refit
from secateur.recovery.minibatches import minibatches
from tests.recovery.distill_cases import minibatch, pruned, same, weights, world_model


class Listener(nn.Module):
    """Keeps what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def forward(self, x: Tensor, y: Tensor | None = None, word: str = "") -> Tensor:
        self.seen.append((x, y, word))
        return x


# --- functions among the items ------------------------------------------------------------------------------------


def test_functions_and_inputs_are_run_one_after_the_other() -> None:
    model, x = Listener(), torch.ones(1, 2)
    data = [x, lambda m: m(x * 2, word="from a function"), {"x": x * 3}]
    as_calibration(data).run(model)
    assert [(float(seen[0, 0]), word) for seen, _, word in model.seen] == [(1, ""), (2, "from a function"), (3, "")]


def test_refit_on_functions_is_refit_on_one_function_that_calls_them_all() -> None:
    model = world_model()
    runs = [minibatch(40, seed) for seed in range(3)]
    small, plan = pruned(model, runs[0], 0.5)
    other, _ = pruned(model, runs[0], 0.5)
    refit(small, model, plan, runs)
    refit(other, model, plan, lambda m: [run(m) for run in runs])
    assert same(weights(small), weights(other))


def test_minibatches_are_the_items_or_the_one_function() -> None:
    def function(model: nn.Module) -> None:
        model(torch.zeros(1, 1))

    items = [torch.ones(2, 2), function, torch.zeros(3, 2)]
    runs, model = list(as_calibration(items).minibatches()), Listener()
    assert runs[1] is function
    assert list(as_calibration(function).minibatches()) == [function]
    for run in runs[::2]:
        run(model)
    assert [len(x) for x, *_ in model.seen] == [2, 3]
    with pytest.raises(CalibrationError, match="the calibration data is empty"):
        list(as_calibration([]).minibatches())


def test_items_are_read_one_by_one() -> None:
    class Lazy:
        read = 0

        def __iter__(self) -> Iterator[Tensor]:
            for _ in range(3):
                self.read += 1
                yield torch.ones(1, 1)

    data = Lazy()
    runs = as_calibration(data).minibatches()
    next(runs)
    assert data.read == 1
    assert len(list(runs)) == 2


def test_a_loader_that_shuffles_is_read_once() -> None:
    loader: DataLoader[Any] = DataLoader(TensorDataset(torch.arange(20.0)[:, None]), 4, shuffle=True)
    runs, models = list(as_calibration(loader).minibatches()), (Listener(), Listener())
    for model in models:
        for run in runs:
            run(model)
    first, second = (torch.cat([x for x, *_ in model.seen]) for model in models)
    assert torch.equal(first, second)


# --- rows ---------------------------------------------------------------------------------------------------------


def test_rows_are_shuffled_and_cut_and_stay_together() -> None:
    x, y = torch.arange(10.0)[:, None], torch.arange(10.0) + 100
    model = Listener()
    runs = minibatches([(x, y), {"x": x[:3], "y": y[:3], "word": "kept"}], 4, seed=0)
    for run in runs:
        run(model)
    assert [len(a) for a, *_ in model.seen] == [4, 4, 2, 3]
    assert all(torch.equal(a[:, 0] + 100, b) for a, b, _ in model.seen)
    assert [word for *_, word in model.seen] == ["", "", "", "kept"]
    first = torch.cat([a for a, *_ in model.seen[:3]])[:, 0]
    assert sorted(first.tolist()) == list(range(10))
    assert first.tolist() != list(range(10))


def test_the_seed_decides_on_the_rows() -> None:
    def first(seed: int) -> list[float]:
        model = Listener()
        minibatches([torch.arange(50.0)], 5, seed)[0](model)
        values: list[float] = model.seen[0][0].tolist()
        return values

    assert first(1) == first(1) != first(2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda model: None, "which a calibration function doesn't allow"),
        ([lambda model: None], "which a calibration function doesn't allow"),
        ([(torch.ones(3, 2), torch.ones(4))], r"first dimensions of lengths \[3, 4\]"),
        ([(torch.ones(3, 2), torch.tensor(1.0))], r"first dimensions of lengths \[0, 3\]"),
        ([torch.ones(0, 2)], r"first dimensions of lengths \[0\]"),
        ([{"word": "no tensor"}], "an item of the calibration data with no tensors"),
        ([], "the calibration data is empty"),
    ],
)
def test_what_cannot_be_cut(data: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        minibatches(data, 2, seed=0)


# --- a run that leaves the model alone ----------------------------------------------------------------------------


class Stateful(nn.Module):
    """Counts in a buffer, remembers in attributes, and lists what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))
        self.layer = nn.Linear(2, 2)
        self.memory: Tensor | None = None
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.seen.append(x)
        self.memory = self.layer(x) if self.memory is None else self.layer(x + self.memory)
        return self.memory * self.count


def test_attributes_and_buffers_are_put_back() -> None:
    model = Stateful()
    count, seen = model.count, model.seen
    with left_alone(model):
        first = model(torch.ones(1, 2))
        model(torch.ones(1, 2))
        assert (float(model.count), len(model.seen)) == (2, 2)
    assert model.count is count
    assert (float(count), model.memory, model.seen) == (0, None, [])
    assert model.seen is seen
    with left_alone(model):
        assert torch.equal(model(torch.ones(1, 2)), first)


def test_what_is_put_back_does_not_spoil_a_gradient() -> None:
    """A batch norm's statistics are part of the graph: put back in place, they would make it unusable."""
    model = nn.BatchNorm1d(3).eval()
    with left_alone(model):
        loss = model(torch.randn(5, 3)).square().sum()
        buffers = list(model.buffers())
    loss.backward()
    assert not {id(b) for b in buffers} & {id(b) for b in model.buffers()}


def test_a_run_that_fails_is_undone() -> None:
    model = Stateful()

    def fail() -> None:
        with left_alone(model):
            model(torch.ones(1, 2))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (float(model.count), model.memory, model.seen) == (0, None, [])

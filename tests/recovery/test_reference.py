"""What the dense model does, found once for many smaller models: exactly what it does beside each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import secateur
from secateur.errors import CalibrationError
from secateur.graph.groups import Consumer
from secateur.importance.criterion import prunable_consumers
from secateur.plan import PruningPlan, plan
from secateur.recovery.refit import Reference, refit_consumers
from tests.recovery.refit_cases import hand_plan, sliced
from tests.recovery.test_refit_traced import MODELS, Run

INPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Branches(nn.Module):
    """Two linear layers, one of which only some calls reach; a ReLU writes into the output of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(8, 4)
        self.d = nn.Linear(5, 3)

    def forward(self, x: Tensor, *, aside: bool = False) -> Tensor:
        hidden = self.a(x).relu_()
        out: Tensor = self.c(hidden) if aside else self.d(self.b(hidden).relu_())
        return out


def built() -> tuple[Branches, dict[str, PruningPlan]]:
    """The model, and plans that prune different consumers."""
    torch.manual_seed(0)
    model = Branches()
    axes = [("a.weight", 0), ("a.bias", 0), ("b.weight", 1), ("c.weight", 1)]
    first = {axis: [0, 2, 5] for axis in axes}
    second = {("b.weight", 0): [1, 4], ("b.bias", 0): [1, 4], ("d.weight", 1): [1, 4]}
    reads = [("b.weight", 1), ("c.weight", 1)]
    return model, {
        "first": hand_plan(model, first, reads),
        "second": hand_plan(model, second, [("d.weight", 1)]),
        "both": hand_plan(model, {**first, **second}, [*reads, ("d.weight", 1)]),
    }


def noisy(model: nn.Module) -> None:
    for aside in (False, True, False):
        model(torch.randn(int(np.random.randint(20, 30)), 6), aside=aside)


CALIBRATIONS: dict[str, Any] = {
    "items": [{"x": INPUTS[:25], "aside": True}, {"x": INPUTS}, {"x": INPUTS[5:], "aside": False}],
    "function": noisy,
}
CONSUMERS = [Consumer("b.weight", 1), Consumer("c.weight", 1), Consumer("d.weight", 1)]


@pytest.mark.parametrize("largest", [2**29, 100], ids=["recorded", "too large to record"])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("calibration", CALIBRATIONS.values(), ids=list(CALIBRATIONS))
def test_models_are_refitted_as_beside_the_dense_one(
    calibration: Any, steps: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The module, which the function of the same name hides.
    monkeypatch.setattr(sys.modules[refit_consumers.__module__], "RECORDED_BYTES", largest)
    model, plans = built()
    torch.manual_seed(3)
    np.random.seed(3)
    reference = Reference.of(model, CONSUMERS, calibration)
    assert (reference.recording is None) == (largest == 100)
    for pruning in plans.values():
        beside, afterwards = sliced(model, pruning), sliced(model, pruning)
        one = refit_consumers(beside, model, pruning, calibration, steps=steps)
        other = refit_consumers(afterwards, model, pruning, reference, steps=steps)
        assert same(beside, afterwards)
        assert one == other


def test_random_numbers_are_those_of_the_recorded_run() -> None:
    model, plans = built()
    torch.manual_seed(3)
    np.random.seed(3)
    beside = sliced(model, plans["both"])
    refit_consumers(beside, model, plans["both"], noisy)
    reference = Reference.of(model, CONSUMERS, noisy)
    torch.manual_seed(4)
    afterwards = sliced(model, plans["both"])
    refit_consumers(afterwards, model, plans["both"], reference)
    assert same(beside, afterwards)


def test_a_loader_that_shuffles_is_read_once() -> None:
    model, plans = built()
    loader: DataLoader[Any] = DataLoader(TensorDataset(INPUTS), 8, shuffle=True)
    reference = Reference.of(model, CONSUMERS[::2], loader)
    results = []
    for _ in range(2):
        results.append(sliced(model, plans["second"]))
        refit_consumers(results[-1], model, plans["second"], reference)
    assert same(*results)


def test_consumers_that_are_not_pruned_need_not_be_reached() -> None:
    model, plans = built()
    reference = Reference.of(model, CONSUMERS, [INPUTS])
    small = sliced(model, plans["second"])
    assert [c.parameter for c in refit_consumers(small, model, plans["second"], reference).refitted] == ["d.weight"]
    with pytest.raises(CalibrationError, match="calibration never reaches 'c', which consumes pruned channels"):
        refit_consumers(sliced(model, plans["first"]), model, plans["first"], reference)


def more_calls(model: Branches, small: nn.Module) -> Callable[[nn.Module], None]:
    def run(m: nn.Module) -> None:
        for _ in range(1 if m is model else 2):
            m(INPUTS)

    return run


def other_rows(model: Branches, small: nn.Module) -> Callable[[nn.Module], None]:
    return lambda m: m(INPUTS if m is model else INPUTS[1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (more_calls, "the smaller model calls 'd' more often than the other"),
        (other_rows, "a call of 'd' has 40 rows in the dense model and 39 in the smaller"),
    ],
)
def test_runs_that_differ_from_the_recorded_one(make: Any, message: str) -> None:
    model, plans = built()
    small = sliced(model, plans["second"])
    reference = Reference.of(model, CONSUMERS[::2], make(model, small))
    with pytest.raises(CalibrationError, match=message):
        refit_consumers(small, model, plans["second"], reference)


@pytest.mark.parametrize("data", [[], iter([])])
def test_no_data(data: Any) -> None:
    with pytest.raises(CalibrationError, match="the calibration data is empty"):
        Reference.of(built()[0], CONSUMERS, data)


@pytest.mark.parametrize(("build", "shape", "run"), MODELS.values(), ids=list(MODELS))
def test_traced_models(build: Any, shape: tuple[int, ...], run: Run) -> None:
    model = build().eval()
    x = torch.randn(shape)
    graph = secateur.trace(model, run=lambda m: run(m, x[:2]))
    scores = secateur.importance.Random()(graph, model)
    reference = Reference.of(model, prunable_consumers(graph), lambda m: run(m, x))
    for fraction in (0.25, 0.5):
        pruning = plan(graph, scores, fraction)
        beside, afterwards = (secateur.apply(model, pruning) for _ in range(2))
        refit_consumers(beside, model, pruning, lambda m: run(m, x), steps=2)
        refit_consumers(afterwards, model, pruning, reference, steps=2)
        assert same(beside, afterwards)

"""The error against the dense model, from its formula."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.errors import CalibrationError, ObjectiveError
from secateur.metrics import DenseError

ROWS = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 3


def linear(seed: int, outputs: int = 4) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(6, outputs)


def call(rows: Tensor, model: nn.Module) -> Tensor:
    out: Tensor = model(rows)
    return out


def fraction_of_variance(dense: nn.Module, model: nn.Module, rows: Tensor = ROWS) -> float:
    with torch.no_grad():
        y, z = dense(rows).double().numpy(), model(rows).double().numpy()
    return float(((z - y) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("size", [1, 7, 40])
def test_it_is_the_unexplained_fraction_of_the_variance(size: int) -> None:
    dense, model = linear(0), linear(1)
    metric = DenseError(dense, list(ROWS.split(size)))
    assert metric(model) == pytest.approx(fraction_of_variance(dense, model), rel=1e-6)
    assert metric(dense) == 0


def test_the_best_constant_scores_one() -> None:
    dense, constant = linear(0), linear(0)
    with torch.no_grad():
        constant.weight.zero_()
        constant.bias.copy_(dense(ROWS).mean(dim=0))
    assert DenseError(dense, [ROWS])(constant) == pytest.approx(1, abs=1e-6)


def test_every_output_counts_alike() -> None:
    class Two(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.policy, self.value = linear(seed), linear(seed + 1, 1)

        def forward(self, x: Tensor) -> dict[str, Any]:
            return {
                "policy": self.policy(x),
                "value": 1000 * self.value(x)[:, 0],
                "action": self.policy(x).argmax(dim=1),
            }

    dense, model = Two(0), Two(5)
    parts = [fraction_of_variance(getattr(dense, n), getattr(model, n)) for n in ("policy", "value")]
    assert DenseError(dense, [ROWS])(model) == pytest.approx(np.mean(parts), rel=1e-5)


def test_a_function_returns_what_is_compared() -> None:
    dense, model = linear(0), linear(1)
    assert DenseError(dense, lambda m: [m(ROWS[:10]), None])(model) == pytest.approx(
        fraction_of_variance(dense, model, ROWS[:10]), rel=1e-6
    )
    with pytest.raises(ObjectiveError, match="gives no outputs to compare; a calibration function must return them"):
        DenseError(dense, lambda m: None)(model)


def test_functions_are_minibatches_like_inputs() -> None:
    dense, model = linear(0), linear(1)
    expected = fraction_of_variance(dense, model)
    pieces = ROWS.split(7)
    functions = [partial(call, rows) for rows in pieces]
    for calibration in (functions, iter(functions), [*functions[:2], *pieces[2:]]):
        metric = DenseError(dense, calibration)
        assert metric(model) == pytest.approx(expected, rel=1e-6)
        assert metric(model) == pytest.approx(expected, rel=1e-6)


def test_items_of_different_lengths_have_means_of_their_own() -> None:
    class Cumulated(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor))

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x.cumsum(dim=1)

    items = [torch.randn(9, 3), torch.randn(5, 4), torch.randn(9, 3)]
    sums = [torch.cat([items[0], items[2]]).cumsum(dim=1).double(), items[1].cumsum(dim=1).double()]
    squares = sum(float((s**2).sum()) for s in sums)
    deviations = sum(float(((s - s.mean(dim=0)) ** 2).sum()) for s in sums)
    assert DenseError(Cumulated(1.0), items)(Cumulated(1.5)) == pytest.approx(0.25 * squares / deviations, rel=1e-5)


def test_outputs_that_do_not_vary_are_held_against_their_mean_square() -> None:
    dense, model = linear(0), linear(0)
    with torch.no_grad():
        for m, bias in ((dense, 2.0), (model, 3.0)):
            m.weight.zero_()
            m.bias.fill_(bias)
    assert DenseError(dense, [ROWS])(model) == pytest.approx(0.25, rel=1e-6)


def test_both_models_see_the_same_random_numbers() -> None:
    class Perturbed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn(len(x), 1))

    model = Perturbed(6, 4)
    state = torch.get_rng_state()
    assert DenseError(model, [ROWS, ROWS])(model) == 0
    assert torch.equal(state, torch.get_rng_state())


def test_models_stay_in_their_modes() -> None:
    dense, model = (nn.Sequential(linear(0), nn.Dropout(0.9)) for _ in range(2))
    model.load_state_dict(dense.state_dict())
    assert DenseError(dense.train(), [ROWS])(model.train()) == 0
    assert all(m.training for m in (*dense.modules(), *model.modules()))


def test_wrong_input() -> None:
    with pytest.raises(CalibrationError, match="calibration is a single Tensor"):
        DenseError(linear(0), ROWS)
    with pytest.raises(CalibrationError, match="the calibration data is empty"):
        DenseError(linear(0), [])(linear(1))
    with pytest.raises(ObjectiveError, match=r"outputs have shapes \[\(40, 4\)\], the smaller model's \[\(40, 3\)\]"):
        DenseError(linear(0), [ROWS])(linear(1, 3))
    with pytest.raises(CalibrationError, match="calibration failed on the smaller model"):
        DenseError(linear(0), [ROWS])(nn.Linear(5, 4))


def test_a_one_shot_iterator_is_kept() -> None:
    metric = DenseError(linear(0), iter([ROWS]))
    first = metric(linear(1))
    assert metric(linear(1)) == first > 0

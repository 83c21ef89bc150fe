"""Entry points that don't do the same twice: where two runs part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from secateur.graph.entry_point import ForwardCall
from secateur.graph.parting import parting
from secateur.graph.record import Step
from secateur.graph.repeatability import difference_between_runs

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
CALLS = [0]


class Counting(nn.Module):
    """Depends on how often it was called."""

    def __init__(self, activation: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
        super().__init__()
        self.body, self.noise, self.head = nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS[0] += 1
        out: torch.Tensor = self.head(self.noise(self.activation(self.body(x), CALLS[0])))
        return out


def difference(activation: Callable[[torch.Tensor, int], torch.Tensor]) -> str | None:
    CALLS[0] = 0
    return difference_between_runs(Counting(activation).train(), ForwardCall(X))


def test_a_model_that_draws_random_numbers_does_the_same_twice() -> None:
    assert difference(lambda h, n: torch.relu(h) + torch.rand(8) + torch.empty(8).fill_(1)) is None


def test_another_operator_is_named_with_its_place() -> None:
    found = difference(lambda h, n: torch.relu(h) if n % 2 else torch.tanh(h))
    assert found is not None
    assert "two runs take different operators from operator 2 on: aten.relu in test_repeatability.py:" in found
    assert "(giving (4, 8)) in the one, aten.tanh in" in found


def test_a_run_that_is_longer_is_named() -> None:
    found = difference(lambda h, n: h if n == 1 else h.exp().log())
    assert found is not None
    assert "aten.exp in" in found


def test_another_number_is_named_where_it_comes_in() -> None:
    found = difference(lambda h, n: h + torch.full((8,), float(n)))
    assert found is not None
    assert "two runs compute different values from operator 2 on: aten.full in" in found
    assert difference(lambda h, n: h + torch.full((8,), float(n > 0))) is None


def test_memory_that_is_written_before_it_is_read_may_hold_anything() -> None:
    """As padding does it: allocate, take a part, write it."""

    def padded(h: torch.Tensor, calls: int) -> torch.Tensor:
        memory = torch.from_numpy(np.full(8, calls, np.float32))
        memory[:3].copy_(torch.ones(3))
        memory[3:].copy_(torch.zeros(5))
        return h + memory

    assert difference(padded) is None
    found = difference(lambda h, n: h + torch.from_numpy(np.full(8, n, np.float32))[:8])
    assert found is not None
    assert "compute different values from operator 4 on: aten.add in" in found


def test_a_changed_sign_of_zero_or_type_is_a_difference() -> None:
    assert difference(lambda h, n: h + torch.full((8,), 0.0 if n == 1 else -0.0)) is not None
    assert difference(lambda h, n: h * torch.ones(8, dtype=torch.int32 if n == 1 else torch.float32)) is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.bool, torch.float8_e4m3fn])
def test_values_of_any_type_are_compared(dtype: torch.dtype) -> None:
    def activation(same: bool) -> Callable[[torch.Tensor, int], torch.Tensor]:
        return lambda h, n: h + torch.full((8,), 1.0 if same else n % 2, dtype=dtype).real.float().abs()

    assert difference(activation(same=True)) is None
    assert difference(activation(same=False)) is not None


def test_the_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    model = Counting(lambda h, n: h + torch.rand(8)).train()
    torch.manual_seed(3)
    difference_between_runs(model, ForwardCall(X))
    assert torch.equal(torch.rand(2), expected)


def test_parting() -> None:
    def step(name: str, *shape: int) -> Step:
        return name, "body at model.py:3", (torch.Size(shape),)

    first = [step("aten.mm", 4, 8), step("aten.relu", 4, 8)]
    assert parting(first, list(first)) is None
    assert parting(first, first[:1]) == (
        "from operator 2 on: aten.relu in body at model.py:3 (giving (4, 8)) in the one, none in the other"
    )
    shorter = parting(first, [first[0], step("aten.relu", 4, 6)])
    assert shorter is not None
    assert "(giving (4, 6)) in the other" in shorter

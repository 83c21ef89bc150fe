"""Other tensors in the place of a model's own, for any code that uses it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.allocation.substituted import Substituted
from tests.models.control import WorldModel, rollout


class Counting(nn.Module):
    """Tied weights, a buffer that is written to, and one that is replaced."""

    calls: Tensor
    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.mean(dim=0)
        out: Tensor = self.second(self.first(x))
        return out


def state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tied_tensors_stay_tied_and_buffers_untouched() -> None:
    model, x = Counting(), torch.randn(5, 3)
    before, weight = state(model), model.first.weight
    substituted = Substituted(model)
    assert substituted.first_of == {"second.weight": "first.weight"}
    tensors = substituted.detached()
    tensors["first.weight"] = 2 * torch.eye(3)
    out = substituted.run(lambda m: m(x), tensors)
    assert torch.allclose(out, 2 * (2 * x + model.first.bias) + model.second.bias)
    assert same(model, before)
    assert model.second.weight is model.first.weight is weight
    assert tensors["calls"] == 1


def test_tensors_that_share_memory_are_tied() -> None:
    model = Counting()
    model.second.weight = nn.Parameter(model.first.weight.detach())
    substituted = Substituted(model)
    tensors = {**substituted.detached(), "first.weight": torch.zeros(3, 3)}
    assert torch.equal(substituted.run(lambda m: m(torch.ones(1, 3)), tensors)[0], model.second.bias)


def test_a_failing_function_leaves_the_model_as_it_was() -> None:
    model = Counting()
    before = state(model)

    def fails(m: nn.Module) -> None:
        m(torch.ones(1, 3))
        raise ZeroDivisionError

    substituted = Substituted(model)
    with pytest.raises(ZeroDivisionError):
        substituted.run(fails, substituted.detached())
    assert same(model, before)


def test_a_model_without_forward_runs_through_its_methods() -> None:
    model, run = WorldModel().double(), rollout()
    substituted = Substituted(model)
    tensors = substituted.detached()
    before: Any = run(model)
    assert torch.equal(substituted.run(run, tensors)["return"], before["return"])
    tensors["dynamics.0.weight"] = torch.zeros_like(tensors["dynamics.0.weight"]).requires_grad_()
    after: Any = substituted.run(run, tensors)
    assert not torch.equal(after["return"], before["return"])
    assert after["return"].requires_grad
    assert torch.equal(run(model)["return"], before["return"])


def test_recurrent_modules_see_the_other_tensors() -> None:
    model, x = nn.LSTM(2, 3), torch.randn(4, 1, 2)
    substituted = Substituted(model)
    zeros = {name: torch.zeros_like(t) for name, t in substituted.detached().items()}
    assert substituted.run(lambda m: m(x)[0], zeros).abs().max() == 0
    assert model(x)[0].abs().max() > 0


def test_tensors_made_in_inference_mode_can_be_used() -> None:
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    tensors = Substituted(model).detached()
    assert not any(t.is_inference() for t in tensors.values())

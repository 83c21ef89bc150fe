"""Operators that are given functions: their parts are seen, what goes in stays, and what can't be seen is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator

import secateur
from secateur.errors import TraceError

Function = Callable[[torch.Tensor], torch.Tensor]
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Applied(HigherOrderOperator):
    """Calls a function."""

    def __init__(self, name: str) -> None:
        super().__init__(name)  # type: ignore[no-untyped-call]
        self.fallthrough(DispatchKey.AutogradCPU)  # type: ignore[no-untyped-call]

    def __call__(self, function: Function, x: torch.Tensor) -> Any:
        return super().__call__(function, x)  # type: ignore[no-untyped-call]


seen, unseen = Applied("applied_in_the_open"), Applied("applied_in_secret")


@seen.py_impl(DispatchKey.CompositeExplicitAutograd)
def applied(function: Function, x: torch.Tensor) -> torch.Tensor:
    return function(x)


class Inner(nn.Module):
    """A layer that an operator calls."""

    def __init__(self, operator: Applied) -> None:
        super().__init__()
        self.layer, self.operator = nn.Linear(8, 6), operator

    def forward(self, x: torch.Tensor) -> Any:
        return self.operator(lambda h: torch.relu(self.layer(h)), x)


def _model(operator: Applied) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), Inner(operator), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double()


def test_what_goes_in_stays_and_what_it_calls_is_followed() -> None:
    graph = secateur.trace(_model(seen), X.double())
    assert {group.name: group.size for group in graph.groups} == {"1.layer": 6, "2": 5}
    found = {(u.parameter, u.axis): u.reasons for u in graph.unprunable}
    reason = next(r for r in found["0.weight", 0] if "use ordinary tensor operations while pruning" in r)
    assert "applied_in_the_open in 1 at test_higher_order.py" in reason


def test_the_smaller_model_is_proved() -> None:
    result = secateur.prune(_model(seen), X.double(), target=secateur.Sparsity(0.3, tolerance=0.1))
    layer = result.model.get_submodule("1.layer")
    assert isinstance(layer, nn.Linear)
    assert layer.in_features == 8
    assert layer.out_features < 6


def test_what_can_not_be_seen_is_refused() -> None:
    with pytest.raises(TraceError, match=r"applied_in_secret in 1 at test_higher_order\.py:\d+ can't be followed.*do"):
        secateur.trace(_model(unseen), X.double())

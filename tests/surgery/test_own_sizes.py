"""Modules whose sizes a registered function puts right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.graph.own_sizes import REGISTERED
from secateur.importance import Random
from secateur.surgery import updates_sizes


class Hidden(nn.Module):
    """A module that knows its width from an array."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = np.array([width])
        self.gain = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x.reshape(len(x), int(self.sizes[0]))


class Derived(Hidden):
    pass


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = dict(REGISTERED)
    yield
    REGISTERED.clear()
    REGISTERED.update(before)


def model(cls: type[Hidden]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), cls(12), nn.Linear(12, 2)).double()


X = torch.randn(5, 6, dtype=torch.float64)


@pytest.mark.parametrize("cls", [Hidden, Derived])
def test_a_registered_class_follows(cls: type[Hidden]) -> None:
    assert not secateur.trace(model(cls), X).groups

    @updates_sizes(Hidden)
    def update(module: Any) -> None:
        module.sizes = np.array([len(module.gain)])

    dense: Any = model(cls)
    graph = secateur.trace(dense, X)
    plan = secateur.plan(graph, Random(seed=0)(graph, dense), {"0": 0.5})
    small: Any = secateur.apply(dense, plan)
    secateur.verify(dense, small, plan)
    assert small[1].sizes.tolist() == [6]
    assert dense[1].sizes.tolist() == [12]


def test_a_class_has_one_function() -> None:
    updates_sizes(Hidden)(lambda module: None)
    with pytest.raises(ValueError, match="Hidden already has a function that updates its sizes"):
        updates_sizes(Hidden)(lambda module: None)

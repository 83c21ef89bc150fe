"""Garbage collection while a model is traced: rare, and afterwards as before."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from secateur.errors import TraceError
from secateur.graph import trace


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)


class Looking(nn.Sequential):
    """Notes the collector's thresholds while it runs, and fails if it is told to."""

    seen: tuple[int, int, int] = (0, 0, 0)
    fails = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Looking.seen = gc.get_threshold()
        if self.fails:
            raise ValueError("no")
        for layer in self:
            x = layer(x)
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_thresholds_are_as_before_whatever_happens(fails: bool) -> None:
    model = Looking(nn.Linear(3, 8), nn.Linear(8, 2))
    model.fails = fails
    gc.set_threshold(600, 9, 8)
    if fails:
        with pytest.raises(TraceError):
            trace(model, torch.randn(2, 3))
    else:
        trace(model, torch.randn(2, 3))
    assert Looking.seen == (50_000, 9, 8)
    assert gc.get_threshold() == (600, 9, 8)


@pytest.mark.parametrize("least", [0, 10**6])
def test_a_collector_that_is_off_or_rare_stays_so(least: int) -> None:
    gc.set_threshold(least, 10, 10)
    trace(Looking(nn.Linear(3, 8), nn.Linear(8, 2)), torch.randn(2, 3))
    assert Looking.seen == (least, 10, 10)
    assert gc.get_threshold() == (least, 10, 10)

"""Sparse buffers, such as tables of where attention heads align: they stay whole, and stand in nobody's way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur
from secateur.recovery import Distillation


class Aligned(nn.Module):
    """A network with a sparse table beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.head = nn.Linear(6, 16), nn.Linear(16, 7)
        self.register_buffer("aligned", torch.eye(4, dtype=torch.bool).to_sparse(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.wide(x).relu())
        return out


def test_everything_works_beside_a_sparse_buffer() -> None:
    torch.manual_seed(0)
    model, x = Aligned(), torch.randn(50, 6)
    result = secateur.prune(model, x, target=secateur.Sparsity(0.5, tolerance=0.05), calibration=[x])
    small = result.model
    assert small.get_parameter("wide.weight").shape[0] < 16
    assert torch.equal(small.get_buffer("aligned").to_dense(), torch.eye(4, dtype=torch.bool))
    Distillation(steps=2, plan=result.plan).run(small, model, [x])
    secateur.apply(model, result.plan, inplace=True)
    assert model.wide.weight.shape == small.get_parameter("wide.weight").shape
    assert torch.equal(model.get_buffer("aligned").to_dense(), torch.eye(4, dtype=torch.bool))


def test_another_sparse_buffer_is_no_proof() -> None:
    model, x = Aligned(), torch.randn(5, 6)
    graph = secateur.trace(model, x)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    small = secateur.apply(model, plan)
    secateur.verify(model, small, plan)
    small.aligned = torch.zeros(4, 4, dtype=torch.bool).to_sparse()
    with pytest.raises(secateur.errors.VerificationError, match="'aligned' of the smaller model"):
        secateur.verify(model, small, plan)

"""Models on the meta device: shapes without values are traced, planned and pruned, and cost what is predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secateur.errors import ScoreError
from secateur.graph import DependencyGraph, trace
from secateur.importance import Magnitude, Random
from secateur.plan import plan
from secateur.surgery import apply
from tests.models.sequences import Attention
from tests.removal import counted_macs, counted_parameters


class TiedDecoder(nn.Module):
    """Tokens in, logits out, through the same table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 12)
        self.cell = nn.GRUCell(12, 16)
        self.back = nn.Linear(16, 12)
        self.norm = nn.RMSNorm(12)
        self.head = nn.Linear(12, 50, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(tokens.shape[0], self.cell.hidden_size, device=tokens.device)
        for token in tokens.unbind(1):
            state = self.cell(self.table(token), state)
        return self.head(self.norm(self.back(state)))


def convolutional() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8, 4)).eval()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "convolutional": (convolutional, lambda: torch.zeros(2, 3, 8, 8)),
    "attention": (lambda: Attention("separate"), lambda: torch.zeros(2, 4, 5)),
    "recurrent, tied": (TiedDecoder, lambda: torch.zeros(2, 3, dtype=torch.long)),
}


def on_meta(name: str) -> tuple[nn.Module, torch.Tensor]:
    build, inputs = CASES[name]
    with torch.device("meta"):
        return build(), inputs()


def shapes(graph: DependencyGraph) -> list[Any]:
    return [(g.name, g.size, g.blocks, g.units, g.mixing, [str(m) for m in g.members]) for g in graph.groups]


@pytest.mark.parametrize("name", CASES)
def test_the_graph_is_that_of_the_model_with_values(name: str) -> None:
    build, inputs = CASES[name]
    found = shapes(trace(*on_meta(name)))
    assert found == shapes(trace(build(), inputs()))
    assert found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("inplace", [False, True])
def test_pruned_as_predicted(name: str, inplace: bool) -> None:
    model, x = on_meta(name)
    graph = trace(model, x)
    chosen = plan(graph, Random(0)(graph, model), 0.5)
    cost = graph.cost({group: len(kept) for group, kept in chosen.groups.items()})
    dense = counted_parameters(model)
    small = apply(model, chosen, inplace=inplace)
    assert all(p.is_meta for p in small.parameters())
    assert cost.parameters == counted_parameters(small) < dense
    assert cost.macs == counted_macs(lambda m: m(x), small)
    assert small(x).shape == CASES[name][0]()(CASES[name][1]()).shape


def test_ties_stay() -> None:
    model, x = on_meta("recurrent, tied")
    graph = trace(model, x)
    small: Any = apply(model, plan(graph, Random(0)(graph, model), 0.5))
    assert small.head.weight is small.table.weight


def test_magnitude_needs_values() -> None:
    model, x = on_meta("convolutional")
    with pytest.raises(ScoreError, match="the model is on the meta device, which holds no values"):
        Magnitude()(trace(model, x), model)


def test_a_large_model_takes_no_memory_for_values() -> None:
    """Forty gigabytes of parameters."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(100_000, 50_000), nn.ReLU(), nn.Linear(50_000, 100_000))
        x = torch.zeros(1, 100_000)
    graph = trace(model, x)
    chosen = plan(graph, {"0": np.arange(50_000.0)}, 0.9)
    assert chosen.groups["0"].tolist() == list(range(45_000, 50_000))
    assert graph.cost({"0": 5_000}).parameters == counted_parameters(apply(model, chosen)) == 1_000_105_000

"""What is learned of a model grows no faster than the model, and with the steps of a loop the graph doesn't grow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from secateur.graph import DependencyGraph, trace
from secateur.graph.components import component_map
from secateur.graph.record import Trace
from secateur.graph.trace import run_traced
from secateur.graph.tracer import Tracer


class Residual(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)) for _ in range(depth)
        )
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


class Attention(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 6, batch_first=True) for _ in range(depth)))
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(self.first(x)))


class Recurrent(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers, self.last = nn.GRU(3, 6, depth, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(x)[0])


class Loop(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = range(steps)
        self.cell, self.norm, self.last = nn.GRUCell(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for _ in self.steps:
            state = self.norm(self.cell(x[:, 0], state))
        return self.last(state)


BUILD: dict[str, Callable[[int], nn.Module]] = {
    "residual": Residual,
    "attention": Attention,
    "recurrent": Recurrent,
    "loop": Loop,
}
X = torch.randn(2, 4, 3)


def traced(name: str, depth: int) -> Trace:
    model = BUILD[name](depth).eval()
    tracer = Tracer(model, component_map(model, None))
    run_traced(model, lambda m: m(X), tracer)
    return tracer.trace


def learned(found: Trace) -> dict[str, int]:
    """How many facts and labels in them."""
    facts = found.facts
    return {
        "labels": facts.size,
        "equal": len(facts.equal),
        "labels in equalities": sum(len(a) for a, _ in facts.equal),
        "labels in notes": sum(len(note.labels) for note in (*facts.fixed, *facts.mixed)),
        "labels in counts": sum(len(entry.labels) for count in facts.counts for entry in count.entries),
        "equations": len(facts.equations),
        "consumed": len(found.consumed),
        "produced": len(found.produced),
        "macs": len(found.macs),
        "steps": len(found.steps),
    }


@pytest.mark.parametrize("name", BUILD)
def test_facts_are_linear_in_depth(name: str) -> None:
    few, more, most = (learned(traced(name, depth)) for depth in (2, 4, 8))
    for what in few:
        assert most[what] - more[what] == 2 * (more[what] - few[what]), what


def sizes(graph: DependencyGraph) -> list[tuple[int, int, int]]:
    return [(g.size, g.blocks, g.units) for g in graph.groups]


def test_a_longer_loop_gives_the_same_graph_and_cost_terms() -> None:
    few, many = (trace(Loop(steps).eval(), X) for steps in (2, 9))
    assert sizes(few) == sizes(many)
    assert [[str(m) for m in g.members] for g in few.groups] == [[str(m) for m in g.members] for g in many.groups]
    assert few.unprunable == many.unprunable
    assert len(few.cost_model.mac_terms.starts) == len(many.cost_model.mac_terms.starts)
    once = trace(Loop(1).eval(), X).cost().macs
    assert many.cost().macs - few.cost().macs == 7 * (few.cost().macs - once)

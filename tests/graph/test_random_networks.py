"""300 networks drawn at random from the parts of all others: pruned equals masked, cost predicted equals counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from secateur.graph import trace
from secateur.surgery import apply
from tests.models.case import unsettle
from tests.models.parts import BUILDERS, KIND_OF, SHAPES, Design, Part, build, designs
from tests.removal import counted_macs, counted_parameters, largest_difference, masked, outputs, random_plan


def check(design: Design, seed: int) -> None:
    """Prune at random and compare with masking; then with everything that mixes pruned as well, shapes and cost."""
    torch.manual_seed(seed)
    model = build(design).double().eval()
    unsettle(model)
    x = torch.randn(SHAPES[design.kind], dtype=torch.float64)

    def run(m: nn.Module) -> Any:
        return m(x)

    graph = trace(model, run=run)
    assert not graph.missing_rules
    chosen = random_plan(graph, seed, keep=[g.name for g in graph.groups if g.mixing])
    expected = outputs(run, masked(model, graph, chosen))
    scale = 1 + max(float(t.abs().max()) for t in expected)
    assert largest_difference(outputs(run, apply(model, chosen)), expected) < 1e-9 * scale
    everything = random_plan(graph, seed + 1)
    small = apply(model, everything)
    predicted = graph.cost({name: len(kept) for name, kept in everything.groups.items()})
    assert predicted.parameters == counted_parameters(small)
    assert predicted.macs == counted_macs(run, small)


@pytest.mark.parametrize("kind", ["vector", "tokens", "map"])
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), seed=st.integers(0, 999))
def test_random_networks(kind: str, data: st.DataObject, seed: int) -> None:
    check(data.draw(designs(kind)), seed)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in BUILDERS for kind in KIND_OF[name]])
def test_every_part_by_itself(name: str, kind: str) -> None:
    inside = tuple((Part("dense", i), Part("act", 1)) for i in range(2))
    for number in range(4):
        check(Design(kind, (Part("dense", 2), Part(name, number, inside), Part("act", 1))), number)

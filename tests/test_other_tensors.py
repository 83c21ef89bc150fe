"""Models without values, on the meta device, and models of half precision: the same graph, the same surgery."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

import secateur
from secateur.errors import SecateurWarning
from secateur.graph import DependencyGraph, trace
from secateur.graph.entry_point import EntryPoint
from secateur.surgery import apply
from secateur.verify import verify
from tests.models.case import Case, call
from tests.models.ensembles import Stacked, critic
from tests.models.zoo import CASES
from tests.removal import outputs, random_plan, train_step

NAMES = (
    "mlp-batch-norm",
    "unet",
    "resnet-bottleneck",
    "mobilenet",
    "pixel-shuffle",
    "attention-shapes",
    "grouped-query-expand",
    "rotary",
    "torch-attention",
    "transformer-norm-first",
    "vit",
    "tied-embedding",
    "tied-layers",
    "ensemble-vmap",
    "lstm-deep",
    "last-state-gru",
    "cell-loop-lstm",
    "rssm",
    "sim-norm-world",
    "mamba",
    "mixtral-all-experts",
    "mixer",
    "weight-norm-columns",
    "spectral-norm",
    "cait",
    "channel-statistics",
)
PICKED = [case for case in CASES if case.name in NAMES]


def entry_point(case: Case, change: Callable[[torch.Tensor], torch.Tensor], device: str = "cpu") -> EntryPoint:
    """Runs the model on the case's inputs, changed; new tensors are made on ``device``."""
    inputs = tree_map_only(torch.Tensor, change, case.example())

    def run(model: nn.Module) -> Any:
        torch.manual_seed(2)
        with torch.device(device):
            return call(model, inputs) if case.run is None else case.run(model, inputs)

    return run


def known(graph: DependencyGraph) -> list[Any]:
    """All that a graph says of its groups."""
    members = [[(m.parameter, m.axis, m.role, m.indices.tolist()) for m in g.members] for g in graph.groups]
    rest = [(g.name, g.size, g.blocks, g.tie, g.mixing) for g in graph.groups]
    return [*zip(rest, members, strict=True), graph.cost()]


def test_the_picked_ones_exist() -> None:
    assert sorted(case.name for case in PICKED) == sorted(NAMES)


@pytest.mark.parametrize("case", PICKED, ids=lambda case: case.name)
def test_a_plan_made_on_the_meta_device_prunes_the_real_model(case: Case) -> None:
    real, run = case.model(), case.entry_point()
    with torch.device("meta"):
        model = case.model()
    graph = trace(model, run=entry_point(case, lambda t: t.to("meta"), "meta"))
    assert known(graph) == known(trace(real, run=run))
    made = random_plan(graph, 0)
    small = apply(model, made)
    assert all(tensor.is_meta for tensor in small.state_dict().values())
    same = apply(real, made)
    assert [t.shape for t in small.state_dict().values()] == [t.shape for t in same.state_dict().values()]
    if made.is_empty:
        return
    with pytest.warns(SecateurWarning, match="on the meta device tensors have no values"):
        report = verify(model, small, made)
    assert (report.outputs, report.cost) == (0, verify(real, same, made, run=run).cost)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", PICKED, ids=lambda case: case.name)
def test_half_precision(case: Case, dtype: torch.dtype) -> None:
    model = case.model().to(dtype)
    run = entry_point(case, lambda t: t.to(dtype) if t.is_floating_point() else t)
    graph = trace(model, run=run)
    assert known(graph) == known(case.graph())
    made = random_plan(graph, 0)
    small = apply(model, made)
    assert {tensor.dtype for tensor in small.state_dict().values() if tensor.is_floating_point()} == {dtype}
    if not made.is_empty:
        assert verify(model, small, made).outputs > 0
    assert train_step(run, small)


def test_an_ensemble_called_through_a_skeleton_of_its_own() -> None:
    """One member without values is a part of the model, which is never reached and shrinks nowhere."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, dtype=torch.float64)
    model = Stacked([critic(norm=True) for _ in range(3)]).double()
    model.base = nn.ModuleList(model.base)  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = trace(model, x)
    assert {g.name: g.size for g in graph.groups} == {"parameters_of": 9, "parameters_of#2": 8}
    made = random_plan(graph, 0, keep={"parameters_of"})
    small = apply(model, made)
    assert verify(model, small, made).largest_difference < 1e-9
    once = apply(small, random_plan(trace(small, x), 1))
    assert [t.shape for t in outputs(lambda m: m(x), once)] == [(3, 4, 2)]


def test_a_model_too_large_for_the_memory_there_is() -> None:
    """Four layers as wide as GPT-3's, of 19 GB: planned and cut on the meta device."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(12288), nn.Linear(12288, 49152), nn.Linear(49152, 12288)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = x + self.down(torch.relu(self.up(self.norm(x))))
            return out

    with torch.device("meta"):
        model = nn.Sequential(*(Layer() for _ in range(4)))
        x = torch.empty(2, 12288)
    graph = trace(model, x)
    scores = {group.name: torch.arange(group.size).double().numpy() for group in graph.groups}
    small = apply(model, secateur.plan(graph, scores, 0.5))
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert sizes[0] > 4e9
    assert 0.49 < sizes[1] / sizes[0] < 0.51

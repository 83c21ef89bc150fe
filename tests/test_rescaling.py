"""Queries and keys divided by their own width: surgery makes up for it, so that pruned still equals masked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import secateur
from secateur.graph import DependencyGraph, trace
from secateur.plan import PruningPlan, plan
from secateur.surgery import apply
from secateur.verify import verify

WIDTH, HEADS, TOKENS = 24, 2, 5

Change = Callable[[torch.Tensor], torch.Tensor]


def same(x: torch.Tensor) -> torch.Tensor:
    return x


class Attention(nn.Module):
    """Attention by torch's own function, with what happens to queries and keys given."""

    def __init__(
        self, change: Change = same, *, fused: bool = False, flat: bool = False, scale: float | None = None
    ) -> None:
        super().__init__()
        self.change, self.fused, self.flat, self.scale = change, fused, flat, scale
        self.embed = nn.Linear(6, WIDTH)
        if fused:
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        else:
            self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        q, k, v = self.qkv(h).chunk(3, -1) if self.fused else (self.q(h), self.k(h), self.v(h))
        if not self.flat:
            q, k, v = (t.view(*t.shape[:2], HEADS, -1).transpose(1, 2) for t in (q, k, v))
        heads = F.scaled_dot_product_attention(self.change(q), self.change(k), v, scale=self.scale)
        return self.out(heads if self.flat else heads.transpose(1, 2).flatten(2))


def rotated(x: torch.Tensor) -> torch.Tensor:
    """Positions times fixed numbers, and the two halves of every head exchanged."""
    angles = torch.linspace(0, 1, TOKENS, dtype=x.dtype)[:, None]
    left, right = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-right, left], -1) * angles.sin()


def shrunk(model: nn.Module) -> tuple[DependencyGraph, PruningPlan, nn.Module]:
    graph = trace(model, torch.randn(2, TOKENS, 6, dtype=torch.float64))
    random = np.random.default_rng(0)
    made = plan(graph, {g.name: random.random(g.size) for g in graph.groups}, 0.5)
    return graph, made, apply(model, made)


@pytest.mark.parametrize("change", [same, rotated, lambda t: -2 * t], ids=["plain", "rotary", "scaled"])
@pytest.mark.parametrize("fused", [False, True])
def test_pruned_equals_masked(change: Change, fused: bool) -> None:
    model = Attention(change, fused=fused).double()
    graph, made, small = shrunk(model)
    (group,) = [g for g in graph.groups if g.rescaled]
    assert not any(g.mixing for g in graph.groups)
    report = verify(model, small, made)
    assert group.name in report.exact
    assert report.largest_difference <= 1e-9


def test_the_product_keeps_its_dense_scale() -> None:
    model = Attention().double()
    _, made, small = shrunk(model)
    kept, inputs = (torch.tensor(made.kept["q.weight", axis]) for axis in (0, 1))
    expected = model.q.weight[kept][:, inputs] * 0.5**0.25
    torch.testing.assert_close(small.get_parameter("q.weight"), expected)
    torch.testing.assert_close(small.get_parameter("k.bias"), model.k.bias[kept] * 0.5**0.25)


@pytest.mark.parametrize(
    "model",
    [
        Attention(lambda t: F.elu(t) + 1),
        Attention(lambda t: F.rms_norm(t, t.shape[-1:])),
        Attention(flat=True),
    ],
    ids=["not linear", "normed", "another kernel"],
)
def test_what_scaling_cannot_make_up_for_is_mixed(model: Attention) -> None:
    graph, made, small = shrunk(model.double())
    (group,) = [g for g in graph.groups if any(m.parameter == "q.weight" and m.axis == 0 for m in g.members)]
    assert not group.rescaled
    assert any("scaled by its own width" in reason for reason in group.mixing)
    assert group.name in verify(model, small, made).mixing


def test_queries_that_are_used_elsewhere_are_mixed() -> None:
    class Gated(Attention):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.q(self.embed(x)).sum(-1, keepdim=True)

    model = Gated().double()
    graph, made, small = shrunk(model)
    assert not any(g.rescaled for g in graph.groups)
    verify(model, small, made)


def test_a_scale_that_is_given_needs_nothing() -> None:
    graph, made, _ = shrunk(Attention(scale=0.3).double())
    assert not any(g.rescaled or g.mixing for g in graph.groups)
    assert not made.scale


def test_the_factors_are_part_of_the_plan(tmp_path: Path) -> None:
    model = Attention(fused=True).double()
    _, made, small = shrunk(model)
    again = PruningPlan.from_json(made.to_json())
    assert again == made
    torch.testing.assert_close(apply(model, again).state_dict(), small.state_dict())
    secateur.save(small, made, tmp_path / "saved")
    loaded = secateur.load(tmp_path / "saved", lambda: Attention(fused=True).double())
    torch.testing.assert_close(loaded.state_dict(), small.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scale: {"other.weight": {"0": [1.0]}}, 'not in "kept"'),
        (lambda scale: {"q.weight": {"0": [1.0]}}, "has 1 factors for 12 indices"),
        (lambda scale: {"q.weight": {"0": [-1.0] * 12}}, "is not a list of positive numbers"),
    ],
)
def test_malformed_factors(change: Callable[[object], object], message: str) -> None:
    _, made, _ = shrunk(Attention().double())
    data = json.loads(made.to_json())
    data["scale"] = change(data["scale"])
    with pytest.raises(secateur.PlanError, match=message):
        PruningPlan.from_json(json.dumps(data))

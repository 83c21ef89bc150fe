"""What leaves of an axis that is split into blocks: channels of every block, or whole blocks; chosen or found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur.errors import TraceError
from secateur.graph import DependencyGraph, trace
from secateur.importance import Magnitude
from secateur.plan import plan
from secateur.surgery import apply
from secateur.verify import verify
from tests.models.case import unsettle
from tests.removal import random_plan

X = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BOTH = {"q": 8, "v": 8}


class Attention(nn.Module):
    """Eight heads of four channels; ``inside`` does something to queries and keys before they meet."""

    def __init__(self, inside: Callable[[Any, torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.heads, self.head_dim = 8, 4
        self.q, self.k, self.v = (nn.Linear(6, 32) for _ in range(3))
        self.norm = nn.RMSNorm(4) if inside is normed else None
        self.out = nn.Linear(32, 2)
        self.inside = inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._split(layer(x)) for layer in (self.q, self.k, self.v))
        if self.inside is not None:
            q, k = self.inside(self, q), self.inside(self, k)
        y = (0.4 * q @ k.mT).softmax(-1) @ v
        out: torch.Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], self.heads, self.head_dim).transpose(1, 2)


class Two(nn.Module):
    """Two attentions, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Attention(), Attention()
        self.between = nn.Linear(2, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(torch.cos(self.between(self.first(x))))
        return out


def normed(module: Any, x: torch.Tensor) -> torch.Tensor:
    normalised: torch.Tensor = module.norm(x)
    return normalised


def rotated(module: Any, x: torch.Tensor) -> torch.Tensor:
    """Rotary positions whose angles are made from numbers, as wide as half a head."""
    angles = torch.outer(torch.arange(x.shape[2], dtype=x.dtype), 0.1 ** torch.arange(2, dtype=x.dtype))
    first, second = x.chunk(2, -1)
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def built(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = model.double().eval()
    unsettle(model)
    return model


def sizes(graph: DependencyGraph) -> dict[str, int]:
    return {g.name: g.size for g in graph.groups}


def blocks(graph: DependencyGraph) -> dict[str, int]:
    return {g.name: g.blocks for g in graph.groups if g.blocks > 1}


def assert_proved(model: nn.Module, graph: DependencyGraph) -> nn.Module:
    """Prune at random and prove it; returns the smaller model."""
    made = random_plan(graph, 0)
    assert not made.is_empty
    small = apply(model, made)
    assert verify(model, small, made).largest_difference < 1e-9
    return small


def test_every_head_loses_its_own_channels_where_it_can() -> None:
    model = built(Attention())
    graph = trace(model, X)
    assert (sizes(graph), blocks(graph)) == ({"q": 32, "v": 32}, BOTH)
    small = assert_proved(model, graph)
    assert isinstance(small, Attention)
    assert (small.heads, small.head_dim * 8) == (8, small.q.out_features)


def test_whole_heads_leave_where_the_user_says_so() -> None:
    model = built(Attention())
    graph = trace(model, X, granularity="heads")
    assert (sizes(graph), blocks(graph)) == ({"q": 8}, {})
    small = assert_proved(model, graph)
    assert isinstance(small, Attention)
    assert (small.head_dim, small.heads * 4) == (4, small.q.out_features)


def test_both_by_pruning_twice() -> None:
    model = built(Attention())
    fewer = assert_proved(model, trace(model, X, granularity="heads"))
    narrower = assert_proved(fewer, trace(fewer, X, granularity="width"))
    assert isinstance(narrower, Attention)
    assert narrower.heads < 8
    assert narrower.head_dim < 4
    assert narrower.q.out_features == narrower.heads * narrower.head_dim


@pytest.mark.parametrize("inside", [rotated, normed])
def test_whole_heads_leave_where_channels_of_a_head_cant(inside: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
    """Angles from numbers keep the width; under a norm, removing is not zeroing. Neither matters to a whole head."""
    model = built(Attention(inside))
    graph = trace(model, X)
    assert sizes(graph) == {"q": 8}
    assert not any(g.mixing for g in graph.groups)
    assert_proved(model, graph)


def test_the_users_choice_counts_where_the_other_would_be_better() -> None:
    graph = trace(built(Attention(normed)), X, granularity="width")
    assert blocks(graph)["v"] == 8
    assert any("mean over channels" in reason for g in graph.groups for reason in g.mixing)


def test_a_choice_for_some_modules() -> None:
    model = built(Two())
    graph = trace(model, X, granularity={"*": "heads", "second": "width"})
    assert sizes(graph) == {"first.q": 8, "first.out": 2, "between": 6, "second.q": 32, "second.v": 32}
    assert blocks(graph) == {"second.q": 8, "second.v": 8}
    assert_proved(model, graph)


def test_pieces_under_a_softmax_leave_whole() -> None:
    class SimNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dim = 4

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shape = x.shape
            return F.softmax(x.view(*shape[:-1], -1, self.dim), -1).view(*shape)

    model = built(nn.Sequential(nn.Linear(6, 32), SimNorm(), nn.Linear(32, 2)))
    graph = trace(model, X)
    assert (sizes(graph), [g.mixing for g in graph.groups]) == ({"0": 8}, [()])
    assert_proved(model, graph)


@pytest.mark.parametrize(
    ("granularity", "message"),
    [
        ("channels", "granularity 'channels' is none of 'auto', 'width', 'heads'"),
        ({"first": "half"}, "granularity 'half' is none of"),
        ({"third.*": "heads"}, r"no module matches 'third\.\*'; print\(model\) shows their names"),
    ],
)
def test_wrong_choices_are_named(granularity: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(built(Two()), X, granularity=granularity)


class TorchAttention(nn.Module):
    """Torch's own attention, ten heads of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(6, 40), nn.Linear(40, 3)
        self.attention = nn.MultiheadAttention(40, 10, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x).relu()
        out: torch.Tensor = self.out(self.attention(h, h, h, need_weights=False)[0])
        return out


def test_thirty_percent_of_a_multihead_attention() -> None:
    """Three of ten heads, and as much of the embedding; nothing mixes, so that all of it is proved by value."""
    model = TorchAttention().double().eval()
    unsettle(model)
    graph = trace(model, X)
    made = plan(graph, Magnitude()(graph, model), 0.3)
    small = apply(model, made)
    assert (small.attention.num_heads, small.attention.embed_dim, small.attention.head_dim) == (7, 28, 4)
    assert small.attention.in_proj_weight.shape == (3 * 28, 28)
    assert small.attention.out_proj.weight.shape == (28, 28)
    report = verify(model, small, made)
    assert set(report.exact) == {"embed", "attention", "attention.out_proj"}
    assert not report.mixing
    assert report.largest_difference < 1e-12


class Normed(nn.Module):
    """Queries and keys with a norm over each head, made on lines of their own, as most language models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_dim = 8, 4
        self.q, self.k, self.v = (nn.Linear(6, 32) for _ in range(3))
        self.q_norm, self.k_norm = nn.RMSNorm(4), nn.RMSNorm(4)
        self.out = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:-1], self.heads, self.head_dim)
        q = self.q_norm(self.q(x).view(shape)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(shape)).transpose(1, 2)
        v = self.v(x).view(shape).transpose(1, 2)
        out: torch.Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


def test_what_meets_leaves_alike() -> None:
    """Whole heads of normed queries and keys, and so of the values, in which nothing would stand against the finer."""
    model = built(Normed())
    graph = trace(model, X)
    assert sizes(graph) == {"q": 8}
    small = assert_proved(model, graph)
    assert small.get_parameter("v.weight").shape[0] % 4 == 0

"""Blocks, ties and their fallback: what equal counts become."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from secateur.graph import DependencyGraph, trace
from secateur.graph.labels import Facts, Labels

solving: Any = sys.modules["secateur.graph.solve"]


class Split(nn.Module):
    """One hidden layer of ``width`` whose channels go through ``use``."""

    def __init__(self, width: int, use: Callable[[torch.Tensor], torch.Tensor], outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(5, width)
        self.use = use
        self.second = nn.Linear(outputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.use(self.first(x).tanh()))


def graph_of(width: int, use: Callable[[torch.Tensor], torch.Tensor], outputs: int) -> DependencyGraph:
    return trace(Split(width, use, outputs), torch.randn(4, 5))


def shapes(graph: DependencyGraph) -> list[tuple[int, int, int]]:
    """(size, blocks, units) of every group."""
    return [(g.size, g.blocks, g.units) for g in graph.groups]


def test_a_fixed_number_of_rows_makes_blocks() -> None:
    graph = graph_of(24, lambda h: (h.view(len(h), 4, -1) * 2).flatten(1), 24)
    assert shapes(graph) == [(24, 4, 6)]
    assert graph.groups[0].block_of.tolist() == [i // 6 for i in range(24)]


def test_a_fixed_width_makes_whole_blocks_leave() -> None:
    graph = graph_of(24, lambda h: (h.view(len(h), -1, 6) * 2).flatten(1), 24)
    assert shapes(graph) == [(4, 1, 4)]
    assert graph.groups[0].members[0].indices.tolist() == [list(range(6 * i, 6 * i + 6)) for i in range(4)]


def test_both_given_as_numbers_pin() -> None:
    graph = graph_of(24, lambda h: (h.view(len(h), 4, 6) * 2).flatten(1), 24)
    assert graph.groups == ()
    reasons = {reason for u in graph.unprunable if u.parameter == "first.weight" for reason in u.reasons}
    assert any("view(4, 4, 6) has a size given as a number" in reason for reason in reasons)


def test_halves_that_meet_leave_together() -> None:
    graph = graph_of(24, lambda h: h.chunk(2, 1)[0] * h.chunk(2, 1)[1], 12)
    assert shapes(graph) == [(12, 1, 12)]
    assert graph.groups[0].members[0].indices[3].tolist() == [3, 15]


def test_halves_with_lives_of_their_own_are_tied() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b = nn.Linear(5, 24), nn.Linear(12, 3), nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            left, right = self.first(x).chunk(2, 1)
            return self.a(left), self.b(right)

    graph = trace(Halves(), torch.randn(4, 5))
    assert shapes(graph) == [(12, 1, 12), (12, 1, 12)]
    assert graph.groups[0].tie == graph.groups[1].tie
    assert [t.tolist() for t in graph.ties] == [[0, 1]]


@pytest.mark.parametrize(("sizes", "units"), [((4, 8), 4), ((6, 9), 3), ((5, 7), 1)])
def test_pieces_of_different_width_shrink_in_proportion(sizes: tuple[int, int], units: int) -> None:
    class Stack(nn.Module):
        """Torch's own split inside nn.RNN-like code: proportions, not numbers, must stay."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b = nn.Linear(5, sum(sizes)), nn.Linear(sizes[0], 3), nn.Linear(sizes[1], 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            left, right = torch.ops.aten.split_with_sizes(self.first(x), list(sizes), 1)
            return self.a(left), self.b(right)

    graph = trace(Stack(), torch.randn(4, 5))
    if units == 1:
        assert graph.groups == ()
        assert any("tied in number" in reason for u in graph.unprunable for reason in u.reasons)
    else:
        assert [g.units for g in graph.groups] == [units, units]
        assert [g.size for g in graph.groups] == list(sizes)


def test_a_width_divided_by_a_number_of_heads_ties_both() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.heads, self.out = nn.Linear(5, 24), nn.Linear(24, 24), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.embed(x)
            n, c = h.shape
            rows = self.heads(h).reshape(n, 4, c // 4)
            return self.out(h + (rows * 2).reshape(n, c).relu())

    # The residual sum makes the two widths one, in four blocks.
    assert shapes(trace(Attention(), torch.randn(4, 5))) == [(24, 4, 6)]


def test_rows_that_a_transposition_interleaves_lose_equal_indices() -> None:
    graph = graph_of(24, lambda h: h.view(len(h), 4, -1).transpose(1, 2).flatten(1), 24)
    assert shapes(graph) == [(6, 1, 6)]
    assert graph.groups[0].members[0].indices[1].tolist() == [1, 7, 13, 19]


def test_group_norm_keeps_its_groups_equal() -> None:
    graph = graph_of(24, nn.GroupNorm(3, 24), 24)
    assert shapes(graph) == [(24, 3, 8)]
    assert graph.groups[0].mixing


def test_an_equal_count_with_an_input_pins() -> None:
    class Width(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 24), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            return self.second((h.view(len(x), -1, 6) + x[:, None]).flatten(1))

    graph = trace(Width(), torch.randn(4, 6))
    assert shapes(graph) == [(4, 1, 4)]


def test_channels_that_no_parameter_axis_tells_apart_form_one_group() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    graph = trace(model, torch.randn(2, 3))
    assert [[str(m) for m in g.members] for g in graph.groups] == [
        ["0.weight[0]", "0.bias[0]", "2.weight[1]"],
        ["2.weight[0]", "2.bias[0]", "4.weight[1]"],
    ]


def test_rows_of_several_groups_are_blocks_of_each() -> None:
    class Attention(nn.Module):
        """Queries, keys and values of each head side by side."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(5, 36), nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).view(2, 4, 3, -1).chunk(3, -1)
            weights = torch.softmax(q.transpose(1, 2) @ k.permute(0, 2, 3, 1), -1)
            return self.out((weights @ v.transpose(1, 2)).transpose(1, 2).flatten(2))

    graph = trace(Attention(), torch.randn(2, 4, 5))
    assert shapes(graph) == [(12, 3, 4), (12, 3, 4)]
    assert [t.tolist() for t in graph.ties] == [[0, 1]]
    queries_and_keys, values = graph.groups
    assert queries_and_keys.members[0].indices[0].tolist() == [0, 4]
    assert values.members[0].indices[0].tolist() == [8]


class Chain(nn.Module):
    """Layers as wide as the one before, by the code; the first keeps its width."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(depth))
        self.first, self.last = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x).view(len(x), 12)
        for layer in self.layers:
            h = layer(h).cos().view(len(x), h.shape[-1])
        return self.last(h)


@pytest.mark.parametrize("depth", [3, 60])
def test_what_one_width_pins_is_followed_to_the_end_at_once(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a layer in every round: that would be quadratic in the number of layers."""
    rounds: list[int] = []
    connected = solving.connected

    def counted(facts: Facts) -> Labels:
        rounds.append(1)
        return connected(facts)

    monkeypatch.setattr(solving, "connected", counted)
    graph = trace(Chain(depth), torch.randn(4, 5))
    assert not graph.groups
    assert len(rounds) <= 3
    told = {item.parameter: item.reasons for item in graph.unprunable}
    assert all(any("equal in number" in reason for reason in told[f"layers.{i}.bias"]) for i in range(depth))

"""When much less leaves than was asked for, the user is told which parameter axes stay, and why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import SecateurWarning
from secateur.graph import DependencyGraph, trace
from secateur.graph.shortfall import shortfall_warning, unreachable


@torch.library.custom_op("secateur_tests::closed", mutates_args=())
def closed(x: torch.Tensor) -> torch.Tensor:
    """No rule is ever written for it."""
    return x.flip(-1)


class Block(nn.Module):
    """A wide layer whose channels can't be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.back = nn.Linear(8, 64), nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.back(closed(self.wide(x)))
        return out


X = torch.ones(2, 5)
DENSE = 5 * 8 + 8 + 3 * (8 * 64 + 64 + 64 * 8 + 8) + 8 * 10 + 10 + 10 * 2 + 2


def graph_of_blocks(protect: Sequence[str] = ()) -> DependencyGraph:
    """Three closed blocks in the middle; what goes in and what comes out of each can leave, and so can the last's."""
    layers = [nn.Linear(5, 8), *(Block() for _ in range(3)), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2)]
    return trace(nn.Sequential(*layers).eval(), X, protect=protect)


def test_what_stays_is_named_by_size_with_its_reasons() -> None:
    graph = graph_of_blocks(protect=["0", "*.back"])
    assert graph.cost().parameters == DENSE
    assert [(g.name, g.size) for g in graph.groups] == [("4", 10)]
    message = shortfall_warning(graph, 0.5, {"4": 5})
    assert message is not None
    leaves = 5 * 8 + 5 + 5 * 2
    assert f"only {leaves / DENSE:.1%} of the parameters leave where 50.0% was asked for" in message
    first, second, third, more = message.partition("What stays: ")[2].split("; ")
    assert first.startswith(
        "1.wide.weight[0] and 2 alike (1,536 parameters): no rule for secateur_tests.closed in 1 at"
    )
    # Of axes that hold equally much, those that stay for an input's or output's sake come last.
    assert second.startswith("1.back.weight[0] and 2 alike (1,536 parameters): protected: 1.back")
    assert third.startswith("1.back.weight[1] and 2 alike (1,536 parameters): meets an axis that carries no")
    assert more == "8 more. print(graph) lists all of it"
    assert "4.weight" not in message
    assert "6.weight" not in message


def test_a_fraction_that_rounds_to_nothing_is_no_shortfall() -> None:
    graph = graph_of_blocks(protect=["0", "*.back"])
    assert shortfall_warning(graph, 0.04, {"4": 10}) is None
    assert shortfall_warning(trace(nn.Linear(4, 4), torch.ones(1, 4)), 0.04, {}) is not None


def test_half_of_what_was_asked_for_is_enough() -> None:
    def graph(*widths: int) -> DependencyGraph:
        layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
        return trace(nn.Sequential(*layers), torch.ones(1, 4), protect=[str(i) for i in range(1, len(layers))])

    # Half of the first layer's channels leave: 32 of 128 parameters, then 32 of 160.
    assert shortfall_warning(graph(4, 8, 4, 16), 0.5, {"0": 4}) is None
    message = shortfall_warning(graph(4, 8, 4, 16, 2), 0.5, {"0": 4})
    assert message is not None
    assert "only 20.0%" in message


def test_nothing_was_asked_for() -> None:
    assert shortfall_warning(graph_of_blocks(), 0.0, {}) is None


def test_a_plan_with_one_coefficient_for_all_warns_where_it_was_asked_for() -> None:
    graph = graph_of_blocks(protect=["0", "*.back"])
    scores = {g.name: np.arange(float(g.size)) for g in graph.groups}
    with pytest.warns(SecateurWarning, match=r"only \d+\.\d% of the parameters leave where 60\.0% was asked") as caught:
        secateur.plan(graph, scores, 0.6)
    assert caught[0].filename == __file__
    assert "protected: 1.back" in str(caught[0].message)
    # What is named one by one is asked for as it is.
    secateur.plan(graph, scores, {"4": 0.6})
    secateur.plan(graph, scores, 0.0)


def test_a_sparsity_that_can_be_reached_has_no_reason() -> None:
    graph = graph_of_blocks()
    narrowest = graph.cost({g.name: 1 for g in graph.groups})
    largest = 1 - narrowest.parameters / DENSE
    assert unreachable(graph, largest - 1e-6, "params") is None
    stays = unreachable(graph, largest + 1e-6, "params")
    assert stays is not None
    assert "secateur_tests.closed" in stays
    macs = 1 - narrowest.macs / graph.cost().macs
    assert unreachable(graph, macs - 1e-6, "macs") is None
    assert unreachable(graph, macs + 1e-6, "macs") is not None


def test_every_reason_of_a_protected_model_is_that() -> None:
    graph = trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), torch.ones(1, 4), protect="0")
    stays = unreachable(graph, 0.1, "params")
    assert stays is not None
    assert "0.weight[0] (32 parameters): protected: 0" in stays

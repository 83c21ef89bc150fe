"""When much less leaves than was asked for, the user is told which parameter axes stay, and why."""

from __future__ import annotations

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


def graph_of_blocks() -> DependencyGraph:
    """Three closed blocks in the middle; what goes in and what comes out of each can leave, and so can the last's."""
    layers = [nn.Linear(5, 8), *(Block() for _ in range(3)), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2)]
    return trace(nn.Sequential(*layers).eval(), X)


def test_what_stays_is_named_by_size_with_its_reasons() -> None:
    graph = graph_of_blocks()
    assert graph.cost().parameters == DENSE
    kept = {"4": 5}
    left = DENSE - 5 * 8 - 5 - 5 * 2
    message = shortfall_warning(graph, 0.5, kept)
    assert message is not None
    assert f"only {1 - left / DENSE:.1%} of the parameters leave where 50.0% was asked for" in message
    # Half of each of these could leave at the most, through its other axis; asked for was as much.
    assert (
        "What stays: 1.wide.weight[0] and 2 alike (1,536 parameters): no rule for secateur_tests.closed in 1 at"
        in message
    )
    assert "1.back.weight[1] and 2 alike (1,536 parameters): meets an axis that carries no" in message
    assert message.endswith("print(graph) lists all of it")


def test_what_shrinks_enough_is_left_out() -> None:
    message = shortfall_warning(graph_of_blocks(), 0.5, {"4": 3})
    assert message is not None
    assert "4.weight" not in message
    assert "6.weight" not in message


def test_half_of_what_was_asked_for_is_enough() -> None:
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    graph = trace(model, torch.ones(1, 4))
    assert shortfall_warning(graph, 0.5, {"0": 6}) is None  # a quarter of the parameters leaves
    message = shortfall_warning(graph, 0.5, {"0": 7})
    assert message is not None
    assert "only 12.5%" in message


def test_nothing_was_asked_for() -> None:
    assert shortfall_warning(graph_of_blocks(), 0.0, {}) is None


def test_a_plan_with_one_coefficient_for_all_warns_where_it_was_asked_for() -> None:
    graph = graph_of_blocks()
    scores = {g.name: np.arange(float(g.size)) for g in graph.groups}
    with pytest.warns(SecateurWarning, match=r"only \d+\.\d% of the parameters leave where 60\.0% was asked") as caught:
        secateur.plan(graph, scores, 0.6)
    assert caught[0].filename == __file__
    assert "secateur_tests.closed" in str(caught[0].message)
    # What is named one by one is asked for as it is.
    secateur.plan(graph, scores, {"4": 0.6})
    secateur.plan(graph, scores, 0.0)


def test_channels_that_leave_only_together_are_a_reason() -> None:
    class Heads(nn.Module):
        """Two fixed halves: a channel of each leaves, or none."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.relu(self.first(x))
            out: torch.Tensor = self.last(torch.cat([h.chunk(2, -1)[1], h.chunk(2, -1)[0]], -1))
            return out

    graph = trace(Heads().eval(), torch.ones(1, 4))
    (group,) = graph.groups
    assert (group.size, group.units) == (8, 4)
    scores = {group.name: np.arange(8.0)}
    plan = secateur.plan(graph, scores, {group.name: 0.1})
    message = shortfall_warning(graph, 0.1, {name: len(kept) for name, kept in plan.groups.items()})
    assert message is not None
    assert (
        "first.weight[0] (32 parameters): 10.0% of the 8 channels of group 'first' rounds to none: they leave 2"
        in message
    )


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

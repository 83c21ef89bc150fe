"""Soft masks: hard ones are what a plan removes, masking is removal, and the gradient is that of the soft ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from secateur.allocation.soft_masks import SoftMasks
from secateur.allocation.substituted import Substituted
from secateur.graph import DependencyGraph, trace
from secateur.graph.entry_point import tensors_in
from secateur.plan import FloatArray, plan
from secateur.surgery import apply
from tests.handmade import GraphSketch, GroupSketch
from tests.models.case import Case
from tests.models.zoo import CASES
from tests.removal import largest_difference, mixing_groups, outputs

MASKED_WHERE_CONSUMED = [case for case in CASES if case.mask == "consumers"]


def drawn(graph: DependencyGraph, whole: set[str]) -> tuple[dict[str, FloatArray], dict[str, float], torch.Tensor]:
    """Scores, and a coefficient for every group and for every variable; 0 for groups that stay whole."""
    rng = np.random.default_rng(0)
    scores = {g.name: rng.random(g.size) for g in graph.groups}
    by_group: dict[str, float] = {}
    by_variable = []
    for tie in graph.ties:
        groups = [graph.groups[i] for i in tie]
        units = groups[0].units
        stays = any(g.name in whole for g in groups)
        coefficient = 0.0 if stays else 1 - int(rng.integers(max(1, units // 3), units + 1)) / units
        by_variable.append(coefficient)
        by_group.update({g.name: coefficient for g in groups})
    return scores, by_group, torch.tensor(by_variable, dtype=torch.float64)


@pytest.mark.parametrize("case", MASKED_WHERE_CONSUMED, ids=lambda case: case.name)
def test_masking_is_removal(case: Case) -> None:
    model, run = case.model(), case.entry_point()
    graph = trace(model, run=run)
    scores, coefficients, variables = drawn(graph, {g.name for g in mixing_groups(graph)} | case.keep)
    pruning = plan(graph, scores, coefficients)
    masks = SoftMasks.of(graph, scores)
    hard = masks.hard(variables)

    kept = {g.name: part.nonzero()[:, 0].tolist() for g, part in zip(graph.groups, split(graph, hard), strict=True)}
    assert kept == {name: channels.tolist() for name, channels in pruning.groups.items()}

    model_with = Substituted(model)
    with torch.no_grad():
        masked = list(tensors_in(model_with.run(run, masks.masked(model_with.detached(), hard))))
    assert largest_difference(masked, outputs(run, apply(model, pruning))) < 1e-9


def split(graph: DependencyGraph, masks: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return masks.split([g.size for g in graph.groups])


def one_group(size: int, **settings: Any) -> DependencyGraph:
    sketch = GroupSketch("a", size, {("c.a", 0): None, ("c.b", 1): None}, frozenset({("c.b", 1)}), **settings)
    return GraphSketch({"c.a": (size, 3), "c.b": (2, size)}, [sketch]).graph()


def test_soft_masks_are_sigmoids_of_the_rank() -> None:
    graph = one_group(4)
    masks = SoftMasks.of(graph, {"a": np.array([0.3, 0.1, 0.4, 0.2])})
    ranks = torch.tensor([5, 1, 7, 3], dtype=torch.float64) / 8
    assert torch.equal(masks.ranks, ranks)
    c = torch.tensor([0.4], dtype=torch.float64)
    assert torch.allclose(masks.soft(c, 0.3), torch.sigmoid((ranks - 0.4) / 0.3))
    # Ranks are a quarter apart: the temperature is at least an eighth.
    assert torch.allclose(masks.soft(c, 0.01), torch.sigmoid((ranks - 0.4) / 0.125))
    assert masks.hard(c).tolist() == [1, 0, 1, 0]


def test_blocks_are_ranked_each_on_its_own() -> None:
    masks = SoftMasks.of(one_group(6, blocks=2), {"a": np.array([0.1, 0.2, 0.3, 3.0, 1.0, 2.0])})
    assert torch.allclose(masks.ranks * 6, torch.tensor([1, 3, 5, 5, 1, 3], dtype=torch.float64))


def test_channels_that_leave_together_have_one_rank() -> None:
    masks = SoftMasks.of(one_group(6, units=3), {"a": np.arange(6.0)})
    assert torch.allclose(masks.ranks * 6, torch.tensor([1, 1, 3, 3, 5, 5], dtype=torch.float64))


def test_of_equal_scores_the_lower_index_stays() -> None:
    masks = SoftMasks.of(one_group(4), {"a": np.zeros(4)})
    assert masks.hard(torch.tensor([0.5], dtype=torch.float64)).tolist() == [1, 1, 0, 0]


def test_the_value_is_hard_and_the_gradient_soft() -> None:
    graph = one_group(8)
    masks = SoftMasks.of(graph, {"a": np.arange(8.0)})
    weights = torch.linspace(1, 2, 8, dtype=torch.float64)
    c = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    straight = masks.straight_through(c, 0.2)
    assert torch.equal(straight.detach(), masks.hard(c))
    (got,) = torch.autograd.grad(straight @ weights, c)
    step = 1e-6
    high, low = (masks.soft(c.detach() + s, 0.2) @ weights for s in (step, -step))
    assert got.item() == pytest.approx((high - low).item() / (2 * step), rel=1e-6)


def test_only_consumers_are_masked_where_there_are_any() -> None:
    graph = one_group(4)
    masks = SoftMasks.of(graph, {"a": np.arange(4.0)})
    tensors = {"c.a": torch.ones(4, 3), "c.b": torch.ones(2, 4)}
    masked = masks.masked(tensors, masks.hard(torch.tensor([0.5], dtype=torch.float64)))
    assert masked["c.a"] is tensors["c.a"]
    assert masked["c.b"].tolist() == [[0, 0, 1, 1]] * 2
    assert masked["c.b"].dtype == torch.float32

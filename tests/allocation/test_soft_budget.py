"""The smooth cost against the exact one, and the way back onto the budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.allocation.problem import Problem
from secateur.allocation.soft_budget import SoftBudget, logits_of
from secateur.allocation.soft_cost import SoftCost
from secateur.allocation.targets import Sparsity
from secateur.graph import DependencyGraph
from secateur.graph.cost import CostModel, products
from tests.handmade import linear_chain, random_scores
from tests.models.case import Case
from tests.models.zoo import CASES


@pytest.mark.parametrize("case", [c for c in CASES if c.groups], ids=lambda case: case.name)
def test_at_whole_counts_the_cost_is_exact(case: Case) -> None:
    graph = case.graph()
    rng = np.random.default_rng(0)
    for _ in range(3):
        kept = np.array([g.step * rng.integers(1, g.units + 1) for g in graph.groups], dtype=np.int64)
        for tie in graph.ties:
            kept[tie] = [graph.groups[i].step * kept[tie[0]] // graph.groups[tie[0]].step for i in tie]
        for of in ("params", "macs"):
            exact = graph.cost_model.by_component(kept, of=of)
            assert SoftCost(graph.cost_model, of)(torch.from_numpy(kept.astype(np.float64))).tolist() == exact.tolist()


def test_the_cost_has_the_right_slope() -> None:
    graph = chain()
    kept = torch.tensor([20.5, 30.25, 10.0], dtype=torch.float64, requires_grad=True)
    cost = SoftCost(graph.cost_model, "params")
    assert torch.autograd.gradcheck(lambda k: cost(k).sum(), kept)


def test_a_cost_of_nothing_is_nothing() -> None:
    empty = products([], [], 2)
    cost = SoftCost(CostModel(empty, empty, ("a", "b"), np.array([3, 4])), "macs")
    assert cost(torch.tensor([3.0, 4.0], dtype=torch.float64)).tolist() == [0, 0]


def chain() -> DependencyGraph:
    return linear_chain([48, 64, 40, 32, 56], per_component=2).graph()


def budget(target: Sparsity) -> tuple[Problem, SoftBudget]:
    graph = chain()
    problem = Problem(graph, random_scores(graph), target)
    return problem, SoftBudget(problem)


@pytest.mark.parametrize("of", ["params", "macs"])
def test_the_way_back_meets_every_goal(of: str) -> None:
    _, soft = budget(Sparsity(0.5, of=of, components={"c0": 0.6}))
    logits = soft.met(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    assert torch.allclose(soft.sparsities(logits), torch.tensor([0.6, 0.5], dtype=torch.float64), atol=1e-8)


def test_the_way_back_moves_all_logits_alike_under_one_goal() -> None:
    _, soft = budget(Sparsity(0.5))
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    moved = soft.met(start) - start
    assert torch.allclose(moved, moved.mean().expand(3))


def test_sparsities_are_those_of_whole_channels() -> None:
    problem, soft = budget(Sparsity(0.5, components={"c1": 0.4}, caps={"c0": 0.9}))
    levels = np.array([10, 20, 5])
    logits = logits_of(problem.coefficients(levels))
    exact = [float(problem.sparsity(levels, component)) for component in ("c1", None, "c0")]
    assert soft.sparsities(logits).tolist() == pytest.approx(exact, abs=1e-12)


def test_limits_hold_on_the_way() -> None:
    target = Sparsity(0.4, protected=["c1"], caps={"c0.0": 0.5}, minimum_width=8)
    problem, soft = budget(target)
    coefficients = torch.sigmoid(soft.met(torch.tensor([5.0, 5.0, 5.0], dtype=torch.float64)))
    highest = problem.coefficients(problem.last_levels)
    assert (coefficients.numpy() <= highest + 1e-3).all()
    assert coefficients[2] < 1e-3
    assert soft.free.tolist() == [bool(h > 0) for h in highest]


def test_no_cap_is_exceeded() -> None:
    _, soft = budget(Sparsity(0.4, caps={"c0": 0.3}))
    logits = soft.met(torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64))
    assert torch.allclose(soft.sparsities(logits), torch.tensor([0.4, 0.3], dtype=torch.float64), atol=1e-7)
    assert soft.binding(logits).tolist() == [True, True]
    inside = soft.met(torch.tensor([-7.0, -2.0, 2.0], dtype=torch.float64))
    assert soft.sparsities(inside)[1] < 0.29
    assert soft.binding(inside).tolist() == [True, False]


def test_what_serves_no_goal_stays() -> None:
    _, soft = budget(Sparsity(components={"c0": 0.4}))
    coefficients = torch.sigmoid(soft.met(torch.zeros(3, dtype=torch.float64)))
    assert coefficients[1:].max() < 1e-3
    assert coefficients[0] > 0.1


def test_where_limits_forbid_the_goal_the_nearest_is_given() -> None:
    problem, soft = budget(Sparsity(0.9, caps={"c0.0": 0.5, "c0.1": 0.5, "c1.0": 0.5}))
    coefficients = torch.sigmoid(soft.met(torch.zeros(3, dtype=torch.float64)))
    assert coefficients.numpy() == pytest.approx(problem.coefficients(problem.last_levels), abs=1e-3)

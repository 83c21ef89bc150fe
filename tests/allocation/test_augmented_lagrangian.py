"""Constrained descent against another solver, on losses whose optimum that one finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize
from torch import Tensor

from secateur.allocation.augmented_lagrangian import CoefficientDescent
from secateur.allocation.problem import Problem
from secateur.allocation.soft_budget import SoftBudget, logits_of
from secateur.allocation.targets import Sparsity
from secateur.plan import FloatArray
from tests.handmade import linear_chain, random_scores

WORTH = torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64)


def budget(target: Sparsity) -> SoftBudget:
    graph = linear_chain([48, 64, 40, 32, 56], per_component=2).graph()
    return SoftBudget(Problem(graph, random_scores(graph), target))


def loss(coefficients: FloatArray) -> float:
    return float(WORTH.numpy() @ coefficients**2)


def gradient(coefficients: Tensor) -> Tensor:
    return 2 * WORTH * coefficients


def optimum(soft: SoftBudget) -> FloatArray:
    """By sequential quadratic programming in the coefficients themselves."""
    goals, aims = slice(soft.goals), soft.aims.numpy()
    caps = slice(soft.goals, None)
    constraints: Any = [
        NonlinearConstraint(lambda c: soft.sparsities(logits_of(c))[goals].numpy(), aims[goals], aims[goals]),
        LinearConstraint(np.eye(3), 0.001, 0.97),
        NonlinearConstraint(lambda c: soft.sparsities(logits_of(c))[caps].numpy(), -1, aims[caps]),
    ][: 3 if len(aims) > soft.goals else 2]
    start: FloatArray = np.full(3, 0.4)
    found = minimize(loss, start, method="SLSQP", constraints=constraints)
    assert found.success
    return np.asarray(found.x)


def descended(soft: SoftBudget, steps: int, rate: float, scale: float = 1.0) -> Tensor:
    descent = CoefficientDescent(soft, torch.zeros(3, dtype=torch.float64), rate)
    for _ in range(steps):
        descent.step(scale * gradient(descent.coefficients))
    return descent.coefficients


@pytest.mark.parametrize(
    "target",
    [
        Sparsity(0.5),
        Sparsity(0.6, of="macs"),
        Sparsity(0.5, components={"c0": 0.45}),
        Sparsity(0.5, caps={"c1": 0.45}),
        Sparsity(0.4, caps={"c1": 0.9}),
    ],
    ids=str,
)
def test_it_finds_the_constrained_optimum(target: Sparsity) -> None:
    soft = budget(target)
    assert descended(soft, 100, 0.1).numpy() == pytest.approx(optimum(soft), abs=0.005)


def test_every_step_ends_on_the_budget() -> None:
    soft = budget(Sparsity(0.5))
    descent = CoefficientDescent(soft, torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64), 0.5)
    for _ in range(20):
        descent.step(torch.randn(3, dtype=torch.float64))
        assert soft.sparsities(logits_of(descent.coefficients.numpy())).item() == pytest.approx(0.5, abs=1e-8)


def test_the_unit_of_the_loss_does_not_matter() -> None:
    soft = budget(Sparsity(0.5))
    steps = [descended(soft, 30, 0.2, scale) for scale in (1.0, 1e-6, 1e6)]
    assert torch.allclose(steps[0], steps[1], atol=1e-6)
    assert torch.allclose(steps[0], steps[2], atol=1e-6)


def test_a_loss_without_slope_moves_nothing() -> None:
    soft = budget(Sparsity(0.5))
    descent = CoefficientDescent(soft, torch.zeros(3, dtype=torch.float64), 0.2)
    before = descent.coefficients
    descent.step(torch.zeros(3))
    assert torch.allclose(descent.coefficients, before, atol=1e-6)

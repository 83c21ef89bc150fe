"""The smallest model that satisfies every constraint, against brute force."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.allocation import (
    Constraint,
    GradientDescent,
    GridSearch,
    Sensitivity,
    Smallest,
    Sparsity,
    Strategy,
    allocate,
)
from secateur.errors import ConstraintError, TargetError
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray

EVERY_WIDTH = GridSearch(coefficients=[i / 12 for i in range(12)])


class TwoWidths(nn.Module):
    """Two hidden layers whose channels are worth 1 and 5 each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
        self.second = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.first(x)
        return first + self.second(x)


def worth(model: nn.Module) -> float:
    weights = dict(model.named_parameters())
    return float(len(weights["first.0.weight"]) + 5 * len(weights["second.0.weight"]))


@pytest.fixture
def model() -> TwoWidths:
    torch.manual_seed(0)
    return TwoWidths()


@pytest.fixture
def graph(model: TwoWidths) -> DependencyGraph:
    return secateur.trace(model, torch.zeros(1, 4))


@pytest.fixture
def scores(model: TwoWidths, graph: DependencyGraph) -> dict[str, FloatArray]:
    return secateur.importance.Magnitude()(graph, model)


def largest_sparsity(graph: DependencyGraph, least: float) -> float:
    """By brute force over all widths."""
    names = [g.name for g in graph.groups]
    pairs = product(range(1, 13), range(1, 13))
    fitting = [p for p in pairs if p[0] + 5 * p[1] >= least]
    return max(1 - graph.cost(dict(zip(names, p, strict=True))).parameters / graph.cost().parameters for p in fitting)


@pytest.mark.parametrize("strategy", [EVERY_WIDTH, Sensitivity()], ids=["grid", "sensitivity"])
@pytest.mark.parametrize("least", [20.0, 42.0, 60.0, 71.0])
def test_a_search_finds_the_smallest(
    model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray], least: float, strategy: Strategy
) -> None:
    target = Smallest(resolution=0.04)
    result = allocate(
        graph, scores, target, strategy=strategy, model=model, constraints=[Constraint(worth, at_least=least)]
    )
    assert result.best is not None
    assert result.best.constraints["worth"] >= least
    assert largest_sparsity(graph, least) - 2 * target.resolution <= result.sparsity <= largest_sparsity(graph, least)
    assert result.target is target
    assert result.best in result.history


def test_uniform_finds_the_smallest_of_its_own(
    model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]
) -> None:
    result = allocate(graph, scores, Smallest(), model=model, constraints=[Constraint(worth, at_least=30)])
    assert set(result.kept.values()) == {5}
    assert len(result.history) <= 5  # log2 of 12 widths, and the ends


def test_where_nothing_may_leave_the_model_stays_whole(
    model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]
) -> None:
    result = allocate(graph, scores, Smallest(), model=model, constraints=[Constraint(worth, at_least=72)])
    assert set(result.kept.values()) == {12}
    assert result.sparsity == 0


def test_several_constraints_all_hold(model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]) -> None:
    def macs(model: nn.Module) -> float:
        return float(sum(p.numel() for p in model.parameters()))

    bounds = [Constraint(worth, at_least=20), Constraint(macs, at_least=70, name="size")]
    result = allocate(graph, scores, Smallest(), model=model, constraints=bounds)
    small = secateur.apply(model, secateur.plan(graph, scores, result.coefficients))
    assert macs(small) >= 70
    assert worth(small) >= 20


def test_what_nothing_satisfies_names_the_nearest_miss(
    model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]
) -> None:
    with pytest.raises(
        ConstraintError, match=r"nearest miss.* worth = 72 where 100 <= worth is asked; loosen the bound"
    ):
        allocate(graph, scores, Smallest(), model=model, constraints=[Constraint(worth, at_least=100)])


def test_without_constraints_nothing_bounds_it(
    model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]
) -> None:
    with pytest.raises(TargetError, match="bounded by constraints alone"):
        allocate(graph, scores, Smallest(), model=model)


def test_latency_is_measured(model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]) -> None:
    with pytest.raises(TargetError, match="latency is measured"):
        allocate(graph, scores, Sparsity(0.3, of="latency"))
    bound = Constraint(worth, at_least=30)
    result = allocate(graph, scores, Smallest(of="latency"), model=model, constraints=[bound])
    assert set(result.kept.values()) == {5}
    assert result.sparsity < 1


def test_limits_hold(model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]) -> None:
    target = Smallest(protected=["second"], minimum_width=3)
    result = allocate(graph, scores, target, model=model, constraints=[Constraint(worth, at_least=1)])
    assert result.kept == {"first.0": 3, "second.0": 12}


def test_weights_that_are_trained_along_are_the_results(model: TwoWidths, graph: DependencyGraph) -> None:
    inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))

    def loss(candidate: nn.Module, batch: Tensor) -> Tensor:
        return (candidate(batch) - 3.0).square().mean()

    bound = Constraint(lambda candidate: loss(candidate, inputs), at_most=0.5, name="loss")
    strategy = GradientDescent(loss, [inputs] * 60, steps=5, weights=True, weight_learning_rate=0.05)
    target = Smallest(resolution=0.1)
    result = secateur.prune(model, inputs[:1], target=target, strategy=strategy, constraints=[bound])
    assert float(loss(model, inputs).detach()) > 0.5  # so that only training satisfies it
    assert result.allocation.weights is not None
    reached = float(loss(result.model, inputs).detach())
    assert reached <= 0.5
    assert result.allocation.best is not None
    assert result.allocation.best.constraints["loss"] == pytest.approx(reached, rel=1e-4)
    assert result.allocation.best in result.allocation.history


def test_no_more_than_the_largest_is_removed(
    model: TwoWidths, graph: DependencyGraph, scores: dict[str, FloatArray]
) -> None:
    bound = Constraint(worth, at_least=1)
    result = allocate(graph, scores, Smallest(largest=0.42, resolution=0.1), model=model, constraints=[bound])
    assert 0.3 < result.sparsity <= 0.42
    # The grid's only candidate removes much more; it is looked at with the widest tolerance there is, and isn't taken.
    grid, target = GridSearch(coefficients=[11 / 12]), Smallest(largest=0.2, resolution=0.25)
    result = allocate(graph, scores, target, strategy=grid, model=model, constraints=[bound])
    assert result.sparsity == 0

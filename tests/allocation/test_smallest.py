"""The smallest model that satisfies every constraint, against brute force."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.allocation import (
    BlackBox,
    Constraint,
    Evaluation,
    GradientDescent,
    GridSearch,
    Problem,
    Sensitivity,
    Smallest,
    Sparsity,
    Strategy,
    Uniform,
    allocate,
)
from secateur.allocation.smallest import smallest
from secateur.errors import ConstraintError, TargetError
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray
from tests.allocation.formula import Formulas
from tests.handmade import random_scores

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


# --- candidates that are measured with less than the finished model has -----------------------------------------------


def by_widths(kept: Mapping[str, float]) -> float:
    """What :func:`worth` is, of the fractions that are kept."""
    return 12 * kept["first.0"] + 60 * kept["second.0"]


def two_fidelities(graph: DependencyGraph, offset: float, least: float) -> tuple[Problem, Formulas, Formulas]:
    """A problem whose candidates measure ``offset`` more than they are worth, and what measures their worth."""
    constraints = [Constraint(worth, at_least=least)]
    quick, full = (
        Formulas(None, constraints, {"worth": lambda kept, extra=extra: by_widths(kept) + extra})  # type: ignore[misc]
        for extra in (offset, 0.0)
    )
    return Problem(graph, random_scores(graph), Sparsity(0.5), quick), quick, full


@pytest.mark.parametrize(("offset", "alone"), [(-7.0, 9), (0.0, 7), (7.0, 6)])
def test_what_is_measured_in_full_decides(graph: DependencyGraph, offset: float, alone: int) -> None:
    problem, quick, full = two_fidelities(graph, offset, 42)
    # With both layers of k channels, 6 k is at least 42 from 7 on; with the offset, from another k on.
    assert set(smallest(problem, Smallest(), Uniform()).kept.values()) == {alone}
    quick.batches.clear()
    result = smallest(problem, Smallest(), Uniform(), full)
    assert set(result.kept.values()) == {7}
    assert result.best is not None
    assert result.best.constraints["worth"] == 42
    assert result.best.full
    in_full = [e for batch in full.batches for e in batch]
    assert [e for e in result.history if e.full] == in_full
    assert [e for e in result.history if not e.full] == [e for batch in quick.batches for e in batch]
    assert [e.kept for e in result.history if not e.full] == [e.kept for e in in_full]
    assert full.expected == len(in_full) <= 5  # log2 of 12 widths, and the ends
    assert len({tuple(e.kept.values()) for e in in_full}) == len(in_full)


@pytest.mark.parametrize("strategy", [EVERY_WIDTH, Sensitivity(), BlackBox()], ids=["grid", "sensitivity", "black-box"])
@pytest.mark.parametrize("offset", [-7.0, 7.0])
def test_a_search_ranks_and_one_full_measurement_of_its_best_decides(
    graph: DependencyGraph, offset: float, strategy: Strategy
) -> None:
    problem, _, full = two_fidelities(graph, offset, 42)
    target = Smallest(resolution=0.04)
    result = smallest(problem, target, strategy, full)
    assert result.best is not None
    assert result.best.full
    assert result.best.constraints["worth"] >= 42
    if offset < 0:  # whole searches, whose best candidate is the truly best, as the offset is the same for all
        assert result.sparsity >= largest_sparsity(graph, 42) - 2 * target.resolution
    assert result.sparsity <= largest_sparsity(graph, 42)
    searches = [len(batch) for batch in full.batches]
    assert searches == [1] * len(searches)
    assert len(searches) <= 6
    seen: list[Evaluation] = []
    for evaluation in result.history:
        if evaluation.full:
            (asked,) = [e for e in seen if e.kept == evaluation.kept]
            assert asked.constraints["worth"] == evaluation.constraints["worth"] + offset
            if not asked.satisfied:
                best = max(e.constraints["worth"] for e in seen if e.on_target)
                assert asked.constraints["worth"] >= best
            seen.clear()
        else:
            seen.append(evaluation)


def test_where_nothing_satisfies_in_full_the_dense_model_is_measured_in_full(graph: DependencyGraph) -> None:
    problem, _, full = two_fidelities(graph, 50.0, 72)
    result = smallest(problem, Smallest(), Uniform(), full)
    assert result.sparsity == 0
    assert result.best is not None
    assert result.best.full
    problem, _, full = two_fidelities(graph, 50.0, 80)
    with pytest.raises(ConstraintError, match=r"nearest miss, at sparsity 0.0000, has worth = 72 where 80 <= worth"):
        smallest(problem, Smallest(), Uniform(), full)


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

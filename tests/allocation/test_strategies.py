"""What every allocation strategy must do, whatever it searches by. A new strategy joins the list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur
from secateur.allocation import (
    AllocationResult,
    BlackBox,
    GradientDescent,
    GridSearch,
    NormBased,
    Problem,
    Random,
    Search,
    Sensitivity,
    Sparsity,
    Strategy,
    Target,
    Uniform,
    allocate,
)
from secateur.errors import InfeasibleError, SearchError
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray, plan


def distance(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """How far a model's outputs are from those in the batch."""
    inputs, outputs = batch
    return F.mse_loss(model(inputs), outputs)


class Case:
    """A model, its graph, and how far candidates are from the model itself."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model = model
        self.graph: DependencyGraph = secateur.trace(model, inputs[:1])
        self.scores: dict[str, FloatArray] = secateur.importance.Magnitude()(self.graph, model)
        with torch.no_grad():
            self.batch = (inputs, model(inputs))
        self.evaluated: Counter[tuple[int, ...]] = Counter()
        self.fails_after: int | None = None

    def objective(self, model: nn.Module) -> float:
        """Higher is better, 0 for the dense model; counts what it is asked for."""
        if self.fails_after is not None and self.evaluated.total() >= self.fails_after:
            raise KeyboardInterrupt
        self.evaluated[tuple(p.numel() for p in model.parameters())] += 1
        with torch.no_grad():
            return -distance(model, self.batch).item()

    def solve(self, strategy: Strategy, target: Target, **settings: Any) -> AllocationResult:
        return allocate(
            self.graph,
            self.scores,
            target,
            strategy=strategy,
            model=self.model,
            objective=self.objective,
            **settings,
        )


class Chain(nn.Module):
    """Linear layers in a row, two to a component."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(*pair) for pair in pairwise(widths)]
        for i in range(0, len(layers), 2):
            self.add_module(f"c{i // 2}", nn.Sequential(*layers[i : i + 2]))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


class Branches(nn.Module):
    """Two branches of equal cost, one of which does next to nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.useful = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))
        self.useless = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))
        with torch.no_grad():
            for parameter in self.useless.parameters():
                parameter.mul_(0.05)

    def forward(self, x: Tensor) -> Tensor:
        useful: Tensor = self.useful(x)
        return useful + self.useless(x)


@pytest.fixture
def chain() -> Case:
    return Case(Chain([48, 64, 40, 32, 56, 24]), torch.randn(64, 48, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def branches() -> Case:
    return Case(Branches(16), torch.randn(64, 8, generator=torch.Generator().manual_seed(0)))


SIXTEENTHS = [i / 16 for i in range(16)]

Make = Callable[[Case], Strategy]
STRATEGIES: dict[str, Make] = {
    "Uniform": lambda _: Uniform(),
    "Random": lambda _: Random(draws=12),
    "NormBased": lambda _: NormBased(),
    "GridSearch": lambda case: (
        GridSearch(levels=9) if len(case.graph.groups) > 2 else GridSearch(coefficients=SIXTEENTHS)
    ),
    "GradientDescent": lambda case: GradientDescent(distance, [case.batch]),
    "BlackBox": lambda _: BlackBox(evaluations=25),
    "BlackBox, cmaes": lambda _: BlackBox(evaluations=25, sampler="cmaes"),
    "Sensitivity": lambda _: Sensitivity(evaluations=30),
}
SEARCHES = [name for name in STRATEGIES if name not in ("Uniform", "NormBased")]

TARGETS = [
    Sparsity(0.3),
    Sparsity(0.6, of="macs"),
    Sparsity(0.5, tolerance=0.03, round_to=4, minimum_width=12),
    Sparsity(components={"c0": 0.4}),
    Sparsity(0.45, components={"c0": 0.4, "c1": 0.5}, tolerance=0.03),
    Sparsity(0.4, caps={"c1": 0.4, "c0.0": 0.35}),
    Sparsity(0.4, protected=["c2"], interfaces={"c0.1": 0.25}),
]


@pytest.fixture(params=STRATEGIES)
def make(request: pytest.FixtureRequest) -> Make:
    return STRATEGIES[request.param]


@pytest.fixture(params=SEARCHES)
def make_search(request: pytest.FixtureRequest) -> Make:
    return STRATEGIES[request.param]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_target_is_met_as_surgery_counts(make: Make, target: Sparsity, chain: Case) -> None:
    result = chain.solve(make(chain), target)
    graph = chain.graph
    kept = {name: len(c) for name, c in plan(graph, chain.scores, result.coefficients).groups.items()}
    assert kept == result.kept
    assert result.coefficients == {g.name: 1 - kept[g.name] / g.size for g in graph.groups}
    small, dense = graph.cost(kept), graph.cost()
    name = "parameters" if target.of == "params" else "macs"
    assert result.sparsity == 1 - getattr(small, name) / getattr(dense, name)
    for component, cost in small.by_component.items():
        achieved = 1 - getattr(cost, name) / getattr(dense.by_component[component], name)
        assert result.component_sparsities[component] == pytest.approx(achieved, abs=1e-12)
        assert abs(achieved - target.components.get(component, achieved)) <= target.tolerance
        assert achieved <= target.caps.get(component, 1)
    if target.rho is not None:
        assert abs(result.sparsity - target.rho) <= target.tolerance
    assert all(kept[g.name] == g.size or kept[g.name] % target.round_to == 0 for g in graph.groups)
    assert all(kept[g.name] >= target.minimum_width for g in graph.groups)
    assert all(result.coefficients[g.name] <= target.caps.get(g.name, 1) for g in graph.groups)
    whole = [g for g in graph.groups if set(g.components) & set(target.protected)]
    assert all(kept[g.name] == g.size for g in whole)
    for group, coefficient in target.interfaces.items():
        assert result.coefficients[group] == pytest.approx(coefficient, abs=0.5 / graph.group(group).size)
    assert result.target == target


def test_the_history_is_complete_and_holds_the_result(make: Make, chain: Case) -> None:
    result = chain.solve(make(chain), Sparsity(0.5))
    assert result.best is not None
    assert result.best in result.history
    assert result.best.coefficients == result.coefficients
    assert result.best.sparsity == result.sparsity
    assert result.best.objective == max(e.objective for e in result.history if meets(chain, e.kept, 0.5))  # type: ignore[type-var]
    assert {tuple(e.kept.items()) for e in result.history}.__len__() == chain.evaluated.total()


def meets(case: Case, kept: Any, rho: float) -> bool:
    return abs(1 - case.graph.cost(kept).parameters / case.graph.cost().parameters - rho) <= 0.01


def test_nothing_is_evaluated_twice(make: Make, chain: Case) -> None:
    chain.solve(make(chain), Sparsity(0.5))
    assert chain.evaluated.total() > 0
    assert max(chain.evaluated.values()) == 1


@pytest.mark.parametrize("strategy", [Random, BlackBox, Sensitivity])
@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, None])
def test_a_seed_that_no_generator_takes(strategy: Any, seed: Any) -> None:
    with pytest.raises(SearchError, match=r"seed must be a whole number from 0 to 2\*\*32 - 1; it is"):
        strategy(seed=seed)


def test_the_same_seed_gives_the_same_search(make: Make, chain: Case) -> None:
    first, second = (chain.solve(make(chain), Sparsity(0.5)) for _ in range(2))
    assert [(e.kept, e.objective) for e in first.history] == [(e.kept, e.objective) for e in second.history]
    assert first.coefficients == second.coefficients


def test_a_search_that_was_cut_off_goes_on(make_search: Make, chain: Case, tmp_path: Path) -> None:
    whole = chain.solve(make_search(chain), Sparsity(0.5))
    needed = chain.evaluated.total()
    chain.evaluated.clear()
    search = Search(storage=tmp_path / "search.sqlite")
    chain.fails_after = needed // 2
    with pytest.raises(KeyboardInterrupt):
        chain.solve(make_search(chain), Sparsity(0.5), search=search)
    assert chain.evaluated.total() == needed // 2
    chain.fails_after = None
    resumed = chain.solve(make_search(chain), Sparsity(0.5), search=search)
    assert chain.evaluated.total() == needed
    assert max(chain.evaluated.values()) == 1
    assert resumed.coefficients == whole.coefficients
    assert [e.objective for e in resumed.history] == [e.objective for e in whole.history]


def test_better_than_uniform_where_the_optimum_is_known(make_search: Make, branches: Case) -> None:
    target = Sparsity(0.4, tolerance=0.03)
    problem = Problem(branches.graph, branches.scores, target)
    every = np.array(list(product(*(range(n + 1) for n in problem.last_levels))))
    feasible = every[problem.is_met_by(every)]
    objectives = [value_of(branches, problem.kept(levels)) for levels in feasible]
    uniform = branches.solve(Uniform(), target)
    assert uniform.best is not None
    assert uniform.best.objective is not None
    branches.evaluated.clear()
    found = branches.solve(make_search(branches), target)
    assert found.best is not None
    assert found.best.objective is not None
    assert found.best.objective > uniform.best.objective
    # At least nine tenths of the way from the uniform model's objective to the best there is.
    assert found.best.objective >= uniform.best.objective + 0.9 * (max(objectives) - uniform.best.objective)


def value_of(case: Case, kept: Any) -> float:
    counts = dict(zip((g.name for g in case.graph.groups), kept.tolist(), strict=True))
    coefficients = {name: 1 - n / case.graph.group(name).size for name, n in counts.items()}
    return case.objective(secateur.apply(case.model, plan(case.graph, case.scores, coefficients)))


class Shared(nn.Module):
    """Groups of different sizes that must keep equal fractions, beside one that is free."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.Linear(6, 24)
        self.out = nn.Linear(8, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.into(x).chunk(3, dim=1)
        return self.last(torch.relu(self.out(first * second + third)))


def test_blocks_lose_equal_numbers_of_channels(make: Make) -> None:
    case = Case(Shared(), torch.randn(32, 6, generator=torch.Generator().manual_seed(0)))
    result = case.solve(make(case), Sparsity(0.4, tolerance=0.08))
    small = secateur.apply(case.model, plan(case.graph, case.scores, result.coefficients))
    assert dict(small.named_parameters())["into.weight"].shape[0] % 3 == 0
    small(case.batch[0])


def test_what_cannot_be_met_is_an_error(make: Make, branches: Case) -> None:
    with pytest.raises(InfeasibleError, match=r"0\.[0-9]+"):
        branches.solve(make(branches), Sparsity(0.97))

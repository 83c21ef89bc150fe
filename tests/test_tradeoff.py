"""The trade-off of the objective against the sparsity, on a model whose best pruning is known."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.allocation import (
    AllocationResult,
    Constraint,
    GridSearch,
    Minimize,
    NormBased,
    Problem,
    Random,
    Search,
    Sensitivity,
    Strategy,
    Uniform,
)
from secateur.errors import ObjectiveError, SearchError, TargetError
from secateur.metrics import DenseError, Estimate, Latency, Psnr, Repeats
from secateur.tradeoff import tradeoff


class Branches(nn.Module):
    """Two branches of equal cost, one of which does next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.useful, self.useless = (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)) for _ in range(2))
        with torch.no_grad():
            for parameter in self.useless.parameters():
                parameter.mul_(0.05)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.useful(x) + self.useless(x)
        return out


INPUTS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
MODEL = Branches()


def similarity(model: nn.Module) -> float:
    """One less the error against the dense model, in units of its outputs' variance."""
    return 1 - DenseError(MODEL, [INPUTS])(model)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_every_strategy_at_every_sparsity() -> None:
    before = copy.deepcopy(MODEL.state_dict())
    strategies: list[Strategy] = [
        Uniform(),
        Random(draws=5),
        NormBased(),
        GridSearch(levels=5),
        Sensitivity(evaluations=15),
    ]
    found = tradeoff(
        MODEL, INPUTS[:1], objective=similarity, sparsities=(0.2, 0.4), strategies=strategies, tolerance=0.05
    )
    assert found.strategies == ("Uniform", "Random", "NormBased", "GridSearch", "Sensitivity")
    assert [(p.strategy, p.target) for p in found.points] == [(s, t) for s in found.strategies for t in (0.2, 0.4)]
    assert (found.objective, found.of, found.dense) == ("similarity", "params", 1)
    for point in found.points:
        assert point.sparsity is not None
        assert abs(point.sparsity - point.target) <= 0.05
        small = 2 * (8 + 1 + 4) * 16 + 8 - sum((8 + 1 + 4) * (16 - n) for n in point.kept.values())
        assert point.sparsity == pytest.approx(1 - small / parameters(MODEL))
        assert point.coefficients == {name: 1 - n / 16 for name, n in point.kept.items()}
        assert point.interval is None
        assert point.seconds > 0
    by = {(p.strategy, p.target): p for p in found.points}
    for target in (0.2, 0.4):
        uniform, best = (by[name, target].objective for name in ("Uniform", "Sensitivity"))
        assert uniform is not None
        assert best is not None
        assert best > 0.999 > uniform
        assert by["Sensitivity", target].kept["useful.0"] == 16
        assert 10 < by["Sensitivity", target].evaluations <= 15
        assert by["Uniform", target].evaluations == 1
    assert all(torch.equal(before[name], value) for name, value in MODEL.state_dict().items())


def test_calibration_repairs_every_model() -> None:
    settings: dict[str, Any] = {"objective": similarity, "sparsities": [0.5], "strategies": {"all alike": Uniform()}}
    plain = tradeoff(MODEL, INPUTS[:1], **settings).points[0].objective
    repaired = tradeoff(MODEL, INPUTS[:1], calibration=iter([INPUTS]), **settings).points[0].objective
    assert plain is not None
    assert repaired is not None
    assert repaired > 0.5 * (1 + plain)


def test_another_metric_may_be_reported() -> None:
    found = tradeoff(
        MODEL,
        INPUTS[:1],
        objective=Minimize(DenseError(MODEL, [INPUTS])),
        reported=lambda model: parameters(model),
        sparsities=[0.4],
        strategies=[Sensitivity(evaluations=10)],
    )
    (point,) = found.points
    assert found.dense == 424
    assert point.objective == pytest.approx(424 * (1 - (point.sparsity or 0)))
    assert point.kept["useful.0"] == 16


def test_a_strategys_own_weights_are_those_of_the_result() -> None:
    class Doubled:
        def __call__(self, problem: Problem) -> AllocationResult:
            doubled = {name: 2 * value for name, value in problem.model.state_dict().items()}
            plain = Uniform()(problem)
            return AllocationResult(**{**vars(plain), "weights": doubled})

    found = tradeoff(
        MODEL,
        INPUTS[:1],
        objective=lambda model: sum(p.detach().abs().sum() for p in model.parameters()),
        sparsities=[0.4],
        strategies={"as they are": Uniform(), "doubled": Doubled()},
    )
    first, second = (point.objective for point in found.points)
    assert first is not None
    assert second == pytest.approx(2 * first)


def test_measurements_of_one_sparsity_serve_the_others() -> None:
    asked: list[int] = []

    def counted(model: nn.Module) -> float:
        asked.append(parameters(model))
        return similarity(model)

    found = tradeoff(
        MODEL,
        INPUTS[:1],
        objective=counted,
        sparsities=(0.2, 0.4),
        strategies=[Sensitivity(evaluations=9)],
        tolerance=0.05,
    )
    looked_at = sum(p.evaluations for p in found.points)
    curves = 1 + 2 * 3
    assert looked_at == 18
    assert len(asked) == 1 + looked_at - curves + len(found.points)  # dense, and each finished model


def test_latency_is_measured() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 64))
    found = tradeoff(
        model,
        torch.randn(64, 64),
        objective=lambda model: 0.0,
        sparsities=[0.5],
        strategies=[Uniform()],
        of="latency",
        tolerance=0.25,
    )
    (point,) = found.points
    assert found.of == "latency"
    assert point.sparsity is not None
    assert abs(point.sparsity - 0.5) <= 0.25


def test_intervals_of_noisy_objectives() -> None:
    noisy = Repeats(lambda model, seed: parameters(model) + seed, seeds=3)
    found = tradeoff(MODEL, INPUTS[:1], objective=noisy, sparsities=[0.4], strategies=[Uniform()])
    (point,) = found.points
    assert found.dense == 425
    assert found.dense_interval is not None
    assert np.mean(found.dense_interval) == pytest.approx(425)
    assert point.interval is not None
    assert np.mean(point.interval) == pytest.approx(point.objective)
    assert Estimate(point.objective or 0, *point.interval) == noisy(FixedSize(round(424 * (1 - (point.sparsity or 0)))))


class FixedSize(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))


# --- what fails -------------------------------------------------------------------------------------------------------


def test_what_one_strategy_cannot_meet_is_said_and_the_others_go_on() -> None:
    found = tradeoff(
        MODEL,
        INPUTS[:1],
        objective=similarity,
        sparsities=(0.4, 0.97),
        constraints=[Constraint(similarity, at_least=0.99)],
        strategies=[Uniform(), Sensitivity(evaluations=12)],
        tolerance=0.05,
    )
    uniform, too_small, best, _ = found.points
    assert "no candidate satisfies every constraint; the nearest miss" in uniform.failure
    assert "can't be met: the largest possible is" in too_small.failure
    assert (uniform.sparsity, uniform.objective) == (None, None)
    assert best.failure == ""
    assert best.constraints["similarity"] >= 0.99
    assert "Uniform at 97.0%: a sparsity of 0.97" in str(found)
    assert found.figure().startswith(b"\x89PNG")


def test_wrong_input() -> None:
    def points(strategies: Any, **settings: Any) -> Any:
        arguments: dict[str, Any] = {"objective": similarity, **settings}
        return tradeoff(MODEL, INPUTS[:1], strategies=strategies, **arguments).points

    with pytest.raises(TargetError, match="2 strategies are a Random; give strategies="):
        points([Random(), Random(seed=1)])
    with pytest.raises(
        TargetError, match=r"the target sparsity must lie in \(0, 1\), the fraction to remove; it is 20"
    ):
        points([Uniform()], sparsities=[20])
    given: list[Any] = [[], {}, Uniform(), None]
    for none in given:
        with pytest.raises(SearchError, match=r"give strategies, by name or as a list, .*; not"):
            points(none)
    for nothing in ((), 0.5, None, "0.5"):
        with pytest.raises(TargetError, match=r"give sparsities, fractions to remove such as \(0\.2, 0\.5\); not"):
            points([Uniform()], sparsities=nothing)
    with pytest.raises(TargetError, match="sparsity of 'energy' is not offered"):
        points([Uniform()], of="energy")
    with pytest.raises(ObjectiveError, match="must return a finite number"):
        points([Uniform()], objective=lambda model: float("nan"))
    with pytest.raises(ObjectiveError, match="the metric '<lambda>' failed: ZeroDivisionError: division by zero"):
        points([Uniform()], objective=lambda model: 1 / 0)
    with pytest.raises(SearchError, match=r"must be one such as Uniform.* not Random"):
        points([Uniform(), Random])
    with pytest.raises(SearchError, match="don't suffice"):
        points([Sensitivity(evaluations=3)])


def test_a_search_may_keep_its_measurements(tmp_path: Any) -> None:
    strategies: list[Strategy] = [Uniform(), Sensitivity(evaluations=12)]
    seen = []

    def counted(model: nn.Module) -> float:
        seen.append(parameters(model))
        return similarity(model)

    search = Search(storage=tmp_path / "search.db")
    settings: dict[str, Any] = {"objective": counted, "sparsities": [0.4], "strategies": strategies, "search": search}
    first = tradeoff(MODEL, INPUTS[:1], **settings)
    count = len(seen)
    again = tradeoff(MODEL, INPUTS[:1], **settings)
    assert len(seen) - count == 1 + 2  # dense and the finished models
    assert [p.kept for p in again.points] == [p.kept for p in first.points]


def test_units_of_metrics_are_shown() -> None:
    settings: dict[str, Any] = {"sparsities": [0.4], "strategies": [Uniform()]}
    noise = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    assert tradeoff(MODEL, INPUTS[:1], objective=Psnr(INPUTS, noise), **settings).objective == "PSNR, dB"
    assert tradeoff(MODEL, INPUTS[:1], objective=Minimize(Latency(INPUTS)), **settings).objective == "latency, s"


def test_it_can_be_shown_and_stored() -> None:
    found = tradeoff(
        MODEL, INPUTS[:1], objective=similarity, sparsities=(0.2, 0.4), strategies={"a": Uniform()}, tolerance=0.05
    )
    data = json.loads(json.dumps(found.as_data()))
    assert data["dense"] == 1
    assert [p["target"] for p in data["points"]] == [0.2, 0.4]
    assert data["points"][0]["kept"] == found.points[0].kept

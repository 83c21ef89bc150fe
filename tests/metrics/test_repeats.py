"""Repeats on common seeds: means, intervals and what they see."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from secateur.errors import ObjectiveError
from secateur.metrics import Estimate, Repeats

MODEL = nn.Identity()


def test_the_interval_is_students() -> None:
    values = {3: 1.0, 5: 4.0, 8: 2.5, 13: 3.0}
    found = Repeats(lambda model, seed: values[seed], seeds=tuple(values), confidence=0.9)(MODEL)
    data = list(values.values())
    low, high = stats.t.interval(0.9, df=3, loc=np.mean(data), scale=stats.sem(data))
    assert found == Estimate(pytest.approx(np.mean(data)), pytest.approx(low), pytest.approx(high))  # type: ignore[arg-type]


@pytest.mark.parametrize("seeds", [3, range(3), [0, 1, 2], np.arange(3)], ids=repr)
def test_seeds_may_be_a_number_or_any_list_of_whole_ones(seeds: Any) -> None:
    assert Repeats(lambda model, seed: seed, seeds=seeds)(MODEL).value == 1.0


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        values = rng.normal(7.0, 2.0, 4)
        found = Repeats(lambda model, seed, v=values: v[seed], seeds=4, confidence=0.8)(MODEL)  # type: ignore[misc]
        covered += found.low <= 7.0 <= found.high
    assert 0.75 < covered / 400 < 0.85


@pytest.mark.parametrize(("aggregate", "value"), [("lowest", 1.0), ("highest", 4.0)])
def test_the_worst_case(aggregate: Any, value: float) -> None:
    found = Repeats(lambda model, seed: [2.0, 1.0, 4.0][seed], seeds=3, aggregate=aggregate)(MODEL)
    assert found == Estimate(value, 1.0, 4.0)


def test_a_tensor_is_a_number_too() -> None:
    assert Repeats(lambda model, seed: torch.tensor(2.0, requires_grad=True), seeds=2)(MODEL) == Estimate(2.0, 2.0, 2.0)


def test_every_model_meets_the_same_random_numbers() -> None:
    drawn: list[tuple[float, float, float]] = []

    def metric(model: nn.Module, seed: int) -> float:
        drawn.append((float(torch.rand(())), float(np.random.random()), random.random()))
        assert not model.training
        assert not torch.is_grad_enabled()
        return 0.0

    state = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]
    repeats, model = Repeats(metric, seeds=3), nn.Dropout().train()
    repeats(model)
    torch.rand(5)
    torch.set_rng_state(state[0])
    repeats(nn.Identity())
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3
    assert model.training
    assert torch.equal(state[0], torch.get_rng_state())
    assert np.array_equal(state[1], np.random.get_state()[1])  # type: ignore[index]
    assert state[2] == random.getstate()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": 1}, "an interval needs at least 2 seeds; given: 1"),
        ({"seeds": [4]}, r"an interval needs at least 2 seeds; given: \[4\]"),
        ({"confidence": 1.0}, r"the confidence must lie in \(0, 1\); it is 1.0"),
        ({"aggregate": "median"}, "aggregate must be 'mean', 'lowest' or 'highest', not 'median'"),
        (
            {"seeds": (seed for seed in range(3))},
            r"seeds must be how many, or a list of whole numbers of 64 bits; given: <gener",
        ),
        ({"seeds": [0.5, 1.5]}, r"seeds must be how many, or a list of whole numbers of 64 bits; given: \[0.5, 1.5\]"),
        ({"seeds": 2.5}, r"seeds must be how many, or a list of whole numbers of 64 bits; given: 2.5"),
        ({"seeds": True}, r"seeds must be how many, or a list of whole numbers of 64 bits; given: True"),
        ({"seeds": None}, r"seeds must be how many, or a list of whole numbers of 64 bits; given: None"),
        ({"seeds": "123"}, r"seeds must be how many, or a list of whole numbers of 64 bits; given: '123'"),
        ({"seeds": [0, 2**64]}, "seeds must be how many, or a list of whole numbers of 64 bits; given"),
        ({"confidence": "high"}, r"the confidence must lie in \(0, 1\); it is 'high'"),
    ],
)
def test_wrong_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        Repeats(lambda model, seed: 0.0, **arguments)


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "must return a number; for seed 0: None"), (float("nan"), "must return a finite number; for seed 0: nan")],
)
def test_a_repeat_without_a_value(value: Any, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        Repeats(lambda model, seed: value)(MODEL)


def test_infinite_where_every_repeat_is() -> None:
    infinity = float("inf")
    for aggregate in ("mean", "lowest", "highest"):
        found = Repeats(lambda model, seed: infinity, seeds=3, aggregate=aggregate)(MODEL)
        assert found == Estimate(infinity, infinity, infinity)
    with pytest.raises(ObjectiveError, match=r"must return finite numbers; for the seeds: \[0.0, inf\]"):
        Repeats(lambda model, seed: seed * infinity if seed else 0.0, seeds=2)(MODEL)


def test_its_name_is_that_of_the_metric() -> None:
    def episode(model: nn.Module, seed: int) -> float:
        return 0.0

    class Walk:
        name = "walking return"

        def __call__(self, model: nn.Module, seed: int) -> float:
            return 0.0

    assert Repeats(episode).name == "episode"
    assert Repeats(Walk()).name == "walking return"

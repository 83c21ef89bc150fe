"""Bounds on metrics, and objectives of models that are no candidates."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secateur.allocation import Constraint, Minimize
from secateur.allocation.evaluator import measured
from secateur.errors import CalibrationError, ConstraintError, ObjectiveError
from secateur.metrics import Estimate


def loss(model: nn.Module) -> float:
    return 0.5


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "constraint 'loss' needs a finite bound: at_least= or at_most="),
        ({"at_most": math.nan}, "constraint 'loss' needs a finite bound"),
        ({"at_least": 2.0, "at_most": 1}, r"nothing satisfies constraint 'loss': at least 2\.0, at most 1\.0"),
        ({"at_least": "much"}, "constraint 'loss': at_least must be a number, not 'much'"),
        ({"at_most": torch.ones(2)}, "constraint 'loss': at_most must be a number, not tensor"),
    ],
)
def test_a_bound_that_no_number_satisfies(bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        Constraint(loss, **bounds)


def test_a_bound_may_be_what_a_metric_returns() -> None:
    bound = Constraint(loss, at_least=torch.tensor(0.25), at_most=np.float32(1.0))  # type: ignore[arg-type]
    assert (type(bound.at_least), type(bound.at_most)) == (float, float)
    assert (bound.margin(0.5), bound.margin(1.25), bound.margin(0.0)) == (0.5, -0.25, -1.0)
    assert str(bound) == "0.25 <= loss <= 1"


def test_a_confident_constraint_is_held_against_the_worse_end() -> None:
    estimate = Estimate(0.5, 0.25, 1.5)
    assert Constraint(loss, at_least=0.1, confident=True).tested(estimate) == 0.25
    assert Constraint(loss, at_least=0.1, at_most=1.0, confident=True).tested(estimate) == 1.5
    assert Constraint(loss, at_least=0.1).tested(estimate) == 0.5


def test_a_model_is_measured_with_the_same_random_numbers_and_the_users_stay() -> None:
    def drawn(model: nn.Module) -> float:
        return float(torch.rand(()) + np.random.rand() + random.random())

    states = torch.get_rng_state(), str(np.random.get_state(legacy=False)), random.getstate()
    first = measured(drawn, nn.Identity())
    torch.rand(3)
    assert measured(Minimize(drawn), nn.Identity()) == first
    torch.set_rng_state(states[0])
    measured(drawn, nn.Identity())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (str(np.random.get_state(legacy=False)), random.getstate()) == states[1:]


def test_a_metric_that_fails_is_one_clear_error() -> None:
    def failing(model: nn.Module) -> float:
        raise KeyError("no such episode")

    with pytest.raises(ObjectiveError, match="the metric 'failing' failed: KeyError: 'no such episode'") as caught:
        measured(Minimize(failing), nn.Identity())
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_that_says_what_to_do_stays() -> None:
    def failing(model: nn.Module) -> float:
        raise CalibrationError("give other data")

    with pytest.raises(CalibrationError, match="give other data"):
        measured(failing, nn.Identity())

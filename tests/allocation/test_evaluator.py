from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.allocation.objective import Constraint, Minimize
from secateur.errors import CalibrationError
from secateur.metrics.estimate import Estimate
from secateur.plan import PruningPlan, plan
from secateur.recovery.refit import refit_consumers
from secateur.surgery import apply
from tests.handmade import Chain

COEFFICIENTS = {"c0.0": 0.5, "c1.0": 0.25}
INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


def model() -> Chain:
    torch.manual_seed(0)
    return Chain([6, 8, 12, 4])


def evaluator(
    dense: nn.Module,
    objective: Any = None,
    *,
    constraints: Sequence[Constraint] = (),
    calibration: Any = None,
    refit_steps: int = 0,
) -> Evaluator:
    graph = secateur.trace(dense, INPUTS)
    scores = secateur.importance.Magnitude()(graph, dense)
    return Evaluator(graph, scores, dense, objective, constraints, calibration, refit_steps)


def total(small: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = small(INPUTS).sum()
    return out


@pytest.mark.parametrize("steps", [0, 2])
def test_a_candidate_is_measured_after_surgery_and_refit(steps: int) -> None:
    dense = model()
    measure = evaluator(dense, total, calibration=[INPUTS], refit_steps=steps)
    pruning = plan(measure.graph, measure.scores, COEFFICIENTS)
    by_hand = apply(dense, pruning)
    assert evaluator(dense, total)(COEFFICIENTS).objective == total(by_hand).item()
    refit_consumers(by_hand, dense, pruning, [INPUTS], steps=steps)
    measured = measure(COEFFICIENTS)
    assert measured.objective == pytest.approx(total(by_hand).item(), rel=1e-6)
    assert measured.error is None
    assert measured.interval is None
    assert measured.seconds > 0


def drawn(small: nn.Module) -> float:
    """A metric that depends on every random generator."""
    return float(torch.rand(()) + np.random.rand() + random.random())


def test_the_users_model_and_random_state_stay() -> None:
    dense = model().train()
    before = copy.deepcopy(dense.state_dict())
    measure = evaluator(
        dense, lambda m: float(torch.rand(()) + np.random.rand() + random.random()), calibration=[INPUTS]
    )
    states = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    measure(COEFFICIENTS)
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    assert all(m.training for m in dense.modules())
    assert not any(m._forward_hooks for m in dense.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert str(states[1]) == str(np.random.get_state(legacy=False))
    assert states[2] == random.getstate()


def test_randomness_is_the_same_for_every_candidate_in_any_order() -> None:
    measure = evaluator(model(), drawn)
    first = measure(COEFFICIENTS).objective
    torch.rand(7)
    assert measure({"c0.0": 0.75}).objective == first
    assert evaluator(model(), drawn)(COEFFICIENTS).objective == first


def test_constraints_and_intervals() -> None:
    constraints = [
        Constraint(lambda m: 3, at_most=2, name="three"),
        Constraint(lambda m: Estimate(1.0, 0.5, 1.5), at_least=1, name="sure", confident=True),
        Constraint(lambda m: Estimate(1.0, 0.5, 1.5), at_least=1, name="likely"),
    ]
    measured = evaluator(model(), Minimize(lambda m: Estimate(2.0, 1.0, 4.0)), constraints=constraints)(COEFFICIENTS)
    assert (measured.objective, measured.interval) == (2.0, (1.0, 4.0))
    assert measured.constraints == {"three": 3.0, "sure": 0.5, "likely": 1.0}
    alone = evaluator(model(), constraints=constraints[:1])(COEFFICIENTS)
    assert (alone.objective, alone.constraints) == (None, {"three": 3.0})


class Removed:
    """A metric that needs to know what was pruned."""

    def __call__(self, small: nn.Module) -> float:
        raise AssertionError

    def measure(self, small: nn.Module, pruning: PruningPlan | None) -> float:
        assert pruning is not None
        return sum(pruning.sizes[name] - len(kept) for name, kept in pruning.groups.items())


def test_a_metric_may_ask_for_the_plan() -> None:
    assert evaluator(model(), Removed())(COEFFICIENTS).objective == 4 + 3


def raising(small: nn.Module) -> float:
    raise ValueError("the simulator crashed")


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda m: None, "must return a number for a model; it returned None"),
        (lambda m: float("nan"), "must return a finite number for a model; it returned nan"),
        (lambda m: "good", "must return a number for a model; it returned 'good'"),
        (raising, "ValueError: the simulator crashed"),
    ],
)
def test_a_metric_that_fails_is_recorded_with_its_traceback(objective: Any, message: str) -> None:
    for failing in (
        evaluator(model(), objective),
        evaluator(model(), total, constraints=[Constraint(objective, at_least=0, name="c")]),
    ):
        measured = failing(COEFFICIENTS)
        assert measured.objective is None
        assert measured.constraints == {}
        assert measured.error is not None
        assert measured.error.startswith("Traceback")
        assert message in measured.error


def test_an_interrupt_is_no_failure() -> None:
    def interrupted(small: nn.Module) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator(model(), interrupted)(COEFFICIENTS)


def test_calibration_that_is_no_good_for_the_dense_model_is_an_error_at_once() -> None:
    with pytest.raises(CalibrationError, match="calibration failed on the model"):
        evaluator(model(), total, calibration=[torch.ones(2, 5)])(COEFFICIENTS)


def test_a_refit_that_fails_on_one_candidate_is_recorded() -> None:
    def fails_when_small(m: nn.Module) -> None:
        m(INPUTS)
        if sum(p.numel() for p in m.parameters()) < 150:
            raise ValueError("no good when so small")

    measure = evaluator(model(), total, calibration=fails_when_small)
    assert measure({"c0.0": 0.125}).error is None
    error = measure({"c0.0": 0.75, "c1.0": 0.75}).error
    assert error is not None
    assert "no good when so small" in error


def test_few_calibration_rows_do_not_warn_for_every_candidate() -> None:
    assert evaluator(model(), total, calibration=[INPUTS[:2]])(COEFFICIENTS).error is None


def test_calibration_is_the_same_for_every_candidate() -> None:
    loader: Any = torch.utils.data.DataLoader(list(INPUTS), batch_size=8, shuffle=True)  # type: ignore[arg-type]
    for calibration in (loader, (batch for batch in INPUTS.split(8))):
        measure = evaluator(model(), total, calibration=calibration)
        assert measure(COEFFICIENTS).objective == measure(COEFFICIENTS).objective


def test_another_process_measures_the_same() -> None:
    measure = evaluator(model(), total, calibration=[INPUTS])
    here = measure(COEFFICIENTS)
    there = pickle.loads(pickle.dumps(measure))(COEFFICIENTS)
    assert there.objective == here.objective


def test_measurements_are_plain_data() -> None:
    assert pickle.loads(pickle.dumps(Measurement(1.0, (0.5, 2.0), {"c": 1.0}, 3.0))) == Measurement(
        1.0, (0.5, 2.0), {"c": 1.0}, 3.0
    )

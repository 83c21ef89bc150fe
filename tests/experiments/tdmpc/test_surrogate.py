"""The predictions' error: by hand, as a loss with a gradient, and as what a search compares by."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.errors import CalibrationError, ObjectiveError
from secateur.experiments.tdmpc.rollout import Rollout
from secateur.experiments.tdmpc.surrogate import (
    PlanningError,
    PlanningLoss,
    PredictionError,
    PredictionLoss,
    SurrogateError,
)
from secateur.experiments.tdmpc.told import Told
from tests.experiments.tdmpc.small_agent import random_visits, small_told


def disturbed(model: Told, *, by: float = 0.05, seed: int = 1) -> Told:
    """A copy with noise on every weight."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=by)
    return other


def by_hand(found: Rollout, dense: Rollout) -> dict[str, float]:
    """Squared error over variance, over all steps and rows; an action's components each by their own variance."""
    relative = {}
    for name, expected in dense._asdict().items():
        width = expected.shape[2] if expected.ndim == 3 else 1
        d, f = (values.detach().numpy().reshape(-1, width) for values in (expected, getattr(found, name)))
        relative[name] = float(np.mean(np.mean((f - d) ** 2, axis=0) / d.var(axis=0)))
    return relative


def test_the_dense_model_has_no_error() -> None:
    model = small_told()
    assert PredictionError(model, random_visits())(model) == 0


def test_errors_are_those_computed_by_hand() -> None:
    model, visits = small_told(), random_visits()
    other = disturbed(model)
    expected = by_hand(visits.run(other), visits.run(model))
    error = PredictionError(model, visits)
    assert error.parts(other) == pytest.approx(expected, rel=1e-10)
    values = (expected["q1"] + expected["q2"]) / 2
    assert error(other) == pytest.approx((expected["rewards"] + values + expected["actions"]) / 3, rel=1e-10)


def test_predicting_the_mean_is_an_error_of_one() -> None:
    """Rewards that are always the dense model's mean reward."""
    model, visits = small_told(), random_visits()
    other = copy.deepcopy(model)
    last = other.reward[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(float(visits.run(model).rewards.mean()))
    parts = PredictionError(model, visits).parts(other)
    assert parts == pytest.approx({"rewards": 1, "q1": 0, "q2": 0, "actions": 0})


def test_predictions_that_do_not_vary_are_held_against_their_size() -> None:
    """A constant reward of 2 that becomes 3: a quarter. And where all is zero, the error itself: 9."""
    model, visits = small_told(), random_visits()
    last = model.reward[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        for dense, small, expected in ((2.0, 3.0, 0.25), (0.0, 3.0, 9.0)):
            last.bias.fill_(dense)
            error = PredictionError(model, visits)
            last.bias.fill_(small)
            assert error.parts(model)["rewards"] == pytest.approx(expected)


def test_the_loss_over_all_rows_is_the_error() -> None:
    model, visits = small_told(), random_visits(50)
    loss = PredictionLoss(model, visits, rows=50)
    (batch,) = loss.batches
    other = disturbed(model)
    assert loss(other, batch).item() == pytest.approx(PredictionError(model, visits)(other), rel=1e-12)


def test_minibatches_share_their_scales() -> None:
    """The mean of equal minibatches' losses is the whole loss."""
    model, visits = small_told(), random_visits(60)
    loss = PredictionLoss(model, visits, rows=20)
    other = disturbed(model)
    losses = [loss(other, batch).item() for batch in loss.batches]
    assert len(losses) == 3
    assert np.mean(losses) == pytest.approx(PredictionError(model, visits)(other), rel=1e-10)


def test_the_gradient_is_that_of_differences() -> None:
    model, visits = small_told(), random_visits(40)
    loss = PredictionLoss(model, visits)
    other = disturbed(model)
    weight = other.get_parameter("dynamics.2.weight")

    def value(shift: float) -> Tensor:
        with torch.no_grad():
            weight[3, 5] += shift
            found = loss(other, loss.batches[0])
            weight[3, 5] -= shift
        return found

    (gradient,) = torch.autograd.grad(loss(other, loss.batches[0]), weight)
    assert float(gradient[3, 5]) == pytest.approx(float(value(1e-5) - value(-1e-5)) / 2e-5, rel=1e-5)


def test_the_dense_model_may_change_afterwards() -> None:
    """Its predictions are kept, and travel to other processes."""
    model, visits = small_told(), random_visits()
    other, error = disturbed(model), PredictionError(model, visits)
    before = error(other)
    with torch.no_grad():
        model.get_parameter("encoder.0.weight").zero_()
    assert error(other) == before
    assert pickle.loads(pickle.dumps(error))(other) == before


def test_what_can_not_be_compared() -> None:
    model = small_told()
    with pytest.raises(CalibrationError, match="recorded on task 'stroll', whose observations have 4 numbers"):
        PredictionError(Told(24, 6, encoder_width=8, width=8, latent=5), random_visits())
    with pytest.raises(CalibrationError, match="at least 1 row, not 0"):
        PredictionLoss(model, random_visits(), rows=0)
    with torch.no_grad():
        model.get_parameter("reward.4.bias").fill_(torch.nan)
    with pytest.raises(ObjectiveError, match="the dense model's rewards on the visits of task 'stroll'"):
        PredictionError(model, random_visits())


# --- planning -----------------------------------------------------------------------------------------------------


def shifted_rewards(model: Told, *, by: float) -> Told:
    """A copy whose rewards are all larger by the same amount."""
    other = copy.deepcopy(model)
    last = other.reward[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.add_(by)
    return other


def test_planning_is_compared_by_the_differences_from_one_state() -> None:
    """By hand, state by state and sequence by sequence."""
    model, visits, discount = small_told(), random_visits(7), 0.9
    other = disturbed(model)

    def value(of: Told, row: int, shift: int) -> float:
        latent, total = of.encode(visits.observations[row]), 0.0
        for step in range(visits.horizon):
            latent, reward = of.next(latent, visits.actions[step, (row - shift) % visits.rows])
            total += discount**step * float(reward)
        return total + discount**visits.horizon * float(torch.minimum(*of.q(latent, of.act(latent))))

    with torch.no_grad():
        dense, small = (np.array([[value(m, r, s) for s in range(3)] for r in range(7)]) for m in (model, other))
    dense, small = (values - values.mean(axis=1, keepdims=True) for values in (dense, small))
    expected = np.mean((small - dense) ** 2) / np.mean(dense**2)
    error = PlanningError(model, visits, discount=discount, sequences=3)
    assert error(other) == pytest.approx(expected, rel=1e-9)
    assert error(model) == 0


def test_what_is_wrong_with_all_sequences_alike_does_not_matter_to_planning() -> None:
    model, visits = small_told(), random_visits()
    other = shifted_rewards(model, by=5.0)
    assert PredictionError(model, visits)(other) > 1
    assert PlanningError(model, visits)(other) == pytest.approx(0, abs=1e-12)


def test_a_model_to_which_all_sequences_are_worth_the_same_has_a_planning_error_of_one() -> None:
    model, visits = small_told(), random_visits()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name in ("reward.4", "q1.5", "q2.5"):
            other.get_parameter(f"{name}.weight").zero_()
    assert PlanningError(model, visits)(other) == pytest.approx(1)


def test_the_planning_loss_is_the_planning_error() -> None:
    model, visits = small_told(), random_visits(40)
    other = disturbed(model)
    loss = PlanningLoss(model, visits, rows=40, sequences=4)
    (batch,) = loss.batches
    assert loss(other, batch).item() == pytest.approx(PlanningError(model, visits, sequences=4)(other), rel=1e-12)
    weight = other.get_parameter("dynamics.2.weight")
    (gradient,) = torch.autograd.grad(loss(other, batch), weight)
    with torch.no_grad():
        weight[3, 5] += 1e-5
        above = float(loss(other, batch))
        weight[3, 5] -= 2e-5
        below = float(loss(other, batch))
    assert float(gradient[3, 5]) == pytest.approx((above - below) / 2e-5, rel=1e-5)


def test_minibatches_of_one_state_have_nothing_to_compare() -> None:
    model = small_told()
    assert [batch.visits.rows for batch in PlanningLoss(model, random_visits(21), rows=10).batches] == [10, 10]
    with pytest.raises(CalibrationError, match="2 sequences from a state at least, not 6 of the 1 recorded"):
        PlanningError(model, random_visits(1))
    with pytest.raises(CalibrationError, match="2 sequences from a state at least, not 1 of the 30"):
        PlanningError(model, random_visits(30), sequences=1)
    with pytest.raises(CalibrationError, match="minibatches of at least 2 states, not 1"):
        PlanningLoss(model, random_visits(30), rows=1)


def test_the_surrogate_is_the_geometric_mean() -> None:
    model, visits = small_told(), random_visits()
    other, surrogate = disturbed(model), SurrogateError(model, visits)
    product = PredictionError(model, visits)(other) * PlanningError(model, visits)(other)
    assert surrogate(other) == pytest.approx(product**0.5)
    assert surrogate(model) == 0
    assert pickle.loads(pickle.dumps(surrogate))(other) == surrogate(other)
    with torch.no_grad():
        model.get_parameter("reward.4.bias").fill_(torch.inf)
    with pytest.raises(ObjectiveError, match="worth on task 'stroll' isn't all finite"):
        PlanningError(model, visits)

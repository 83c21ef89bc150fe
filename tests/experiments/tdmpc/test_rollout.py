"""The rollout against a loop over single rows, written from the equations."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.experiments.tdmpc.rollout import rollout
from secateur.experiments.tdmpc.told import Told
from tests.experiments.tdmpc.small_agent import ACTIONS, random_visits, small_told


def test_every_output_is_what_the_equations_say() -> None:
    """z_0 = h(s); r_t, z_t+1 = R(z_t, a_t), d(z_t, a_t); Q(z_t, a_t), and Q(z_H, pi(z_H)) at the end."""
    model, visits = small_told(), random_visits(3, horizon=4)
    with torch.no_grad():
        found = rollout(model, visits.observations, visits.actions)
        for row in range(3):
            z = model.encoder(visits.observations[row])
            for t, action in enumerate(visits.actions[:, row]):
                both = torch.cat([z, action])
                assert_equal(found.rewards[t, row], model.reward(both)[0])
                check_state(model, z, both, found.q1[t, row], found.q2[t, row], found.actions[t, row])
                z = model.dynamics(both)
            last = torch.cat([z, torch.tanh(model.pi(z))])
            check_state(model, z, last, found.q1[4, row], found.q2[4, row], found.actions[4, row])


def test_shapes() -> None:
    found = rollout(small_told(), *inputs(rows=7, horizon=2))
    assert [tuple(values.shape) for values in found] == [(2, 7), (3, 7), (3, 7), (3, 7, ACTIONS)]


def inputs(rows: int, horizon: int) -> tuple[Tensor, Tensor]:
    visits = random_visits(rows, horizon=horizon)
    return visits.observations, visits.actions


def check_state(model: Told, z: Tensor, both: Tensor, q1: Tensor, q2: Tensor, action: Tensor) -> None:
    assert_equal(q1, model.q1(both)[0])
    assert_equal(q2, model.q2(both)[0])
    assert_equal(action, torch.tanh(model.pi(z)))


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

"""Recording: every row is a state of an episode with a sequence that the planner sampled in that very state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.errors import CalibrationError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.episodes import EVALUATION_SEEDS, run_episodes
from secateur.experiments.tdmpc.recording import CALIBRATION_SEEDS, record_visits
from secateur.experiments.tdmpc.visits import Visits
from tests.experiments.tdmpc.small_agent import ACTIONS, OBSERVATIONS, small_told

CONFIG = TdMpcConfig(task="stroll", action_repeat=1, samples=12, elites=4, iterations=2, horizon=3)
STEPS = 5


class Stroll:
    """Observations: the seed, the step, and how far the actions have led."""

    observations, actions, steps = OBSERVATIONS, ACTIONS, STEPS

    def __init__(self, seed: int) -> None:
        self.seed, self.step_count, self.moved = seed, 0, np.zeros(ACTIONS)

    def reset(self) -> NDArray[np.float32]:
        return np.array([self.seed, self.step_count, *self.moved], dtype=np.float32)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        self.step_count, self.moved = self.step_count + 1, self.moved + action
        return self.reset(), 0.0


def make(task: str, seed: int, *, action_repeat: int | None = None) -> Stroll:
    assert task == "stroll"
    return Stroll(seed)


def recorded(**changes: Any) -> Visits:
    settings = {"seeds": (0, 1, 2), "noise": (0.0,), "sequences": 2, "rows": 1000, **changes}
    return record_visits(small_told(dtype=torch.float32), CONFIG, make=make, **settings)


def states(visits: Visits) -> list[tuple[int, int]]:
    """Seed and step of every row."""
    return [(int(seed), int(step)) for seed, step in visits.observations[:, :2].tolist()]


def test_every_iteration_of_every_step_gives_as_many_sequences_as_asked() -> None:
    visits = recorded()
    count = 2 * CONFIG.iterations
    assert (visits.task, visits.horizon, visits.rows) == ("stroll", 3, 3 * STEPS * count)
    assert sorted(states(visits)) == sorted([(seed, step) for seed in range(3) for step in range(STEPS)] * count)
    assert states(visits) != sorted(states(visits))  # in random order


def test_sequences_are_those_sampled_in_that_state() -> None:
    """The planner's random numbers don't depend on who listens: the same episodes again, written down whole."""
    sampled = dict[tuple[int, int], Tensor]()

    def remember(observations: Tensor, actions: Tensor) -> None:
        for row, (seed, step) in enumerate(observations[:, :2].tolist()):
            before = sampled.get((int(seed), int(step)), actions[:, row, :0])
            sampled[int(seed), int(step)] = torch.cat([before, actions[:, row]], dim=1)

    run_episodes(small_told(dtype=torch.float32), CONFIG, (0, 1, 2), on_sequences=remember, make=make)
    visits = recorded()
    for row, state in enumerate(states(visits)):
        differences = (sampled[state] - visits.actions[:, row, None]).abs().amax(dim=(0, 2))
        assert float(differences.min()) == 0


def test_every_row_knows_its_episode() -> None:
    for visits in (recorded(seeds=(4, 9, 2)), recorded(seeds=(4, 9, 2), rows=7)):
        assert visits.seeds is not None
        assert visits.seeds.tolist() == [seed for seed, _ in states(visits)]
    left, held_out = recorded(seeds=(4, 9, 2)).split(0.3)
    assert not {seed for seed, _ in states(left)} & {seed for seed, _ in states(held_out)}


def test_no_more_rows_than_asked() -> None:
    fewer = recorded(rows=7)
    assert fewer.rows == 7
    assert set(states(fewer)) <= set(states(recorded()))


def test_noise_takes_turns() -> None:
    """Episodes 0 and 2 are left alone; episode 1 is led elsewhere from its second state on."""
    plain, disturbed = (positions(recorded(noise=noise)) for noise in [(0.0,), (0.0, 0.4)])
    changed = {state for state in plain if not np.allclose(plain[state], disturbed[state])}
    assert changed == {(1, step) for step in range(1, STEPS)}


def positions(visits: Visits) -> dict[tuple[int, int], list[float]]:
    return dict(zip(states(visits), visits.observations[:, 2:].tolist(), strict=True))


def test_the_seed_draws() -> None:
    first, again, other = recorded(rows=9), recorded(rows=9), recorded(rows=9, seed=1)
    assert torch.equal(first.observations, again.observations)
    assert torch.equal(first.actions, again.actions)
    assert states(first) != states(other)


def test_calibration_and_evaluation_don_t_share_episodes() -> None:
    assert not set(CALIBRATION_SEEDS) & set(EVALUATION_SEEDS)


@pytest.mark.parametrize("name", ["seeds", "noise", "sequences", "rows"])
def test_nothing_to_record_is_an_error(name: str) -> None:
    with pytest.raises(CalibrationError, match=f"at least one of its {name}"):
        recorded(**{name: 0 if name in ("sequences", "rows") else ()})


def test_more_sequences_than_there_are() -> None:
    with pytest.raises(CalibrationError, match="13 sequences can't be drawn from the 12"):
        recorded(sequences=13)

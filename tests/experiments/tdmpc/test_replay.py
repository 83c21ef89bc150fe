from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from secateur.errors import ControlError, StorageError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.replay import Batch, Episode, Replay

CONFIG = TdMpcConfig(horizon=3, priority_exponent=0.6, importance_exponent=0.4, priority_epsilon=1e-3)


def numbered(number: int, steps: int) -> Episode:
    """An episode in which every number says where it is from: 100 times its own and the step; actions are negative."""
    observations: NDArray[np.float32] = 100 * number + np.arange(steps + 1, dtype=np.float32)
    return Episode(
        observations=np.stack([observations, observations + 0.5], 1),
        actions=-observations[:-1, None],
        rewards=observations[:-1] / np.float32(2),
    )


def replay_of(*lengths: int, capacity: int = 1000) -> Replay:
    replay = Replay(CONFIG, observations=2, actions=1, capacity=capacity)
    for number, length in enumerate(lengths, start=1):
        replay.add(numbered(number, length))
    return replay


def starts(batch: Batch) -> list[int]:
    """Where the sub-trajectories begin, after a look at all of their numbers."""
    first = batch.observations[0, :, 0]
    steps = torch.arange(4).unsqueeze(1)
    assert batch.observations.equal(torch.stack([first + steps, first + steps + 0.5], -1))
    assert batch.actions.equal(-(first + steps[:-1]).unsqueeze(-1))
    assert batch.rewards.equal((first + steps[:-1]) / 2)
    return [int(start) for start in first.tolist()]


def test_every_sub_trajectory_is_drawn_once_and_none_crosses_an_end() -> None:
    replay = replay_of(5, 3, 4)
    batch = replay.sample(6, torch.Generator().manual_seed(0))
    assert sorted(starts(batch)) == [100, 101, 102, 200, 300, 301]
    assert len(replay) == 12
    assert batch.weights.tolist() == [1.0] * 6


def test_the_oldest_episodes_leave_when_it_is_full() -> None:
    replay = replay_of(5, 4, 3, capacity=12)
    replay.add(numbered(4, 4))
    assert len(replay) == 11
    assert sorted(starts(replay.sample(5, torch.Generator()))) == [200, 201, 300, 400, 401]
    replay.add(numbered(5, 12))
    assert len(replay) == 12
    assert sorted(starts(replay.sample(10, torch.Generator()))) == list(range(500, 510))


def test_pairs_are_drawn_with_their_exact_probabilities() -> None:
    replay = replay_of(5, 4)
    everything = replay.sample(5, torch.Generator())
    order = everything.indices.sort().indices
    priorities = torch.tensor([0.1, 5.0, 1.0, 2.0, 0.05])
    replay.update(everything.indices[order], priorities)
    chances = (priorities.double().numpy() + 1e-3) ** 0.6
    chances /= chances.sum()
    names = [100, 101, 102, 200, 201]
    expected = {
        (names[a], names[b]): chances[a] * chances[b] / (1 - chances[a]) for a, b in itertools.permutations(range(5), 2)
    }
    generator, draws = torch.Generator().manual_seed(0), 6000
    counts = dict.fromkeys(expected, 0)
    for _ in range(draws):
        first, second = replay.sample(2, generator).observations[0, :, 0].int().tolist()
        counts[first, second] += 1
    assert min(expected.values()) * draws > 3
    test = stats.chisquare(list(counts.values()), [draws * each for each in expected.values()])
    assert test.pvalue > 0.01


def test_weights_make_up_for_the_probabilities() -> None:
    replay = replay_of(5)
    indices = replay.sample(3, torch.Generator()).indices.sort().values
    replay.update(indices, torch.tensor([1.0, 3.0, 8.0]))
    batch = replay.sample(3, torch.Generator().manual_seed(1))
    chances = (np.array([1.0, 3.0, 8.0]) + 1e-3) ** 0.6
    weights = (3 * chances / chances.sum()) ** -0.4
    by_start = dict(zip(starts(batch), batch.weights.tolist(), strict=True))
    assert [by_start[100 + step] for step in range(3)] == pytest.approx(weights / weights.max(), rel=1e-5)
    one = replay.sample(1, torch.Generator())
    assert one.weights.tolist() == [1.0]


def test_new_sub_trajectories_get_the_largest_priority_of_those_that_can_be_drawn() -> None:
    replay = replay_of(5)
    assert replay.state_dict()["chances"].tolist() == [1, 1, 1, 0, 0, 0]
    indices = replay.sample(3, torch.Generator()).indices.sort().values
    replay.update(indices, torch.tensor([0.2, 0.4, 0.1]))
    replay.add(numbered(2, 4))
    largest = (0.4 + 1e-3) ** 0.6
    expected = [(0.2 + 1e-3) ** 0.6, largest, (0.1 + 1e-3) ** 0.6, 0, 0, 0, largest, largest, 0, 0, 0]
    assert replay.state_dict()["chances"].tolist() == pytest.approx(expected)


def test_its_state_is_all_that_the_next_samples_depend_on() -> None:
    def go_on(replay: Replay) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(7)
        batch = replay.sample(3, generator)
        replay.update(batch.indices, torch.tensor([0.3, 2.0, 0.7]))
        replay.add(numbered(4, 6))
        last = replay.sample(4, generator)
        return [batch.observations, last.observations, last.actions, last.rewards, last.weights, last.indices]

    replay = replay_of(5, 3, 4, capacity=14)
    replay.update(replay.sample(6, torch.Generator()).indices, torch.arange(6.0))
    copied = replay_of(9, capacity=14)
    copied.load_state_dict({name: tensor.clone() for name, tensor in replay.state_dict().items()})
    assert len(copied) == 12
    assert all(one.equal(other) for one, other in zip(go_on(replay), go_on(copied), strict=True))
    assert all(tensor.is_contiguous() for tensor in replay.state_dict().values())


def test_a_state_is_not_shared_with_the_replay() -> None:
    replay, other = replay_of(5), replay_of()
    other.load_state_dict(replay.state_dict())
    other.update(torch.tensor([0]), torch.tensor([9.0]))
    assert replay.state_dict()["chances"].tolist() == [1, 1, 1, 0, 0, 0]


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    state, replay = replay_of(5, 4).state_dict(), replay_of(4)
    with pytest.raises(StorageError, match=r"observations has shape \(11, 2\), not \(11, 3\)"):
        Replay(CONFIG, observations=3, actions=1, capacity=100).load_state_dict(state)
    with pytest.raises(StorageError, match=r"rewards has shape \(10,\), not \(11,\)"):
        replay.load_state_dict({**state, "rewards": state["rewards"][1:]})
    with pytest.raises(StorageError, match=r"\['actions', 'chances', 'lengths', 'observations'\] in place of"):
        replay.load_state_dict({name: tensor for name, tensor in state.items() if name != "rewards"})
    assert sorted(starts(replay.sample(2, torch.Generator()))) == [100, 101]


def test_a_batch_that_is_too_large_says_how_many_there_are() -> None:
    with pytest.raises(ControlError, match="a batch of 4 sub-trajectories can't be drawn from 3"):
        replay_of(5).sample(4, torch.Generator())
    with pytest.raises(ControlError, match="from 0"):
        replay_of().sample(1, torch.Generator())


@pytest.mark.parametrize("priority", [-1.0, float("nan"), float("inf")])
def test_a_priority_that_is_none_is_refused(priority: float) -> None:
    with pytest.raises(ControlError, match="diverged"):
        replay_of(5).update(torch.tensor([0]), torch.tensor([priority]))


def changed(observations: NDArray[Any] | None = None, actions: NDArray[Any] | None = None) -> Episode:
    good = numbered(1, 5)
    return Episode(
        observations=good.observations if observations is None else observations,
        actions=good.actions if actions is None else actions,
        rewards=good.rewards,
    )


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (numbered(1, 2), r"2 steps; the replay takes 3 \(the horizon\) to 20 \(its capacity\)"),
        (numbered(1, 21), "21 steps"),
        (changed(np.zeros((6, 3))), r"observations have shape \(6, 3\); in this replay it must be \(6, 2\)"),
        (changed(np.zeros((5, 2))), r"observations have shape \(5, 2\); in this replay it must be \(6, 2\)"),
        (changed(actions=np.zeros(5)), r"actions have shape \(5,\); in this replay it must be \(5, 1\)"),
        (changed(actions=np.array([[0], [0], [np.nan], [0], [0]])), "actions are not finite at step 2"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(episode: Episode, message: str) -> None:
    replay = replay_of(4, capacity=20)
    with pytest.raises(ControlError, match=message):
        replay.add(episode)
    assert len(replay) == 4


def test_a_capacity_below_the_horizon_is_refused() -> None:
    with pytest.raises(ControlError, match="2 steps can't hold a sub-trajectory of 3"):
        replay_of(capacity=2)

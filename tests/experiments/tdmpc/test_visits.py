"""Visits: rows that stay together, files, and the errors of wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from secateur.errors import CalibrationError, StorageError
from secateur.experiments.tdmpc.told import Told
from secateur.experiments.tdmpc.visits import Visits
from tests.experiments.tdmpc.small_agent import random_visits, small_told


def numbered(
    rows: int, *, horizon: int = 2, task: str = "stroll", first: int = 0, seeds: Sequence[int] | None = None
) -> Visits:
    """Row i is made of the number ``first + i``, observations and actions alike."""
    numbers = torch.arange(first, first + rows, dtype=torch.float64)
    return Visits(
        task=task,
        observations=numbers[:, None].expand(-1, 4),
        actions=numbers[None, :, None].expand(horizon, -1, 2),
        seeds=None if seeds is None else torch.tensor(seeds),
    )


def seeds_of(visits: Visits) -> list[int]:
    assert visits.seeds is not None
    return visits.seeds.tolist()


def numbers_of(visits: Visits) -> list[int]:
    """The numbers of the rows, which observations and actions agree on."""
    numbers = visits.observations[:, 0]
    assert (visits.observations == numbers[:, None]).all()
    assert (visits.actions == numbers[None, :, None]).all()
    return [int(number) for number in numbers]


def test_pieces_are_all_rows_in_order() -> None:
    pieces = numbered(10).pieces(4)
    assert [numbers_of(piece) for piece in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_head_and_take() -> None:
    assert numbers_of(numbered(10).head(3)) == [0, 1, 2]
    assert numbers_of(numbered(2).head(3)) == [0, 1]
    assert numbers_of(numbered(10).take(torch.tensor([7, 2]))) == [7, 2]


def test_split_parts_the_rows() -> None:
    left, held_out = numbered(10).split(0.25)
    assert numbers_of(left) == list(range(8))
    assert numbers_of(held_out) == [8, 9]


@pytest.mark.parametrize("fraction", [0.0, 0.04, 0.96, 1.0])
def test_a_split_that_leaves_nothing_is_an_error(fraction: float) -> None:
    with pytest.raises(CalibrationError, match="of 10 visits leaves none"):
        numbered(10).split(fraction)


def by_episode(episodes: int, rows: int) -> Visits:
    """So many rows of each episode, one after the other in turns."""
    return numbered(episodes * rows, seeds=[100 + row % episodes for row in range(episodes * rows)])


@pytest.mark.parametrize(
    ("episodes", "fraction", "count"), [(8, 0.1, 1), (8, 0.2, 2), (8, 0.5, 4), (2, 0.1, 1), (2, 0.9, 1), (5, 0.9, 4)]
)
def test_split_parts_the_episodes(episodes: int, fraction: float, count: int) -> None:
    visits = by_episode(episodes, 3)
    left, held_out = visits.split(fraction)
    assert not set(seeds_of(left)) & set(seeds_of(held_out))
    assert len(set(seeds_of(held_out))) == count
    assert sorted(numbers_of(left) + numbers_of(held_out)) == list(range(3 * episodes))
    for part in (left, held_out):
        assert numbers_of(part) == sorted(numbers_of(part))  # in the order they were in
        assert seeds_of(part) == [100 + number % episodes for number in numbers_of(part)]
    again = visits.take(torch.arange(visits.rows).flip(0)).split(fraction)
    assert set(seeds_of(again[1])) == set(seeds_of(held_out))


def test_split_takes_episodes_from_anywhere() -> None:
    """Neither the last ones alone, which may be those of a smaller model, nor every second one, which may be noisy."""
    held_out = set(seeds_of(by_episode(16, 1).split(0.25)[1]))
    assert held_out != {112, 113, 114, 115}
    assert {seed % 2 for seed in held_out} == {0, 1}


def test_one_episode_can_not_be_split() -> None:
    with pytest.raises(CalibrationError, match=r"all visits are of one episode, seed 100, .* record_visits with more"):
        by_episode(1, 10).split(0.2)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(CalibrationError, match="leaves none on one side"):
            by_episode(4, 10).split(fraction)


def test_joined_episodes_of_one_seed_stay_together() -> None:
    """They start alike, whoever acts."""
    joined = numbered(4, seeds=[1, 1, 2, 2]).joined(numbered(4, first=4, seeds=[1, 1, 3, 3]))
    assert dict(zip(numbers_of(joined), seeds_of(joined), strict=True)) == dict(enumerate([1, 1, 2, 2, 1, 1, 3, 3]))
    assert numbered(4, seeds=[1, 1, 2, 2]).joined(numbered(4, first=4)).seeds is None


def test_joined_has_the_rows_of_both_shuffled() -> None:
    joined = numbered(20).joined(numbered(5, first=20))
    assert sorted(numbers_of(joined)) == list(range(25))
    assert numbers_of(joined) != list(range(25))
    assert numbers_of(joined) == numbers_of(numbered(20).joined(numbered(5, first=20)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (numbered(3, task="swim"), "task 'swim' can't be joined to those of 'stroll'"),
        (numbered(3, horizon=5), "horizons 2 and 5"),
    ],
)
def test_what_can_not_be_joined(other: Visits, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        numbered(3).joined(other)


def test_batches_are_runs_of_the_pieces() -> None:
    model, visits = small_told(), random_visits(10)
    whole = visits.run(model)
    runs = [batch(model) for batch in visits.batches(4)]
    assert len(runs) == 3
    for name, values in whole._asdict().items():
        torch.testing.assert_close(torch.cat([getattr(run, name) for run in runs], dim=1), values)


def test_a_file_brings_them_back(tmp_path: Path) -> None:
    visits = random_visits(5, task="hop", dtype=torch.float32)
    visits.save(tmp_path / "folder" / "visits.safetensors")
    loaded = Visits.load(tmp_path / "folder" / "visits.safetensors")
    assert loaded.task == "hop"
    assert torch.equal(loaded.observations, visits.observations)
    assert torch.equal(loaded.actions, visits.actions)
    assert loaded.seeds is None
    by_episode(2, 3).save(tmp_path / "whole")
    assert seeds_of(Visits.load(tmp_path / "whole")) == [100, 101] * 3


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"visits can't be read from .*missing"):
        Visits.load(tmp_path / "missing")
    (tmp_path / "text").write_text("not safetensors")
    with pytest.raises(StorageError, match=r"visits can't be read from .*text"):
        Visits.load(tmp_path / "text")
    save_file({"observations": torch.zeros(2, 2)}, tmp_path / "other")
    with pytest.raises(StorageError, match=r"other holds no visits; Visits\.save"):
        Visits.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(2, 5, 1), r"not \(3, 4\) and \(2, 5, 1\)"),
        (torch.zeros(3), torch.zeros(2, 3, 1), r"not \(3,\)"),
        (torch.zeros(0, 4), torch.zeros(2, 0, 1), "no visits of task 'stroll'"),
        (torch.full((3, 4), torch.nan), torch.zeros(2, 3, 1), "the observations visited on task 'stroll'"),
        (torch.zeros(3, 4), torch.full((2, 3, 1), torch.inf), "the actions visited on task 'stroll'"),
    ],
)
def test_malformed_visits_are_an_error(observations: Any, actions: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Visits(task="stroll", observations=observations, actions=actions)


@pytest.mark.parametrize("seeds", [torch.zeros(2, dtype=torch.int64), torch.zeros(3, 1).long(), torch.zeros(3)])
def test_seeds_are_one_whole_number_per_row(seeds: Any) -> None:
    with pytest.raises(CalibrationError, match="seeds of visits must be whole numbers, one for each of 3 rows"):
        Visits(task="stroll", observations=torch.zeros(3, 4), actions=torch.zeros(2, 3, 1), seeds=seeds)


def test_pieces_need_rows() -> None:
    with pytest.raises(CalibrationError, match="at least 1 row, not 0"):
        numbered(3).pieces(0)


def test_another_tasks_visits_name_both_sizes() -> None:
    walker = Told(24, 6, encoder_width=8, width=8, latent=5)
    with pytest.raises(CalibrationError, match=r"task 'stroll', whose observations have 4 numbers.*model have 24"):
        random_visits().run(walker)
    armless = Told(4, 6, encoder_width=8, width=8, latent=5)
    with pytest.raises(CalibrationError, match=r"task 'stroll', whose actions have 2 numbers.*model have 6"):
        random_visits().run(armless)


def test_a_model_of_another_kind_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="a Linear can't be rolled out; it needs the methods"):
        random_visits().run(torch.nn.Linear(4, 2))

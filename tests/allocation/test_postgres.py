"""Several workers on one PostgreSQL study: nothing is measured twice, and a killed worker's share is taken over."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.trial import TrialState

from secateur.allocation.database import close_database, existing_database, open_database
from secateur.allocation.search import stored_searches
from tests.allocation.worker import EVALUATIONS, Process, ended, search, summary, workers


@pytest.fixture
def url(postgres_url: str) -> str:
    """The server's, without studies in it."""
    storage = open_database(postgres_url, heartbeat=1, grace=1)
    for study in storage.get_all_studies():
        storage.delete_study(study._study_id)
    close_database(storage)
    return postgres_url


def kept_by_finished_trials(url: str) -> list[tuple[int, ...]]:
    with existing_database(url) as storage:
        (study,) = storage.get_all_studies()
        trials = storage.get_all_trials(study._study_id, states=(TrialState.COMPLETE,))
    return [tuple(trial.user_attrs["kept"]) for trial in trials]


def test_two_workers_share_a_study(url: str, tmp_path: Path) -> None:
    whole = summary(search(tmp_path / "whole", None, batch=4))
    log = tmp_path / "log"
    both = [Process(log, url, seconds=0.2, batch=4, together=2) for _ in range(2)]
    assert [worker.summary() for worker in both] == [whole, whole]
    assert ended(log).total() == EVALUATIONS
    assert max(ended(log).values()) == 1
    assert len(workers(log)) == 2
    trials = kept_by_finished_trials(url)
    assert len(trials) == len(set(trials)) == EVALUATIONS
    (status,) = stored_searches(url)
    assert (status.measured, status.failed, status.workers) == (EVALUATIONS, 0, ())
    assert status.best == whole["objective"]


@pytest.mark.parametrize("blind", [False, True], ids=["of this machine", "of another machine"])
def test_one_is_killed_and_the_other_finishes_all(url: str, tmp_path: Path, blind: bool) -> None:
    whole = summary(search(tmp_path / "whole", None, batch=4))
    log = tmp_path / "log"
    first = Process(log, url, seconds=60, batch=4, grace=2)
    first.wait_for("begin", 1)
    second = Process(log, url, batch=4, grace=2, blind=blind)
    second.wait_for("end", 3)
    first.kill()
    assert second.summary() == whole
    assert ended(log).total() == EVALUATIONS
    assert max(ended(log).values()) == 1
    trials = kept_by_finished_trials(url)
    assert len(trials) == len(set(trials)) == EVALUATIONS

"""Real processes, killed with SIGKILL: what was measured is never measured again, and the result is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.allocation.worker import EVALUATIONS, Process, ended, lines, search, summary, workers


def test_a_killed_search_goes_on_where_it_was(tmp_path: Path) -> None:
    log, storage = tmp_path / "log", tmp_path / "search.sqlite"
    whole = summary(search(tmp_path / "whole", None))
    assert ended(tmp_path / "whole").total() == EVALUATIONS
    first = Process(log, storage, seconds=0.4)
    first.wait_for("begin", 7)
    first.kill()
    assert ended(log).total() == 6
    second = Process(log, storage)
    assert second.summary() == whole
    assert max(ended(log).values()) == 1
    assert ended(log).total() == EVALUATIONS
    # What was cut off is all that has begun twice.
    assert sum(line.split()[1] == "begin" for line in lines(log)) == EVALUATIONS + 1


def test_a_finished_search_measures_nothing_again(tmp_path: Path) -> None:
    log, storage = tmp_path / "log", tmp_path / "search.sqlite"
    first = summary(search(log, storage))
    assert summary(search(log, storage)) == first
    assert ended(log).total() == EVALUATIONS


@pytest.mark.parametrize("blind", [False, True], ids=["a worker of this machine", "a worker of another machine"])
def test_a_worker_takes_over_from_one_that_was_killed(tmp_path: Path, blind: bool) -> None:
    log, storage = tmp_path / "log", tmp_path / "search.sqlite"
    whole = summary(search(tmp_path / "whole", None, batch=4))
    first = Process(log, storage, seconds=60, batch=4, grace=2)
    first.wait_for("begin", 1)
    second = Process(log, storage, batch=4, grace=2, blind=blind)
    second.wait_for("end", 3)
    first.kill()
    assert second.summary() == whole
    assert ended(log).total() == EVALUATIONS
    assert max(ended(log).values()) == 1


def test_two_workers_share_one_file(tmp_path: Path) -> None:
    log, storage = tmp_path / "log", tmp_path / "search.sqlite"
    whole = summary(search(tmp_path / "whole", None, batch=4))
    both = [Process(log, storage, seconds=0.2, batch=4, together=2) for _ in range(2)]
    assert [worker.summary() for worker in both] == [whole, whole]
    assert ended(log).total() == EVALUATIONS
    assert max(ended(log).values()) == 1
    assert len(workers(log)) == 2


def test_several_jobs_find_what_one_finds(tmp_path: Path) -> None:
    whole = summary(search(tmp_path / "whole", None, batch=4))
    log = tmp_path / "log"
    assert summary(search(log, tmp_path / "search.sqlite", seconds=0.1, batch=4, jobs=2)) == whole
    assert ended(log).total() == EVALUATIONS
    assert max(ended(log).values()) == 1
    assert len(workers(log)) == 2

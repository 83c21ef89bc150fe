"""The table of measurements: in memory and as an Optuna study, its claims, and storages that are no good."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor, nn

import secateur
from secateur.allocation.database import database_url, existing_database
from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.allocation.ledger import Ledger, MemoryLedger, kept_of
from secateur.allocation.objective import Constraint, Minimize
from secateur.allocation.process import has_ended, this_process
from secateur.allocation.result import Evaluation
from secateur.allocation.search import stored_job, stored_searches
from secateur.allocation.study_ledger import StudyLedger
from secateur.errors import StorageError
from tests.handmade import Chain

INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))


def psnr(model: nn.Module) -> float:
    return 1.0


def psnr_of_another_kind() -> Any:
    def psnr(model: nn.Module) -> float:
        return 2.0

    return psnr


def evaluator(
    *,
    widths: tuple[int, ...] = (6, 8, 12, 4),
    seed: int = 0,
    objective: Any = psnr,
    constraints: tuple[Constraint, ...] = (),
    calibration: Any = None,
    criterion: Any = None,
) -> Evaluator:
    torch.manual_seed(seed)
    model = Chain(widths)
    graph = secateur.trace(model, INPUTS)
    scores = (criterion or secateur.importance.Magnitude())(graph, model)
    return Evaluator(graph, scores, model, objective, constraints, calibration)


def candidate(*kept: int) -> Evaluation:
    sizes = {"c0.0": 8, "c1.0": 12}
    counts = dict(zip(sizes, kept, strict=True))
    return Evaluation({name: 1 - n / sizes[name] for name, n in counts.items()}, 0.5, counts)


FIRST, SECOND = candidate(4, 6), candidate(5, 3)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_url(tmp_path / "search.sqlite")


def opened(url: str, **options: Any) -> StudyLedger:
    return StudyLedger(url, "mine", options.pop("evaluator", None) or evaluator(), **options)


def trials(url: str) -> list[FrozenTrial]:
    with existing_database(url) as storage:
        (study,) = storage.get_all_studies()
        return storage.get_all_trials(study._study_id)


@pytest.fixture(params=["memory", "study"])
def ledger(request: pytest.FixtureRequest, url: str) -> Ledger:
    return MemoryLedger() if request.param == "memory" else opened(url)


MEASURED = [
    Measurement(1.25, (1.0, 1.5), {"a": 2.0, "b": -1e-300}, 3.5),
    Measurement(0.1 + 0.2),
    Measurement(error="Traceback (most recent call last):\n ...\nValueError: no"),
    Measurement(-1e300, constraints={"a": 1 / 3}),
]


@pytest.mark.parametrize("measurement", MEASURED)
def test_what_is_stored_is_known_exactly(ledger: Ledger, measurement: Measurement) -> None:
    assert ledger.get(kept_of(FIRST)) is None
    with ledger.working():
        assert ledger.claim(FIRST)
        ledger.store(FIRST, measurement, 0.0 if measurement.objective is None else measurement.objective)
        assert ledger.get(kept_of(FIRST)) == measurement
        assert not ledger.claim(FIRST)
        assert ledger.get(kept_of(SECOND)) is None


@pytest.mark.parametrize("measurement", MEASURED)
def test_another_process_reads_exactly_the_same(url: str, measurement: Measurement) -> None:
    one, other = opened(url), opened(url)
    with one.working():
        one.claim(FIRST)
        one.store(FIRST, measurement, 0.0 if measurement.objective is None else measurement.objective)
    other.refresh()
    assert other.get(kept_of(FIRST)) == measurement
    assert opened(url).get(kept_of(FIRST)) == measurement


def test_constraints_alone_have_their_margin_as_value_and_no_objective(url: str) -> None:
    alone = evaluator(objective=None, constraints=(Constraint(psnr, at_least=0, name="c"),))
    table = opened(url, evaluator=alone)
    with table.working():
        table.claim(FIRST)
        table.store(FIRST, Measurement(constraints={"c": 4.0}), 4.0)
    assert opened(url, evaluator=alone).get(kept_of(FIRST)) == Measurement(constraints={"c": 4.0})
    assert trials(url)[0].value == 4.0


def test_a_trial_shows_what_a_dashboard_can_show(url: str) -> None:
    table = opened(url, evaluator=evaluator(objective=Minimize(psnr)))
    with table.working():
        table.claim(FIRST)
        table.store(FIRST, Measurement(2.5, seconds=1.5, constraints={"drift": 0.125}), 2.5)
    with existing_database(url) as storage:
        study = optuna.load_study(study_name="mine", storage=storage)
        assert study.direction == optuna.study.StudyDirection.MINIMIZE
        assert study.best_value == 2.5
        assert study.best_params == {"c0.0": 4, "c1.0": 6}
        shown = study.best_trial.user_attrs
    assert (shown["sparsity"], shown["seconds"], shown["constraints"]) == (0.5, 1.5, {"drift": 0.125})
    assert shown["worker"]["pid"] == this_process()["pid"]


def test_wide_graphs_have_no_parameters(url: str) -> None:
    wide = evaluator(widths=(6,) * 40)
    table = opened(url, evaluator=wide)
    kept = {g.name: 3 for g in wide.graph.groups}
    every = Evaluation(dict.fromkeys(kept, 0.5), 0.5, kept)
    with table.working():
        assert table.claim(every)
        table.store(every, MEASURED[0], 1.25)
    assert trials(url)[0].params == {}
    assert opened(url, evaluator=wide).get(kept_of(every)) == MEASURED[0]


# Claims


def test_a_candidate_is_claimed_once(url: str) -> None:
    one, other = opened(url), opened(url)
    with one.working(), other.working():
        assert one.claim(FIRST)
        assert other.claim(SECOND)
        assert not other.claim(FIRST)
        assert not one.claim(SECOND)
        one.store(FIRST, MEASURED[0], 1.25)
        other.refresh()
        assert other.get(kept_of(FIRST)) == MEASURED[0]


def test_of_two_claims_at_the_same_time_the_later_is_withdrawn(url: str) -> None:
    one, other = opened(url), opened(url)
    with one.working(), other.working():
        assert one.claim(FIRST)
        # What the other has read of the study is older than the claim, as when both look before either claims.
        assert not other.claim(FIRST)
    assert [t.state for t in trials(url)] == [TrialState.FAIL, TrialState.FAIL]
    assert opened(url).get(kept_of(FIRST)) is None


def test_claims_without_a_measurement_are_given_up(url: str) -> None:
    one, other = opened(url), opened(url)
    with one.working():
        assert one.claim(FIRST)
    with other.working():
        other.refresh()
        assert other.claim(FIRST)


def test_a_claim_of_a_dead_process_is_taken_over_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = {**this_process(), "pid": gone.pid, "started": 1}
    with monkeypatch.context() as patch:
        patch.setattr("secateur.allocation.study_ledger.this_process", lambda: dead)
        one = opened(url)
    assert one.claim(FIRST)
    other = opened(url)
    with other.working():
        assert other.claim(FIRST)
        other.store(FIRST, MEASURED[0], 1.25)
    # The dead one comes back to life: its measurement doesn't count any more.
    one.store(FIRST, MEASURED[1], 0.3)
    assert one.get(kept_of(FIRST)) is None
    one.refresh()
    assert one.get(kept_of(FIRST)) == MEASURED[0]


def test_which_processes_have_ended() -> None:
    here = this_process()
    assert not has_ended(here)
    if here["machine"] is None:
        pytest.skip("this system doesn't say when a process has started")
    assert has_ended({**here, "started": here["started"] - 1})
    assert not has_ended({**here, "machine": "another", "started": 1})
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = {**here, "pid": child.pid, "started": int(Path(f"/proc/{child.pid}/stat").read_text().split()[21])}
    assert not has_ended(alive)
    child.communicate(b"\n")
    assert has_ended(alive)


# Storages that are no good


@pytest.mark.parametrize(
    ("other", "part"),
    [
        ({"seed": 1}, "scores, weights"),
        ({"widths": (6, 8, 11, 4)}, "channel groups, scores, weights"),
        ({"criterion": secateur.importance.Random(seed=1)}, "scores"),
        ({"objective": Minimize(psnr)}, "objective"),
        ({"objective": lambda m: 1.0}, "objective"),
        ({"objective": psnr_of_another_kind()}, "objective"),
        ({"constraints": (Constraint(psnr, at_least=1),)}, "constraints"),
        ({"calibration": [INPUTS]}, "refit, calibration data"),
    ],
)
def test_a_study_of_another_search(url: str, other: dict[str, Any], part: str) -> None:
    opened(url)
    with pytest.raises(StorageError, match=f"study 'mine' in sqlite:.* belongs to another search: other {part}; give"):
        opened(url, evaluator=evaluator(**other))
    opened(url)


def test_other_calibration_data(url: str) -> None:
    opened(url, evaluator=evaluator(calibration=[INPUTS, (INPUTS, 1)]))
    opened(url, evaluator=evaluator(calibration=(batch for batch in (INPUTS, (INPUTS, 1)))))
    with pytest.raises(StorageError, match="other calibration data; give"):
        opened(url, evaluator=evaluator(calibration=[INPUTS, (INPUTS[1:], 1)]))


def test_functions_as_calibration_data(url: str) -> None:
    opened(url, evaluator=evaluator(calibration=[partial(exercise, INPUTS), psnr]))
    opened(url, evaluator=evaluator(calibration=[partial(exercise, INPUTS.clone()), psnr]))
    for other in ([partial(exercise, INPUTS + 1), psnr], [partial(exercise, INPUTS), exercise]):
        with pytest.raises(StorageError, match="other calibration data; give"):
            opened(url, evaluator=evaluator(calibration=other))


def exercise(inputs: Tensor, model: nn.Module) -> None:
    model(inputs)


def test_bounds_may_change(url: str) -> None:
    opened(url, evaluator=evaluator(constraints=(Constraint(psnr, at_least=1),)))
    opened(url, evaluator=evaluator(constraints=(Constraint(psnr, at_most=2),)))


def test_a_study_of_something_else(url: str) -> None:
    with existing_database_made(url) as storage:
        study = optuna.create_study(study_name="mine", storage=storage)
        study.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StorageError, match="belongs to another search"):
        opened(url)


def existing_database_made(url: str) -> Any:
    StudyLedger(url, "first", evaluator())
    return existing_database(url)


def refused(folder: Path) -> str:
    return "postgresql+psycopg://me:secret@127.0.0.1:1/database?sslpassword=secret"


def no_database(folder: Path) -> str:
    (folder / "notes.txt").write_text("no database at all, but long enough to look at" * 10)
    return database_url(folder / "notes.txt")


UNREACHABLE: dict[str, tuple[Callable[[Path], str], str]] = {
    "refused": (refused, r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/database can't be reached: .*refused"),
    "no folder": (lambda f: database_url(f / "none" / "x.db"), r"x\.db can't be reached: unable to open"),
    "no database": (no_database, r"notes\.txt can't be reached: file is not a database"),
    "scheme": (lambda f: "nosuch://host/x", r"nosuch://host/x is no storage: .*nosuch"),
    "malformed": (lambda f: "postgresql://me:secret@host:port/x", r"postgresql://\.\.\. is no storage"),
    "driver": (lambda f: "mysql+pymysql://host/x", r"mysql\+pymysql://host/x needs the Python package 'pymysql'"),
}


@pytest.mark.parametrize("case", UNREACHABLE.values(), ids=list(UNREACHABLE))
def test_a_storage_that_cannot_be_reached(tmp_path: Path, case: tuple[Callable[[Path], str], str]) -> None:
    make, message = case
    with pytest.raises(StorageError, match=message) as raised:
        opened(make(tmp_path))
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_storage_that_fails_later(url: str, tmp_path: Path) -> None:
    table = opened(url)
    with closing(sqlite3.connect(tmp_path / "search.sqlite")) as connection:
        connection.execute("DROP TABLE trials")
    with pytest.raises(StorageError, match=r"search\.sqlite failed: .* run the search again to go on"):
        table.refresh()


def test_paths_with_odd_characters(tmp_path: Path) -> None:
    url = database_url(tmp_path / "a {b} c%20d.sqlite")
    opened(url)
    assert (tmp_path / "a {b} c%20d.sqlite").exists()
    assert [s.name for s in stored_searches(url)] == ["mine"]


# Looking on


@pytest.fixture
def busy(url: str) -> Iterator[str]:
    """A study with a good, a failed and a running candidate."""
    table = opened(url, job={"model": "package:factory"})
    with table.working():
        for each, measurement in ((FIRST, MEASURED[0]), (SECOND, MEASURED[2])):
            table.claim(each)
            table.store(each, measurement, 1.25)
        table.claim(candidate(1, 1))
        yield url


def test_the_status_of_a_search(busy: str) -> None:
    (status,) = stored_searches(busy)
    assert (status.name, status.measured, status.failed, status.best, status.minimize) == ("mine", 2, 1, 1.25, False)
    me = this_process()
    assert status.workers == (f"{me['host']}:{me['pid']}",)
    assert status.job == {"model": "package:factory"}


def test_the_job_of_a_search(busy: str) -> None:
    assert stored_job(busy, "mine") == {"model": "package:factory"}
    opened(busy)
    assert stored_job(busy, "mine") == {"model": "package:factory"}
    opened(busy, job={"model": "other"})
    assert stored_job(busy, "mine") == {"model": "other"}
    with pytest.raises(StorageError, match=r"no search is called 'yours' in sqlite:.*; there are 'mine'"):
        stored_job(busy, "yours")


def test_a_search_without_a_job(url: str) -> None:
    opened(url)
    with pytest.raises(StorageError, match=r"'mine' in .* has no job that another process could take part in"):
        stored_job(url, "mine")


def test_looking_does_not_make_a_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.sqlite isn't there: no search has been made in it"):
        stored_searches(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_looking_into_another_database_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table notes (text)")
        connection.commit()
    with pytest.raises(StorageError, match=r"other\.sqlite holds no search: none has been made in it"):
        stored_searches(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("notes",)]

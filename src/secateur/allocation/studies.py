"""The searches in a database, for those who look on or want to take part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from secateur.allocation.database import existing_database, shown
from secateur.allocation.process import has_ended
from secateur.errors import StorageError


@dataclass(frozen=True)
class StudyStatus:
    """How far a search is.

    Attributes:
        name: of the study.
        measured: candidates measured, failed ones included.
        failed: candidates whose measurement failed.
        best: the best objective, or the best least margin where there is no objective; None if there is none. The
            candidate may miss a constraint.
        minimize: whether low values are good.
        workers: processes that are measuring, as ``host:pid``.
        job: the description that was stored with the search, if any.
    """

    name: str
    measured: int
    failed: int
    best: float | None
    minimize: bool
    workers: tuple[str, ...]
    job: Mapping[str, Any] | None


def studies(url: str) -> list[StudyStatus]:
    """Every search in a database.

    Raises:
        StorageError: the database can't be reached.
    """
    with existing_database(url) as storage:
        found = [s for s in storage.get_all_studies() if "fingerprint" in s.user_attrs]
        return [_status(storage, s.study_name, s._study_id, s.user_attrs.get("job")) for s in found]


def stored_job(url: str, study: str) -> Mapping[str, Any]:
    """The job that was stored with a study.

    Raises:
        StorageError: the database can't be reached, there is no such study, or no job in it.
    """
    known = {status.name: status for status in studies(url)}
    if study not in known:
        there = f"there are {', '.join(map(repr, known))}" if known else "there are none"
        raise StorageError(f"no search is called {study!r} in {shown(url)}; {there}")
    job = known[study].job
    if job is None:
        raise StorageError(f"search {study!r} in {shown(url)} has no job that another process could take part in")
    return job


def _status(storage: RDBStorage, name: str, study_id: int, job: Mapping[str, Any] | None) -> StudyStatus:
    trials = storage.get_all_trials(study_id, deepcopy=False)
    failed = sum("error" in t.user_attrs for t in trials)
    values = [t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    minimize = storage.get_study_directions(study_id) == [StudyDirection.MINIMIZE]
    best = (min if minimize else max)(values, default=None)
    return StudyStatus(name, len(values) + failed, failed, best, minimize, _workers(trials), job)


def _workers(trials: list[FrozenTrial]) -> tuple[str, ...]:
    running = [t.user_attrs["worker"] for t in trials if t.state == TrialState.RUNNING and "worker" in t.user_attrs]
    return tuple(dict.fromkeys(f"{w['host']}:{w['pid']}" for w in running if not has_ended(w)))

"""The memo table of a search as an Optuna study: one trial per measurement, on disk or on a server.

A claim is a trial that runs. Optuna numbers the trials of a study one by one, under a lock, so when two workers claim a
candidate at the same time, both see both trials, and the one with the higher number withdraws: nothing is measured
twice. A trial that fails without a traceback is no measurement: withdrawn, or abandoned by a worker that died.
"""

from __future__ import annotations

import math
import random
import threading
import time
import uuid
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from secateur.allocation.database import close_database, failures_reported, open_database, shown
from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.allocation.fingerprint import fingerprint
from secateur.allocation.ledger import Kept, kept_of
from secateur.allocation.objective import Minimize
from secateur.allocation.process import has_ended, this_process
from secateur.allocation.quiet import quiet
from secateur.allocation.result import Evaluation
from secateur.errors import StorageError

_MOST_PARAMETERS = 32
"""Up to so many groups a trial has their kept counts as parameters, for Optuna's dashboard; writing more takes long."""

_BEAT = 5
"""Seconds between two signs of life of a worker, at most."""


class StudyLedger:
    """A table of measurements in a database, shared by all processes that open it."""

    def __init__(
        self, url: str, study: str, evaluator: Evaluator, *, job: Mapping[str, Any] | None = None, grace: int = 60
    ) -> None:
        """Open the study, or make it.

        Args:
            url: SQLAlchemy's, of the database.
            study: its name.
            evaluator: what measures the candidates; the study must belong to the same model, scores and metrics.
            job: a description for other workers, as JSON, kept with the study in place of the last one.
            grace: seconds without a sign of life after which another worker's claim is taken over.

        Raises:
            StorageError: the database can't be reached, or the study belongs to another search.
        """
        self._url, self._sizes = url, {g.name: g.size for g in evaluator.graph.groups}
        self._has_objective = evaluator.objective is not None
        self._beat = min(_BEAT, max(1, grace // 2))
        self._me = {**this_process(), "claims": uuid.uuid4().hex}
        self._known: dict[Kept, Measurement] = {}
        self._running: dict[Kept, list[FrozenTrial]] = {}
        self._settled: set[int] = set()
        self._claims: dict[Kept, int] = {}
        self._watched: set[int] = set()
        self._stale_checked = -math.inf
        self._storage = open_database(url, heartbeat=self._beat, grace=grace)
        weakref.finalize(self, close_database, self._storage)
        with failures_reported(url):
            self._study = self._opened(study, minimize=isinstance(evaluator.objective, Minimize))
            self._id = self._storage.get_study_id_from_name(study)
            self._check(fingerprint(evaluator), job)
            self.refresh()

    def _opened(self, study: str, *, minimize: bool) -> optuna.Study:
        direction = StudyDirection.MINIMIZE if minimize else StudyDirection.MAXIMIZE
        with quiet():
            return optuna.create_study(
                storage=self._storage, study_name=study, direction=direction, load_if_exists=True
            )

    def _check(self, own: dict[str, Any], job: Mapping[str, Any] | None) -> None:
        """Make the study this search's, if it is new; else make sure that it is."""
        # In this order: a worker that is opening the study, too, makes its first trial after the fingerprint.
        is_new = not self._study.get_trials(deepcopy=False)
        stored = self._study.user_attrs.get("fingerprint")
        if stored is None and is_new:
            self._study.set_user_attr("fingerprint", own)
            stored = own
        differing = [part for part in own if stored is None or stored.get(part) != own[part]]
        if differing:
            raise StorageError(
                f"study {self._study.study_name!r} in {shown(self._url)} belongs to another search: other "
                f"{', '.join(differing)}; give another study= or storage="
            )
        if job is not None:
            self._study.set_user_attr("job", dict(job))

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, kept: Kept) -> Measurement | None:
        """What is known of a candidate, as of the last time the study was read."""
        return self._known.get(kept)

    def refresh(self) -> None:
        """Read the trials that are new or ran when the study was last read.

        Raises:
            StorageError: the database fails.
        """
        self._running = defaultdict(list)
        with failures_reported(self._url):
            for trial in self._study.get_trials(deepcopy=False):
                if trial.number not in self._settled and "kept" in trial.user_attrs:
                    self._read(trial)

    def _read(self, trial: FrozenTrial) -> None:
        kept = tuple(trial.user_attrs["kept"])
        if not trial.state.is_finished():
            self._running[kept].append(trial)
            return
        self._settled.add(trial.number)
        if trial.state == TrialState.COMPLETE or "error" in trial.user_attrs:
            self._known[kept] = self._measurement(trial)

    def _measurement(self, trial: FrozenTrial) -> Measurement:
        attributes = trial.user_attrs
        interval = attributes.get("interval")
        return Measurement(
            objective=trial.value if self._has_objective and trial.state == TrialState.COMPLETE else None,
            interval=None if interval is None else (interval[0], interval[1]),
            constraints=attributes.get("constraints", {}),
            seconds=attributes.get("seconds", 0.0),
            error=attributes.get("error"),
        )

    # --- claims -----------------------------------------------------------------------------------------------------

    def in_turn(self, candidates: Sequence[Evaluation]) -> Sequence[Evaluation]:
        """The candidates in an order of this worker's own, if there are others, so that few claims meet."""
        if not any(self._running.values()):
            return candidates
        return random.Random(self._me["claims"]).sample(candidates, len(candidates))

    def claim(self, candidate: Evaluation) -> bool:
        """Whether the candidate is now this worker's to measure; not if it is known, or another live worker's.

        Raises:
            StorageError: the database fails.
        """
        kept = kept_of(candidate)
        with failures_reported(self._url):
            if kept in self._known or self._is_held(kept):
                return False
            trial_id = self._storage.create_new_trial(self._id, self._claim_of(candidate))
            self._claims[kept] = trial_id
            self._storage.record_heartbeat(trial_id)
            self.refresh()
            first = next(iter(self._running[kept]), None)
            if kept in self._known or first is None or not self._is_mine(first):
                self._give_up(kept)
                return False
        return True

    def _claim_of(self, candidate: Evaluation) -> FrozenTrial:
        shown_groups = self._sizes if len(self._sizes) <= _MOST_PARAMETERS else {}
        return create_trial(
            state=TrialState.RUNNING,
            params={name: candidate.kept[name] for name in shown_groups},
            distributions={name: IntDistribution(1, size) for name, size in shown_groups.items()},
            user_attrs={"kept": list(kept_of(candidate)), "sparsity": candidate.sparsity, "worker": self._me},
        )

    def _is_mine(self, trial: FrozenTrial) -> bool:
        return bool(trial.user_attrs["worker"]["claims"] == self._me["claims"])

    def _is_held(self, kept: Kept) -> bool:
        """Whether another worker that may be alive is measuring this candidate."""
        held = False
        for trial in self._running.get(kept, ()):
            if has_ended(trial.user_attrs["worker"]):
                self._fail(trial._trial_id)
            else:
                held = True
                self._watch(trial._trial_id)
        return held

    def _watch(self, trial_id: int) -> None:
        """See to it that a trial of a worker that died on another machine ends."""
        if trial_id not in self._watched:
            # Optuna never calls a trial stale that died before its first sign of life. This starts its clock.
            self._watched.add(trial_id)
            self._storage.record_heartbeat(trial_id)
        if time.monotonic() - self._stale_checked > self._beat:
            self._stale_checked = time.monotonic()
            with quiet():
                fail_stale_trials(self._study)

    def _give_up(self, kept: Kept) -> None:
        self._fail(self._claims.pop(kept))

    def _fail(self, trial_id: int) -> None:
        with suppress(UpdateFinishedTrialError):  # another worker was faster
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)

    # --- results ----------------------------------------------------------------------------------------------------

    def store(self, candidate: Evaluation, measurement: Measurement, value: float) -> None:
        """Keep the measurement of a claimed candidate, unless the claim was taken over in the meantime.

        Raises:
            StorageError: the database fails.
        """
        kept = kept_of(candidate)
        trial_id = self._claims[kept]
        with failures_reported(self._url):
            try:
                for key, attribute in _attributes(measurement).items():
                    self._storage.set_trial_user_attr(trial_id, key, attribute)
                state, values = (TrialState.COMPLETE, [value]) if measurement.error is None else (TrialState.FAIL, None)
                self._storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                pass  # this worker was taken for dead; the measurement that counts is the other one's
            else:
                self._known[kept] = measurement
        del self._claims[kept]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Signs of life for all claims, inside; on leaving, claims without a measurement are given up.

        Raises:
            StorageError: the database fails.
        """
        stop = threading.Event()
        pulse = threading.Thread(target=self._pulse, args=(stop,), daemon=True)
        pulse.start()
        try:
            yield
        finally:
            stop.set()
            pulse.join()
            with failures_reported(self._url):
                for kept in tuple(self._claims):
                    self._give_up(kept)

    def _pulse(self, stop: threading.Event) -> None:
        while not stop.wait(self._beat):
            for trial_id in tuple(self._claims.values()):
                try:
                    self._storage.record_heartbeat(trial_id)
                except StorageInternalError:
                    break  # a beat is missed; where the database is gone for good, storing the result says so
        self._storage.remove_session()


def _attributes(measurement: Measurement) -> dict[str, Any]:
    every = {
        "seconds": measurement.seconds,
        "interval": measurement.interval,
        "constraints": dict(measurement.constraints) or None,
        "error": measurement.error,
    }
    return {key: value for key, value in every.items() if value is not None}

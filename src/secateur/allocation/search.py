"""How candidates are measured: each once, one after the other or several at once, kept so that a search survives."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.allocation.ledger import Kept, Ledger, MemoryLedger, kept_of
from secateur.allocation.merit import Merit
from secateur.allocation.objective import Constraint, Objective
from secateur.allocation.result import Evaluation
from secateur.allocation.workers import Inline, Processes, Workers
from secateur.calibration import CalibrationData, as_calibration
from secateur.errors import ConstraintError, SearchError
from secateur.extras import needs
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray
from secateur.recovery.refit import STEPS

if TYPE_CHECKING:
    from secateur.allocation.studies import StudyStatus

DEFAULT_STUDY = "secateur"

_POLL_SECONDS = 0.1
"""Between two looks at what other workers have stored, while waiting for them."""


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        done: candidates answered so far, known ones included.
        total: candidates that the strategy has announced, or ``done`` if it has announced fewer.
        measured: candidates that this process has measured itself.
        failed: candidates whose measurement failed.
        best: the best candidate so far, if any didn't fail; it may miss a constraint.
        seconds: since the search started.
        seconds_left: at the speed so far of all processes; None as long as everything was known already.
    """

    done: int
    total: int
    measured: int
    failed: int
    best: Evaluation | None
    seconds: float
    seconds_left: float | None


@dataclass(frozen=True)
class Search:
    """Where measurements are kept, how many are made at once, and who hears of them.

    With a storage, every measurement is kept as it ends: a search that was killed goes on where it was when it is run
    again, and several processes that run the same search on one storage share its work. Also searches with other
    targets or strategies find in it what has been measured before.

    Attributes:
        storage: a path, of an SQLite file; or a URL of SQLAlchemy, such as ``postgresql://user@host/database``, for
            workers on several machines. None keeps measurements in memory.
        study: name of the Optuna study in the storage; one study belongs to one model, criterion, objective and set of
            constraints.
        jobs: how many candidates are measured at once, each in a process of its own; 1 for this process.
        on_progress: called after every candidate.
        refit_steps: the ``steps`` of each candidate's refit. With those of :func:`secateur.refit`, candidates are
            measured as the result will be; with 0 several times as fast, and ranked nearly alike.
        calibration: what candidates are refitted on, if not on all that the result is: a part of it is quicker.
        job: a description of the search for other workers, as JSON, kept with the study.
        grace: seconds without a sign of life after which the work of a process on another machine is taken over. One
            that has died on the same machine is noticed at once.

    Raises:
        SearchError: a value outside its range.
        CalibrationError: the calibration data is neither an iterable of inputs nor a function.
    """

    storage: str | Path | None = None
    study: str | None = None
    jobs: int = 1
    on_progress: Callable[[Progress], object] | None = None
    refit_steps: int = STEPS
    calibration: CalibrationData | None = None
    job: Mapping[str, Any] | None = None
    grace: int = 60

    def __post_init__(self) -> None:
        for name, least, unit in (("jobs", 1, "processes"), ("grace", 2, "seconds"), ("refit_steps", 0, "steps")):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise SearchError(f"{name} must be a whole number of {unit}, at least {least}; it is {value!r}")
        if self.storage is not None and not isinstance(self.storage, (str, Path)):
            raise SearchError(f"storage must be a path or a URL; it is {self.storage!r}")
        if self.storage is None and self.study is not None:
            raise SearchError(f"study={self.study!r} is the name of a study in a storage; give storage= too")
        if self.calibration is not None:  # a one-shot iterator is read here: every search runs it anew
            object.__setattr__(self, "calibration", as_calibration(self.calibration).source)

    def start(
        self,
        graph: DependencyGraph,
        scores: Mapping[str, FloatArray],
        model: nn.Module,
        objective: Objective | None,
        constraints: Sequence[Constraint],
        calibration: CalibrationData | None,
    ) -> MeasuredSearch:
        """What measures candidates of this model.

        Raises:
            ConstraintError: two constraints have the same name, or something else was given.
            SearchError: candidates are to be refitted, by ``calibration``, but the result isn't.
            StorageError: the storage can't be reached, or the study belongs to another search.
        """
        if self.calibration is not None:
            if calibration is None:
                raise SearchError("Search(calibration=...) refits candidates, not the result: give calibration= too")
            calibration = self.calibration
        evaluator = Evaluator(graph, scores, model, objective, _named_apart(constraints), calibration, self.refit_steps)
        workers = Inline(evaluator) if self.jobs == 1 else Processes(evaluator, self.jobs)
        return MeasuredSearch(evaluator, workers, self._ledger(evaluator), self.on_progress)

    def _ledger(self, evaluator: Evaluator) -> Ledger:
        if self.storage is None or (evaluator.objective is None and not evaluator.constraints):
            return MemoryLedger()
        with needs("optuna", "sqlalchemy", extra="search"):
            from secateur.allocation.database import database_url
            from secateur.allocation.study_ledger import StudyLedger
        url = database_url(self.storage)
        return StudyLedger(url, self.study or DEFAULT_STUDY, evaluator, job=self.job, grace=self.grace)


def stored_job(storage: str | Path, study: str | None = None) -> Mapping[str, Any]:
    """The description of a search that was stored with it, so that another process can take part in it.

    Raises:
        StorageError: the storage can't be reached, there is no such study, or no job in it.
    """
    with needs("optuna", "sqlalchemy", extra="search"):
        from secateur.allocation import studies
        from secateur.allocation.database import database_url
    return studies.stored_job(database_url(storage), study or DEFAULT_STUDY)


def stored_searches(storage: str | Path) -> list[StudyStatus]:
    """Every search in a storage: how far it is, and who works on it.

    Raises:
        StorageError: the storage can't be reached.
    """
    with needs("optuna", "sqlalchemy", extra="search"):
        from secateur.allocation import studies
        from secateur.allocation.database import database_url
    return studies.studies(database_url(storage))


class MeasuredSearch:
    """Measures candidates for strategies, each at most once; see ``problem.Measurements``."""

    def __init__(
        self,
        evaluator: Evaluator,
        workers: Workers,
        ledger: Ledger,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> None:
        """Keep the parts; what is announced and measured is counted from here."""
        self._evaluator, self._workers, self._ledger = evaluator, workers, ledger
        self._merit = Merit(evaluator.objective, evaluator.constraints)
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._announced = self._done = self._fresh = self._measured = self._failed = 0
        self._best: Evaluation | None = None

    @property
    def model(self) -> nn.Module:
        """The dense model."""
        return self._evaluator.model

    @property
    def objective(self) -> Objective | None:
        """The metric to keep high, or low."""
        return self._evaluator.objective

    @property
    def constraints(self) -> Sequence[Constraint]:
        """The bounds on other metrics."""
        return self._evaluator.constraints

    @property
    def calibration(self) -> CalibrationData | None:
        """The data candidates are refitted on before they are measured; None if they aren't refitted."""
        return self._evaluator.calibration

    def expect(self, evaluations: int) -> None:
        """Announce that so many more candidates will be measured."""
        self._announced += evaluations

    def evaluate(self, candidates: Sequence[Evaluation]) -> list[Evaluation]:
        """The same candidates with their objective and constraints, in order.

        Known ones are looked up. The others are measured by this process, or waited for where another one measures
        them; each is stored as it ends.

        Raises:
            CalibrationError: the calibration data is no good for the dense model.
            PlanError: the model can't be copied.
            SearchError: a worker process died.
            StorageError: the storage failed.
        """
        pending = {kept_of(c): c for c in candidates}
        self._settle(pending)
        if pending:
            with self._ledger.working(), self._workers.stopped_by_failure():
                self._measure(pending)
        return [self._completed(c) for c in candidates]

    def _measure(self, pending: dict[Kept, Evaluation]) -> None:
        """Measure, or wait for, all that is pending; leaves it empty."""
        running: dict[Future[Measurement], Evaluation] = {}
        while pending or running:
            self._start(pending, running)
            has_all_it_can = not pending or len(running) == self._workers.slots
            if running:
                ended = wait(running, None if has_all_it_can else _POLL_SECONDS, FIRST_COMPLETED).done
                for future in ended:
                    self._store(running.pop(future), _result(future), pending)
            else:
                time.sleep(_POLL_SECONDS)
            if pending:
                self._ledger.refresh()
                self._settle(pending, fresh=True)

    def _start(self, pending: dict[Kept, Evaluation], running: dict[Future[Measurement], Evaluation]) -> None:
        """Claim what nobody has claimed, as long as there are free slots."""
        for candidate in self._ledger.in_turn(list(pending.values())):
            if len(running) == self._workers.slots:
                return
            if self._ledger.claim(candidate):
                del pending[kept_of(candidate)]
                running[self._workers.submit(candidate.coefficients)] = candidate

    def _store(self, candidate: Evaluation, measurement: Measurement, pending: dict[Kept, Evaluation]) -> None:
        evaluation = self._with(candidate, measurement)
        value = self._merit.margin(evaluation) if evaluation.objective is None else evaluation.objective
        self._ledger.store(candidate, measurement, value)
        self._measured += 1
        pending[kept_of(candidate)] = candidate
        self._settle(pending, fresh=True)

    def _settle(self, pending: dict[Kept, Evaluation], *, fresh: bool = False) -> None:
        """Count and report the pending candidates that are known by now, and take them out."""
        for kept in [kept for kept in pending if self._ledger.get(kept) is not None]:
            self._fresh += fresh
            self._report(self._completed(pending.pop(kept)))

    def _completed(self, candidate: Evaluation) -> Evaluation:
        measurement = self._ledger.get(kept_of(candidate))
        assert measurement is not None
        return self._with(candidate, measurement)

    def _with(self, candidate: Evaluation, measurement: Measurement) -> Evaluation:
        values = measurement.constraints
        satisfied = measurement.error is None and all(c.margin(values[c.name]) >= 0 for c in self.constraints)
        return replace(
            candidate,
            objective=measurement.objective,
            interval=measurement.interval,
            constraints=values,
            satisfied=satisfied,
            seconds=measurement.seconds,
            error=measurement.error,
        )

    def _report(self, evaluation: Evaluation) -> None:
        self._done += 1
        if evaluation.error is not None:
            self._failed += 1
        elif self._best is None or self._merit.rank(evaluation) > self._merit.rank(self._best):
            self._best = evaluation
        if self._on_progress is not None:
            self._on_progress(self._progress())

    def _progress(self) -> Progress:
        total = max(self._announced, self._done)
        seconds = time.monotonic() - self._started
        left = seconds / self._fresh * (total - self._done) if self._fresh else None
        return Progress(self._done, total, self._measured, self._failed, self._best, seconds, left)


def _named_apart(constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    if isinstance(constraints, Constraint) or not all(isinstance(c, Constraint) for c in constraints):
        raise ConstraintError(f"constraints must be a list of Constraint(metric, at_least=...); it is {constraints!r}")
    names = [c.name for c in constraints]
    for name in names:
        if names.count(name) > 1:
            raise ConstraintError(f"{names.count(name)} constraints are called {name!r}; tell them apart with name=")
    return tuple(constraints)


def _result(future: Future[Measurement]) -> Measurement:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise SearchError(
            f"a worker process died while it measured a candidate ({error}); it may have run out of memory: use fewer "
            "jobs. What was measured before is stored if there is a storage"
        ) from error

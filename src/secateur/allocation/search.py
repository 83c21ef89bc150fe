"""How candidates are to be measured: where the measurements are kept, how many at once, and who hears of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from secateur.allocation.evaluator import Evaluator
from secateur.allocation.fingerprint import fingerprint
from secateur.allocation.identity import digest
from secateur.allocation.ledger import Ledger, MemoryLedger
from secateur.allocation.measured_search import MeasuredSearch
from secateur.allocation.merit import Merit
from secateur.allocation.objective import Constraint, Objective
from secateur.allocation.progress import Progress, Tally
from secateur.allocation.targets import Smallest, Target
from secateur.allocation.workers import Inline, Processes
from secateur.calibration import CalibrationData, as_calibration
from secateur.errors import ConstraintError, SearchError
from secateur.extras import needs
from secateur.graph.graph import DependencyGraph
from secateur.metrics.checks import is_whole
from secateur.plan import FloatArray
from secateur.recovery.refit import STEPS

if TYPE_CHECKING:
    from secateur.allocation.studies import StudyStatus

__all__ = ["DEFAULT_STUDY", "MeasuredSearch", "Search", "stored_job", "stored_searches"]

DEFAULT_STUDY = "secateur"


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
            constraints. What is measured in another way is kept in studies of its own: ``"NAME (in full)"``, where
            candidates are measured with less than the result; ``"NAME (loss ...)"`` and ``"NAME (trained ...)"``, where
            weights are trained along.
        jobs: how many candidates are measured at once, each in a process of its own; 1 for this process.
        on_progress: called after every candidate.
        refit_steps: the ``steps`` of each candidate's refit. With those of :func:`secateur.refit`, candidates are
            measured as the result will be; with 0 several times as fast, and ranked nearly alike. A search for the
            smallest model then measures in full what decides it; see :class:`secateur.Smallest`.
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
            if not is_whole(value, least):
                raise SearchError(f"{name} must be a whole number of {unit}, at least {least}; it is {value!r}")
        if self.storage is not None and not isinstance(self.storage, (str, Path)):
            raise SearchError(f"storage must be a path or a URL; it is {self.storage!r}")
        if self.study is not None and not isinstance(self.study, str):
            raise SearchError(f"study must be the name of a study; it is {self.study!r}")
        if self.on_progress is not None and not callable(self.on_progress):
            raise SearchError(f"on_progress must be a function that takes the progress; it is {self.on_progress!r}")
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
        target: Target | None = None,
    ) -> MeasuredSearch:
        """What measures candidates of this model.

        Args:
            graph: what was traced.
            scores: group name to importance, shape (group size,).
            model: the dense model.
            objective: the metric to keep high, or low.
            constraints: bounds on other metrics.
            calibration: what the result will be refitted on.
            target: what the search is for, if it is known; it decides which candidate those who look on see as best.

        Raises:
            ConstraintError: two constraints have the same name, or something else was given.
            SearchError: candidates are to be refitted, by ``calibration``, but the result isn't.
            StorageError: the storage can't be reached, or the study belongs to another search.
        """
        if self.calibration is not None and calibration is None:
            raise SearchError("Search(calibration=...) refits candidates, not the result: give calibration= too")
        # A one-shot iterator is read once, here.
        data = None if calibration is None else as_calibration(calibration).source
        made = partial(Evaluator, graph, scores, model, objective, _named_apart(constraints))
        evaluator = made(data if self.calibration is None else self.calibration, self.refit_steps)
        merit = Merit(objective, evaluator.constraints)
        tally = Tally(merit, self.on_progress, smallest=isinstance(target, Smallest))
        workers = Inline(evaluator) if self.jobs == 1 else Processes(evaluator, self.jobs)
        in_full = None if self._is_full(data) else partial(self._in_full, made(data), tally)
        return MeasuredSearch(evaluator, workers, self._ledger(evaluator), tally, in_full, self._table)

    def _is_full(self, calibration: CalibrationData | None) -> bool:
        """Whether candidates are measured as the result will be."""
        return calibration is None or (self.calibration is None and self.refit_steps == STEPS)

    def _in_full(self, evaluator: Evaluator, tally: Tally) -> MeasuredSearch:
        """What measures single candidates as the result will be: in this process, in a table of their own."""
        return MeasuredSearch(evaluator, Inline(evaluator), self._ledger(evaluator, "in full"), tally)

    def _table(self, name: str, evaluator: Evaluator) -> Ledger:
        """A table of other measurements; others of that name, of other models or by other metrics, are others."""
        depends_on = json.dumps(fingerprint(evaluator), sort_keys=True)
        return self._ledger(evaluator, f"{name} {digest([depends_on.encode()])[:8]}")

    def _ledger(self, evaluator: Evaluator, beside: str | None = None) -> Ledger:
        """The table of the search's own measurements, or of those beside them."""
        if self.storage is None or (evaluator.objective is None and not evaluator.constraints):
            return MemoryLedger()
        with needs("optuna", "sqlalchemy", extra="search"):
            from secateur.allocation.database import database_url
            from secateur.allocation.study_ledger import StudyLedger
        url, study = database_url(self.storage), self.study or DEFAULT_STUDY
        if beside is not None:
            return StudyLedger(url, f"{study} ({beside})", evaluator, grace=self.grace)
        return StudyLedger(url, study, evaluator, job=self.job, grace=self.grace)


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


def _named_apart(constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
    if isinstance(constraints, Constraint) or not all(isinstance(c, Constraint) for c in constraints):
        raise ConstraintError(f"constraints must be a list of Constraint(metric, at_least=...); it is {constraints!r}")
    names = [c.name for c in constraints]
    for name in names:
        if names.count(name) > 1:
            raise ConstraintError(f"{names.count(name)} constraints are called {name!r}; tell them apart with name=")
    return tuple(constraints)

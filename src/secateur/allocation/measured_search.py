"""Measures candidates for strategies: each once, in this process or others, looked up where it is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import replace
from functools import cached_property

from torch import nn

from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.allocation.ledger import Kept, Ledger, MemoryLedger, kept_of
from secateur.allocation.merit import Merit
from secateur.allocation.objective import Constraint, Objective
from secateur.allocation.progress import Tally
from secateur.allocation.result import Evaluation
from secateur.allocation.workers import Inline, Workers
from secateur.calibration import CalibrationData
from secateur.errors import SearchError

_POLL_SECONDS = 0.1
"""Between two looks at what other workers have stored, while waiting for them."""


class MeasuredSearch:
    """Measures candidates for strategies, each at most once; see ``problem.Measurements``."""

    def __init__(
        self,
        evaluator: Evaluator,
        workers: Workers,
        ledger: Ledger,
        tally: Tally | None = None,
        in_full: Callable[[], MeasuredSearch] | None = None,
        table: Callable[[str, Evaluator], Ledger] = lambda _name, _evaluator: MemoryLedger(),
    ) -> None:
        """Keep the parts.

        Args:
            evaluator: measures a candidate.
            workers: where it does.
            ledger: keeps what was measured.
            tally: counts it; a new one if not given.
            in_full: makes what measures candidates as the result will be, if this doesn't.
            table: makes what keeps other measurements beside these, by a name and what makes them.
        """
        self._evaluator, self._workers, self._ledger, self._in_full = evaluator, workers, ledger, in_full
        self._table = table
        self._merit = Merit(evaluator.objective, evaluator.constraints)
        self._tally = tally or Tally(self._merit)

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

    @cached_property
    def full(self) -> MeasuredSearch | None:
        """What measures candidates as the finished model will be; None if this does.

        Raises:
            StorageError: its study belongs to another search.
        """
        return None if self._in_full is None else self._in_full()

    def beside(self, name: str, evaluator: Evaluator, *, counted: bool = False) -> MeasuredSearch:
        """What measures candidates in another way: in this process, in a table of its own beside this one's.

        Args:
            name: what the table's name begins with; the rest says what its measurements depend on.
            evaluator: measures.
            counted: whether those who look on are told of it.

        Raises:
            StorageError: the storage fails.
        """
        tally = self._tally if counted else None
        return MeasuredSearch(evaluator, Inline(evaluator), self._table(name, evaluator), tally, table=self._table)

    def expect(self, evaluations: int) -> None:
        """Announce that so many more candidates will be measured."""
        self._tally.expect(evaluations)

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
        self._tally.measured()
        pending[kept_of(candidate)] = candidate
        self._settle(pending, fresh=True)

    def _settle(self, pending: dict[Kept, Evaluation], *, fresh: bool = False) -> None:
        """Count and report the pending candidates that are known by now, and take them out."""
        for kept in [kept for kept in pending if self._ledger.get(kept) is not None]:
            self._tally.answered(self._completed(pending.pop(kept)), fresh=fresh)

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


def _result(future: Future[Measurement]) -> Measurement:
    try:
        return future.result()
    except BrokenExecutor as error:
        raise SearchError(
            f"a worker process died while it measured a candidate ({error}); it may have run out of memory: use fewer "
            "jobs. What was measured before is stored if there is a storage"
        ) from error

"""How far a search is, for those who look on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from secateur.allocation.merit import Merit
from secateur.allocation.result import Evaluation


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        done: candidates answered so far, known ones included.
        total: candidates that the strategy has announced, or ``done`` if it has announced fewer.
        measured: candidates that this process has measured itself.
        failed: candidates whose measurement failed.
        best: the best candidate so far of those that meet the target; it may miss a constraint. None as long as none
            meets it, such as while a strategy looks at groups one by one. Where the smallest model is asked for, the
            smallest that satisfies every constraint; and of candidates measured in full, once there are any.
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


class Tally:
    """Counts what a search has announced, measured and answered, and reports each answer."""

    def __init__(
        self, merit: Merit, on_progress: Callable[[Progress], object] | None = None, *, smallest: bool = False
    ) -> None:
        """Start counting, and the clock.

        Args:
            merit: the order of candidates.
            on_progress: called after every answer.
            smallest: whether, of those that satisfy every constraint, the smallest is the best.
        """
        self._merit, self._on_progress, self._smallest = merit, on_progress, smallest
        self._started = time.monotonic()
        self._announced = self._done = self._fresh = self._measured = self._failed = 0
        self._best: Evaluation | None = None

    def expect(self, evaluations: int) -> None:
        """So many more candidates will be asked for."""
        self._announced += evaluations

    def measured(self) -> None:
        """This process has measured one more candidate."""
        self._measured += 1

    def answered(self, evaluation: Evaluation, *, fresh: bool) -> None:
        """A candidate is known; ``fresh`` if it wasn't when it was asked for."""
        self._done += 1
        self._fresh += fresh
        if evaluation.error is not None:
            self._failed += 1
        elif evaluation.on_target and (self._best is None or self._rank(evaluation) > self._rank(self._best)):
            self._best = evaluation
        if self._on_progress is not None:
            self._on_progress(self._progress())

    def _rank(self, evaluation: Evaluation) -> tuple[bool, int, float]:
        standing, value = self._merit.rank(evaluation)
        return evaluation.full, standing, evaluation.sparsity if self._smallest and evaluation.satisfied else value

    def _progress(self) -> Progress:
        total = max(self._announced, self._done)
        seconds = time.monotonic() - self._started
        left = seconds / self._fresh * (total - self._done) if self._fresh else None
        return Progress(self._done, total, self._measured, self._failed, self._best, seconds, left)

"""The memo table of a search: what has been measured, and who is measuring what.

Every strategy is a deterministic function of its seed and of what candidates measure. So a table of measurements is all
that a search needs to survive: run again, it is answered from the table up to where it was. Several workers that share
a table run the same search, and each measures what nobody has claimed yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

from secateur.allocation.evaluator import Measurement
from secateur.allocation.result import Evaluation

Kept: TypeAlias = tuple[int, ...]
"""What a candidate is known by: the channels that every group keeps, in the graph's order."""


def kept_of(candidate: Evaluation) -> Kept:
    """The candidate's key."""
    return tuple(candidate.kept.values())


class Ledger(Protocol):
    """A table of measurements."""

    def get(self, kept: Kept) -> Measurement | None:
        """What is known of a candidate, as of the last ``refresh``, ``claim`` or ``store``."""
        ...

    def refresh(self) -> None:
        """Read what others have stored."""
        ...

    def in_turn(self, candidates: Sequence[Evaluation]) -> Sequence[Evaluation]:
        """The candidates in the order in which this worker had best claim them."""
        ...

    def claim(self, candidate: Evaluation) -> bool:
        """Whether the candidate is now this worker's to measure; not if it is known, or another's."""
        ...

    def store(self, candidate: Evaluation, measurement: Measurement, value: float) -> None:
        """Keep the measurement of a claimed candidate.

        Args:
            candidate: what was measured.
            measurement: the result.
            value: what to show for it: the objective, or the least margin where there is none.
        """
        ...

    @contextmanager
    def working(self) -> Iterator[None]:
        """Shows others that this worker is alive, inside; on leaving, claims without a measurement are given up."""
        ...


class MemoryLedger:
    """A table in memory, for one process."""

    def __init__(self) -> None:
        self._known: dict[Kept, Measurement] = {}

    def get(self, kept: Kept) -> Measurement | None:
        """What is known of a candidate."""
        return self._known.get(kept)

    def refresh(self) -> None:
        """There are no others."""

    def in_turn(self, candidates: Sequence[Evaluation]) -> Sequence[Evaluation]:
        """As they are."""
        return candidates

    def claim(self, candidate: Evaluation) -> bool:
        """Whether it isn't known."""
        return kept_of(candidate) not in self._known

    def store(self, candidate: Evaluation, measurement: Measurement, value: float) -> None:
        """Keep the measurement."""
        self._known[kept_of(candidate)] = measurement

    @contextmanager
    def working(self) -> Iterator[None]:
        """There is nobody to show it to."""
        yield

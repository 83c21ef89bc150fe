"""Equal counts that neither blocks nor ties can express, satisfied index by index, and what follows from that."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from secateur.graph.labels import NONE, EqualCounts, Facts, Labels
from secateur.graph.solution import Solution


def equate(
    facts: Facts, solution: Solution, failed: Sequence[EqualCounts], constraints: Sequence[EqualCounts]
) -> list[EqualCounts]:
    """Satisfy failed constraints the plain way, and those that fail in turn because of what now must stay.

    However far that reaches, along a stack of layers say, each constraint is looked at only when something that it
    counts has been pinned: linear in their number.

    Args:
        facts: the trace's, which take the equalities and what is pinned.
        solution: the present one; what is pinned is marked in it.
        failed: what ``Settled`` couldn't take in.
        constraints: all that there are.

    Returns:
        Those that are satisfied now.
    """
    done: dict[int, EqualCounts] = {}
    queue = deque(failed)
    counting: _Counting | None = None
    while queue:
        constraint = queue.popleft()
        if id(constraint) in done:
            continue
        done[id(constraint)] = constraint
        pinned = _equate(facts, solution, constraint)
        if len(pinned):
            counting = counting or _Counting(solution, constraints)
            queue.extend(other for other in counting.any_of(pinned) if _is_lopsided(solution, other))
    return list(done.values())


def _equate(facts: Facts, solution: Solution, constraint: EqualCounts) -> Labels:
    """Let a constraint's entries lose the same indices, or none where one can't lose any; the channels pinned."""
    entries = constraint.entries
    shortest = min(entries, key=lambda e: len(e.labels))
    base = shortest.labels
    divisible = all(len(e.labels) % len(base) == 0 for e in entries)
    if divisible and all(_free(solution, constraint)):
        for entry in entries:
            facts.equate(entry.labels.reshape(-1, len(base)), base, constraint.reason)
        return np.zeros(0, dtype=np.int64)
    for entry in entries:
        facts.fix(entry.labels, f"equal in number to what must stay: {constraint.reason}")
    channels = np.unique(np.concatenate([_channels(solution, entry.labels) for entry in entries]))
    pinned: Labels = channels[~solution.fixed[channels]]
    solution.fixed[pinned] = True
    return pinned


def _is_lopsided(solution: Solution, constraint: EqualCounts) -> bool:
    """Whether one side can't lose any index and another can."""
    free = _free(solution, constraint)
    return any(free) and not all(free)


def _free(solution: Solution, constraint: EqualCounts) -> list[bool]:
    """Whether each entry has an index that may leave."""
    return [not solution.fixed[_channels(solution, entry.labels)].all() for entry in constraint.entries]


def _channels(solution: Solution, labels: Labels) -> Labels:
    return np.asarray(solution.channel_of[labels[labels != NONE]])


class _Counting:
    """Which constraints count a channel."""

    def __init__(self, solution: Solution, constraints: Sequence[EqualCounts]) -> None:
        self._constraints = constraints
        channels = [_channels(solution, e.labels) for c in constraints for e in c.entries]
        numbers = [number for number, c in enumerate(constraints) for _ in c.entries]
        flat, number = np.concatenate(channels), np.repeat(numbers, [len(found) for found in channels])
        order = np.argsort(flat, kind="stable")
        self._channels, self._numbers = flat[order], number[order]

    def any_of(self, channels: Labels) -> list[EqualCounts]:
        """The constraints that count any of these channels."""
        first, last = (np.searchsorted(self._channels, channels, side) for side in ("left", "right"))
        found = {n for a, b in zip(first.tolist(), last.tolist(), strict=True) for n in self._numbers[a:b].tolist()}
        return [self._constraints[number] for number in sorted(found)]

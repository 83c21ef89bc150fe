"""Equal counts as blocks within groups and ties between them."""

from __future__ import annotations

from collections.abc import Collection
from math import gcd

import numpy as np
from numpy.typing import NDArray

from secateur.graph.labels import NONE, EqualCounts, Labels
from secateur.graph.solution import NO_GROUP, Solution


class Settled:
    """The constraints of one solution that blocks and ties can express, taken in one by one."""

    def __init__(self, solution: Solution) -> None:
        self._solution = solution
        # One entry more than there are labels or channels: NONE, which is -1, finds no channel and no group.
        self._channel_of = np.append(solution.channel_of, NONE)
        self._group_of = np.append(solution.group_of, NO_GROUP)
        self._blocks = [np.zeros(size, dtype=np.int64) for size in solution.sizes]
        self._tie = list(range(len(solution.sizes)))
        self._settled: dict[int, int] = {}

    def satisfied(self, constraint: EqualCounts) -> bool:
        """Take in a constraint if blocks and ties can express it; False if its indices must be equated."""
        rows = self._rows_of_one_group(constraint)
        if rows is not None:
            group, positions = rows
            inside = np.zeros(len(self._blocks[group]), dtype=np.int64)
            inside[positions] = np.arange(1, len(positions) + 1)[:, None]
            cells = _equal_cells(_cut(self._blocks[group], inside))
            if cells is not None:
                self._blocks[group] = cells
            return cells is not None
        ordered = [np.sort(self._channel_of[entry.labels]) for entry in constraint.entries]
        weights = [entry.weight for entry in constraint.entries]
        if len(set(weights)) == 1 and all(np.array_equal(ordered[0], other) for other in ordered[1:]):
            return True
        if all(self._group_of[channels].max() == NO_GROUP for channels in ordered):
            return True
        subsets: dict[int, dict[bytes, Labels]] = {}
        amounts: list[dict[int, int]] = []
        for channels, weight in zip(ordered, weights, strict=True):
            parts = self._parts(channels)
            if parts is None:
                return False
            amounts.append({group: weight * times * len(positions) for group, (positions, times) in parts.items()})
            for group, (positions, _) in parts.items():
                subsets.setdefault(group, {})[positions.tobytes()] = positions
        if len({amount.get(NO_GROUP, 0) for amount in amounts}) > 1:
            return False
        subsets.pop(NO_GROUP, None)
        if all(amount == amounts[0] for amount in amounts[1:]):
            # All entries have as much of every group, so that each group by itself keeps them equal.
            return self._partition({group: known for group, known in subsets.items() if len(known) > 1}, tied=False)
        return self._partition(subsets, tied=True)

    def _rows_of_one_group(self, constraint: EqualCounts) -> tuple[int, Labels] | None:
        """The group, and positions in it, shape (rows, columns), of the plainest constraint: disjoint rows of a group.

        It is what splitting an axis into heads, or into the groups of a norm, asks for.
        """
        first = constraint.entries[0]
        if any(e.weight != first.weight or e.labels.shape != first.labels.shape for e in constraint.entries):
            return None
        channels = self._channel_of[np.stack([entry.labels.ravel() for entry in constraint.entries])]
        groups = self._group_of[channels]
        group = int(groups.flat[0])
        if group == NO_GROUP or np.count_nonzero(groups != group):
            return None
        positions = self._solution.position[channels]
        # Each but once.
        if np.bincount(positions.ravel()).max() > 1:
            return None
        return group, positions

    def _parts(self, ordered: Labels) -> dict[int, tuple[Labels, int]] | None:
        """Of channels in ascending order: by group, positions and how often each occurs; None if not equally often."""
        distinct, times = _runs(ordered)
        groups = self._group_of[distinct]
        found: dict[int, tuple[Labels, int]] = {}
        for group in set(groups.tolist()):
            mine = groups == group
            if group == NO_GROUP:
                found[NO_GROUP] = (np.zeros(int(times[mine].sum()), dtype=np.int64), 1)
                continue
            if times[mine].min() != times[mine].max():
                return None
            found[group] = (self._solution.position[distinct[mine]], int(times[mine][0]))
        return found

    def _partition(self, subsets: dict[int, dict[bytes, Labels]], *, tied: bool) -> bool:
        refined = {}
        for group, known in subsets.items():
            blocks = self._refined(group, known.values())
            if blocks is None:
                return False
            refined[group] = blocks
        for group, blocks in refined.items():
            self._blocks[group] = blocks
        if tied:
            first = min(self._root(group) for group in subsets)
            for group in subsets:
                self._tie[self._root(group)] = first
        return True

    def _refined(self, group: int, subsets: Collection[Labels]) -> Labels | None:
        """The group's blocks once these subsets must keep equal fractions; None if blocks can't express it.

        The blocks are the cells into which the subsets cut the old ones: if all cells keep equal numbers, so do unions
        of equally many.
        """
        cells = self._blocks[group]
        inside = np.zeros(len(cells), dtype=np.int64)
        for number, subset in enumerate(subsets, start=1):
            if np.count_nonzero(inside[subset]):
                cells = _cut(cells, inside)
                inside[:] = 0
            inside[subset] = number
        return _equal_cells(_cut(cells, inside))

    def kept(self, labels: Labels) -> dict[int, int] | None:
        """How many of these labels stay, as multiples of the fraction that each tie keeps (tie -1: those that stay).

        None if it depends on which channels leave: where a group's block is counted in part.
        """
        channels = self._solution.channel_of[labels[labels != NONE]]
        groups = self._solution.group_of[channels]
        result = {-1: int((groups == NO_GROUP).sum() + (labels == NONE).sum())}
        for group in sorted(set(groups.tolist()) - {NO_GROUP}):
            blocks = self._blocks[group]
            times = np.bincount(self._solution.position[channels[groups == group]], minlength=len(blocks))
            if times.min() != times.max():
                _, first = np.unique(blocks, return_index=True)
                if (times != times[first][blocks]).any():
                    return None
            root = self._root(group)
            result[root] = result.get(root, 0) + int(times.sum())
        return result

    def _root(self, group: int) -> int:
        while self._tie[group] != group:
            group = self._tie[group]
        return group

    def coarsen(self, tie: int, parts: int) -> bool:
        """Let a tie keep only multiples of one in ``parts``; False, and nothing changes, if it then can't shrink.

        Once every constraint is taken in.
        """
        self._settled = self._settled or self._units()
        units = gcd(self._settled[tie], parts)
        if units > 1:
            self._settled[tie] = units
        return units > 1

    def _units(self) -> dict[int, int]:
        units: dict[int, int] = {}
        for group, blocks in enumerate(self._blocks):
            root = self._root(group)
            units[root] = gcd(units.get(root, 0), len(blocks) // (int(blocks.max()) + 1))
        return units

    def stuck(self) -> NDArray[np.bool_]:
        """The groups, by number, whose tie can't shrink: even one step would take everything."""
        units = self._units()
        return np.array([units[self._root(g)] == 1 for g in range(len(self._tie))], dtype=bool)

    def finish(self) -> None:
        """Write blocks, ties and units into the solution."""
        units = self._settled or self._units()
        self._solution.blocks = [_by_first(blocks) for blocks in self._blocks]
        self._solution.ties = [self._root(g) for g in range(len(self._tie))]
        self._solution.units = [units[tie] for tie in self._solution.ties]


def _runs(ordered: Labels) -> tuple[Labels, Labels]:
    """Distinct values of an ascending array, and how often each occurs."""
    first = np.ones(len(ordered) + 1, dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:-1])
    bounds = np.flatnonzero(first)
    return ordered[bounds[:-1]], bounds[1:] - bounds[:-1]


def _cut(cells: Labels, parts: Labels) -> Labels:
    """The cells cut by parts: the same number for equal pairs of both."""
    _, finer = np.unique(cells * (int(parts.max()) + 1) + parts, return_inverse=True)
    return np.asarray(finer)


def _equal_cells(cells: Labels) -> Labels | None:
    """The cells, if all are equally large, and larger than one."""
    sizes = np.bincount(cells)
    return None if sizes.min() != sizes.max() or sizes[0] == 1 else cells


def _by_first(blocks: Labels) -> Labels:
    """The same blocks, numbered in the order of their first channels."""
    if not blocks.any():
        return blocks
    _, first, inverse = np.unique(blocks, return_index=True, return_inverse=True)
    rank: Labels = np.argsort(np.argsort(first))
    return rank[inverse]

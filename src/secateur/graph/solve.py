"""Solve what a trace learned: which labels leave together, and how their counts hang together.

Equalities are solved once, by connected components. Equal counts (pieces of a ``chunk``, groups of a norm, heads of a
fixed number) become blocks within a group or ties between groups where they can; where they can't, the indices
concerned are equated one by one, which always satisfies them, and the components are solved again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from secateur.graph.labels import NONE, EqualCounts, Facts, Labels
from secateur.graph.tracer import Trace

_NO_GROUP = -1


@dataclass(slots=True, eq=False)
class Solution:
    """Labels solved.

    Attributes:
        channel_of: shape (labels,); the connected component of each label.
        fixed: shape (components,); whether it must stay.
        group_of: shape (components,); the group of each component, -1 if it must stay or touches no parameter.
        position: shape (components,); the component's number within its group.
        sizes: channels per group.
        blocks: per group, the block of each channel.
        ties: per group, the smallest group it is tied with.
        units: per group, in how many equal steps it can shrink.
    """

    channel_of: Labels
    fixed: NDArray[np.bool_]
    group_of: Labels
    position: Labels
    sizes: Labels
    blocks: list[Labels] = field(default_factory=list)
    ties: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)


def solve(trace: Trace) -> Solution:
    """Channels, groups, blocks and ties of a trace; nearly linear in the number of labels and equalities."""
    facts = trace.facts
    axis_of = np.repeat(np.arange(len(trace.axes)), [len(axis.labels) for axis in trace.axes])
    open_counts = list(facts.counts)
    while True:
        solution = _group(facts, axis_of)
        _fix_lonely(facts, solution)
        settled = _Counts(solution)
        failed = [c for c in open_counts if not settled.satisfied(c)]
        stuck = [] if failed else settled.stuck()
        if not failed and not stuck:
            settled.finish()
            return solution
        for constraint in failed:
            _equate(facts, solution, constraint)
        for channels in stuck:
            labels = np.flatnonzero(np.isin(solution.channel_of, channels))
            facts.fix(labels, "tied in number to axes with no common divisor, so that they can only shrink together")
        done = set(map(id, failed))
        open_counts = [c for c in open_counts if id(c) not in done]


def _group(facts: Facts, axis_of: Labels) -> Solution:
    channel_of = _connected(facts)
    count = int(channel_of.max()) + 1 if len(channel_of) else 0
    fixed = np.zeros(count, dtype=bool)
    for note in facts.fixed:
        fixed[channel_of[note.labels]] = True
    parameters = channel_of[: len(axis_of)]
    signature = _signatures(parameters, axis_of, count)
    prunable = ~fixed & (np.bincount(parameters, minlength=count) > 0)
    group_of = np.full(count, _NO_GROUP)
    first = np.full(count, len(channel_of))
    np.minimum.at(first, channel_of, np.arange(len(channel_of)))
    members = np.flatnonzero(prunable)
    members = members[np.argsort(first[members], kind="stable")]
    _, start, inverse = np.unique(signature[members], axis=0, return_index=True, return_inverse=True)
    # Groups in the order of their first label, not of their signature.
    rank = np.empty(len(start), dtype=np.int64)
    rank[np.argsort(start)] = np.arange(len(start))
    group_of[members] = rank[inverse.ravel()]
    position = np.full(count, -1)
    sizes = np.bincount(group_of[members], minlength=len(start))
    order = np.argsort(group_of[members], kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.zeros(0, dtype=np.int64)
    position[members[order]] = np.arange(len(members)) - np.repeat(starts, sizes)
    return Solution(channel_of, fixed, group_of, position, sizes)


def _connected(facts: Facts) -> Labels:
    if not facts.equal:
        return np.arange(facts.size)
    rows = np.concatenate([a for a, _ in facts.equal])
    columns = np.concatenate([b for _, b in facts.equal])
    graph = sparse.coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(facts.size, facts.size))
    _, channel_of = connected_components(graph, directed=False)
    return np.asarray(channel_of, dtype=np.int64)


def _signatures(parameters: Labels, axis_of: Labels, count: int) -> NDArray[np.uint64]:
    """A 128-bit fingerprint per channel of the multiset of parameter axes that it touches, shape (channels, 2)."""
    random = np.random.default_rng(0).integers(0, 2**63, size=(int(axis_of.max(initial=-1)) + 1, 2), dtype=np.uint64)
    incidence = sparse.csr_array(
        (np.ones(len(parameters), dtype=np.uint64), (parameters, axis_of)), shape=(count, len(random))
    )
    return np.asarray(incidence @ random)


def _fix_lonely(facts: Facts, solution: Solution) -> None:
    """A group of one channel has nothing to choose from."""
    lonely = np.flatnonzero(solution.sizes == 1)
    channels = np.flatnonzero(np.isin(solution.group_of, lonely))
    if len(channels):
        facts.fix(np.flatnonzero(np.isin(solution.channel_of, channels)), "the only channel of its kind")
        _release(solution, channels)


def _release(solution: Solution, channels: Labels) -> None:
    """Take channels, whole groups of them, out of the groups, and number the groups anew."""
    gone = np.unique(solution.group_of[channels])
    solution.fixed[channels] = True
    solution.group_of[channels] = _NO_GROUP
    solution.position[channels] = -1
    renumber = np.full(len(solution.sizes) + 1, _NO_GROUP)
    kept = np.setdiff1d(np.arange(len(solution.sizes)), gone)
    renumber[kept] = np.arange(len(kept))
    solution.group_of = renumber[solution.group_of]
    solution.sizes = solution.sizes[kept]


class _Counts:
    """Equal counts as blocks within groups and ties between them, built up constraint by constraint."""

    def __init__(self, solution: Solution) -> None:
        self._solution = solution
        self._blocks = [np.zeros(size, dtype=np.int64) for size in solution.sizes]
        self._tie = list(range(len(solution.sizes)))

    def satisfied(self, constraint: EqualCounts) -> bool:
        """Take in a constraint if blocks and ties can express it; False if its indices must be equated."""
        entries = [self._channels(entry.labels) for entry in constraint.entries]
        ordered = [np.sort(channels) for channels in entries]
        same_weight = len({entry.weight for entry in constraint.entries}) == 1
        if same_weight and all(np.array_equal(ordered[0], other) for other in ordered[1:]):
            return True
        groups = [self._groups(channels) for channels in entries]
        if all((g == _NO_GROUP).all() for g in groups):
            return True
        if not all(len(np.unique(g)) == 1 and g[0] != _NO_GROUP for g in groups):
            return False
        subsets: dict[int, list[Labels]] = {}
        for group, channels in zip(groups, entries, strict=True):
            positions, times = np.unique(self._solution.position[channels], return_counts=True)
            if len(np.unique(times)) != 1:
                return False
            known = subsets.setdefault(int(group[0]), [])
            if not any(np.array_equal(positions, other) for other in known):
                known.append(positions)
        if len(subsets) == 1 and all(len(known) == 1 for known in subsets.values()):
            return True
        return self._partition(subsets)

    def _channels(self, labels: Labels) -> Labels:
        """Channel of each label, -1 for no label."""
        return np.where(labels == NONE, NONE, self._solution.channel_of[labels])

    def _groups(self, channels: Labels) -> Labels:
        return np.where(channels == NONE, _NO_GROUP, self._solution.group_of[channels])

    def _partition(self, subsets: dict[int, list[Labels]]) -> bool:
        refined = {}
        for group, known in subsets.items():
            blocks = self._refined(group, known)
            if blocks is None:
                return False
            refined[group] = blocks
        for group, blocks in refined.items():
            self._blocks[group] = blocks
        first = min(self._root(group) for group in subsets)
        for group in subsets:
            self._tie[self._root(group)] = first
        return True

    def _refined(self, group: int, subsets: list[Labels]) -> Labels | None:
        """The group's blocks once these subsets must keep equal fractions; None if blocks can't express it.

        The blocks are the cells into which the subsets cut the old ones: if all cells keep equal numbers, so do unions
        of equally many.
        """
        cells = self._blocks[group]
        for subset in subsets:
            inside = np.zeros(len(cells), dtype=np.int64)
            inside[subset] = 1
            _, cells = np.unique(2 * cells + inside, return_inverse=True)
        sizes = np.bincount(cells)
        return None if len(np.unique(sizes)) != 1 or sizes[0] == 1 else np.asarray(cells)

    def _root(self, group: int) -> int:
        while self._tie[group] != group:
            group = self._tie[group]
        return group

    def _units(self) -> dict[int, int]:
        units: dict[int, int] = {}
        for group, blocks in enumerate(self._blocks):
            root = self._root(group)
            units[root] = gcd(units.get(root, 0), len(blocks) // (int(blocks.max()) + 1))
        return units

    def stuck(self) -> list[Labels]:
        """Channels of ties that can't shrink: even one step would take everything."""
        roots = [root for root, units in self._units().items() if units == 1]
        stuck = [g for g in range(len(self._tie)) if self._root(g) in roots]
        return [np.flatnonzero(self._solution.group_of == g) for g in stuck]

    def finish(self) -> None:
        """Write blocks, ties and units into the solution."""
        units = self._units()
        self._solution.blocks = [_by_first(blocks) for blocks in self._blocks]
        self._solution.ties = [self._root(g) for g in range(len(self._tie))]
        self._solution.units = [units[tie] for tie in self._solution.ties]


def _by_first(blocks: Labels) -> Labels:
    """The same blocks, numbered in the order of their first channels."""
    _, first, inverse = np.unique(blocks, return_index=True, return_inverse=True)
    rank: Labels = np.argsort(np.argsort(first))
    return rank[inverse]


def _equate(facts: Facts, solution: Solution, constraint: EqualCounts) -> None:
    """Satisfy a constraint the plain way: its entries lose the same indices, or none where one can't lose any."""
    entries = constraint.entries
    shortest = min(entries, key=lambda e: len(e.labels))
    base = shortest.labels
    free = [(~solution.fixed[solution.channel_of[e.labels[e.labels != NONE]]]).any() for e in entries]
    divisible = all(len(e.labels) % len(base) == 0 for e in entries)
    if not all(free) or not divisible:
        for entry in entries:
            facts.fix(entry.labels, f"equal in number to what must stay: {constraint.reason}")
        return
    for entry in entries:
        facts.equate(entry.labels.reshape(-1, len(base)), base, constraint.reason)

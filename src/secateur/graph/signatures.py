"""Which channels touch the same parameter axes: a fingerprint per channel, and a number per fingerprint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.graph.labels import Labels


def signatures(parameters: Labels, axis_of: Labels, count: int) -> NDArray[np.uint64]:
    """A 128-bit fingerprint per channel of the multiset of parameter axes that it touches, shape (channels, 2)."""
    axes = np.arange(2 * (int(axis_of.max(initial=-1)) + 1), dtype=np.uint64).reshape(2, -1)
    sums = np.zeros((2, count), dtype=np.uint64)
    for of_channel, of_axis in zip(sums, _scrambled(axes), strict=True):
        np.add.at(of_channel, parameters, of_axis[axis_of])
    return sums.T


def _scrambled(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that look random, one for each: the output function of the generator splitmix64."""
    mixed = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def numbered(rows: NDArray[np.uint64]) -> Labels:
    """The same number for equal rows, counted in the order of their first."""
    # Neighbours are mostly alike, so that few are left to sort.
    starts = np.flatnonzero(_changes(rows))
    few = rows[starts]
    order = np.lexsort(few.T)
    new = _changes(few[order])
    # The first of equal rows comes first, since the sort is stable.
    kind = np.cumsum(new) - 1
    rank = np.argsort(np.argsort(order[new]))
    numbers = np.empty(len(few), dtype=np.int64)
    numbers[order] = rank[kind]
    return np.repeat(numbers, np.diff(starts, append=len(rows)))


def _changes(rows: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether each row differs from the one before it; the first does."""
    changes = np.ones(len(rows), dtype=bool)
    changes[1:] = (rows[1:, 0] != rows[:-1, 0]) | (rows[1:, 1] != rows[:-1, 1])
    return changes

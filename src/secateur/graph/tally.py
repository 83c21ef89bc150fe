"""How often each value occurs in each of many arrays, counted for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.graph.batches import batches

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tally:
    """Pairs of an array and a value that occurs in it, in order of arrays, then of values.

    Attributes:
        rows: shape (pairs,); the array's number.
        values: shape (pairs,); the value.
        counts: shape (pairs,); how often it occurs there.
    """

    rows: IntArray
    values: IntArray
    counts: IntArray


def tally(arrays: Sequence[IntArray], kind_of: IntArray) -> Tally:
    """Count the kinds of what is in the arrays; linear, but for a sort of the runs of equal neighbours.

    Args:
        arrays: indices into ``kind_of``, in any shape; -1 is its last entry.
        kind_of: what each index counts as, -1 or above.
    """
    columns: list[tuple[IntArray, ...]] = [(np.zeros(0, dtype=np.int64),) * 3]
    before = 0
    for part in batches(arrays, [array.size for array in arrays]):
        rows, values, counts = _tally(part, kind_of)
        columns.append((rows + before, values, counts))
        before += len(part)
    return Tally(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _tally(arrays: Sequence[IntArray], kind_of: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    flat = [array.ravel() for array in arrays]
    lengths = np.array([len(array) for array in flat], dtype=np.int64)
    kinds = kind_of[np.concatenate([np.zeros(0, dtype=np.int64), *flat])] + 1
    stride = int(kinds.max(initial=0)) + 1
    keys = np.repeat(np.arange(len(flat)) * stride, lengths) + kinds
    # Neighbours are mostly alike, so that little is left to sort once runs are single entries.
    ends = _ends(keys)
    heads, runs = keys[ends], np.diff(ends, prepend=-1)
    order = np.argsort(heads, kind="stable")
    heads, runs = heads[order], runs[order]
    last = _ends(heads)
    rows, values = np.divmod(heads[last], stride)
    return rows, values - 1, np.diff(np.cumsum(runs)[last], prepend=0)


def _ends(values: IntArray) -> IntArray:
    """Where each run of equal neighbours ends."""
    ends = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=ends[:-1])
    return np.flatnonzero(ends)

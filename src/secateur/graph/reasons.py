"""Why indices must stay: the first few reasons that reach each parameter axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.graph.labels import Labels, Noted


def reasons_by_row(
    notes: Sequence[Noted], channel_of: Labels, rows: Labels, channels: Labels, count: int, most: int
) -> list[tuple[str, ...]]:
    """The first distinct reasons of each row's channels; nearly linear in the number of labels noted and of pairs.

    Args:
        notes: labels and the reason why they must stay.
        channel_of: shape (labels,); the channel of each label.
        rows: shape (pairs,), ascending; a row's number.
        channels: shape (pairs,); a channel that belongs to the row.
        count: number of rows.
        most: how many reasons to give per row.

    Returns:
        Per row, at most ``most`` reasons, in the order in which they were first noted anywhere.
    """
    number: dict[str, int] = {}
    numbers = [number.setdefault(note.reason, len(number)) for note in notes]
    texts = list(number)
    noted = np.concatenate([np.zeros(0, dtype=np.int64), *(channel_of[note.labels] for note in notes)])
    reason = np.repeat(numbers, [len(note.labels) for note in notes]).astype(np.int64)
    # A row's first reasons are among its channels' first ones.
    table = _first_values(noted, reason, int(channel_of.max(initial=-1)) + 1, len(texts), most)[channels]
    alike = np.zeros(len(rows), dtype=bool)
    alike[1:] = (np.diff(rows) == 0) & (table[1:] == table[:-1]).all(axis=1)
    rows, table = rows[~alike], table[~alike]
    first = _first_values(np.repeat(rows, most), table.ravel(), count, len(texts), most)
    return [tuple(texts[i] for i in row if i < len(texts)) for row in first.tolist()]


def _first_values(rows: Labels, values: Labels, count: int, none: int, most: int) -> Labels:
    """The lowest distinct values of each row, shape (count, most), padded with ``none``, which no value exceeds."""
    pairs = np.unique(rows * (none + 1) + values)
    rows, values = np.divmod(pairs, none + 1)
    rank = np.arange(len(pairs)) - np.searchsorted(rows, rows)
    table = np.full((count, most), none)
    kept = rank < most
    table[rows[kept], rank[kept]] = values[kept]
    return table

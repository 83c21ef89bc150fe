"""Arrays a few at a time: joined all at once, those of a long loop would take more memory than the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")

_MOST = 2**20


def batches(items: Sequence[Item], sizes: Sequence[int]) -> Iterator[Sequence[Item]]:
    """Consecutive items of about a million elements together, or one that is larger.

    Args:
        items: the items.
        sizes: how many elements each has.
    """
    start = total = 0
    for end, size in enumerate(sizes):
        if end > start and total + size > _MOST:
            yield items[start:end]
            start, total = end, 0
        total += size
    if start < len(items):
        yield items[start:]

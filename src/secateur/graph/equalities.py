"""Connected components of pairwise equalities, in arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from secateur.graph.batches import batches
from secateur.graph.labels import Labels


def representatives(pairs: Sequence[tuple[Labels, Labels]], count: int) -> Labels:
    """The smallest label that each label equals, directly or through others, shape (labels,).

    Every round hangs each tree of labels below the smallest that it is equated with, then makes all trees flat. A few
    rounds are enough for what a trace gives, and nothing is sorted: a fraction of the time of a general graph
    library's components, which a small model would notice.

    Args:
        pairs: arrays whose labels at equal places are equal.
        count: the number of labels.
    """
    parent = np.arange(count)
    for part in batches(pairs, [len(a) for a, _ in pairs]):
        parent = _joined(parent, *(np.concatenate(side) for side in zip(*part, strict=True)))
    return parent


def _joined(parent: Labels, a: Labels, b: Labels) -> Labels:
    """Flat trees once more labels are equal."""
    while True:
        a, b = parent[a], parent[b]
        differ = a != b
        if not np.count_nonzero(differ):
            return parent
        a, b = a[differ], b[differ]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        above = parent[parent]
        while not np.array_equal(above, parent):
            parent, above = above, above[above]

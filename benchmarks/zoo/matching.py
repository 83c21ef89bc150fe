"""Which indices of a weight were kept, found by its values alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

_LINES = 24
"""So many lines across an axis vote for the index that they came from."""

_FOUND = 0.9
"""The least share of a smaller tensor's values that must be found in the dense one."""


def kept_indices(dense: torch.Tensor, small: torch.Tensor, axis: int) -> NDArray[np.int64] | None:
    """For every index of ``small``'s axis, the index of ``dense``'s that it was; None if it can't be told.

    Both have as many dimensions, and values that don't repeat.
    """
    if dense.ndim != small.ndim or small.numel() == 0:
        return None
    values = dense.detach().double().numpy()
    lines = np.moveaxis(small.detach().double().numpy(), axis, 0).reshape(small.shape[axis], -1)
    lines = lines[:, np.linspace(0, lines.shape[1] - 1, min(_LINES, lines.shape[1])).astype(np.int64)]
    order = np.argsort(values, axis=None)
    ranked = values.ravel()[order]
    place = _nearest(ranked, lines)
    found = np.isclose(ranked[place], lines, rtol=1e-6, atol=1e-300)
    if found.mean() < _FOUND:
        return None
    came_from = np.where(found, np.unravel_index(order[place], values.shape)[axis], -1)
    return np.array([_most_common(row[row >= 0]) for row in came_from], dtype=np.int64)


def _nearest(ranked: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    right = (
        np.clip(np.searchsorted(ranked, wanted), 1, len(ranked) - 1) if len(ranked) > 1 else np.zeros_like(wanted, int)
    )
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(ranked[left] - wanted) <= np.abs(ranked[right] - wanted), left, right)


def _most_common(values: NDArray[np.int64]) -> int:
    return int(np.bincount(values).argmax()) if len(values) else -1

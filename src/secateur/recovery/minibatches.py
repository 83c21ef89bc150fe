"""Calibration data as minibatches, one run of a model each; inputs can be cut into pieces of their rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from secateur.calibration import CalibrationData, as_calibration
from secateur.calibration.runs import Run
from secateur.errors import CalibrationError
from secateur.graph.entry_point import call_forward


def minibatches(calibration: CalibrationData, batch: int | None, seed: int) -> list[Run]:
    """One run per minibatch.

    Args:
        calibration: inputs, functions of a model, or one function.
        batch: rows of a minibatch: those of every item of inputs are shuffled and cut; None leaves items as they are.
        seed: of the shuffling.

    Raises:
        CalibrationError: the data is empty, or there is something in it that can't be cut.
    """
    data = as_calibration(calibration)
    if batch is None:
        return list(data.minibatches())
    generator = torch.Generator().manual_seed(seed)
    pieces = (piece for item in data.items() for piece in _pieces(item, batch, generator))
    return [partial(call_forward, inputs=piece) for piece in pieces]


def _pieces(item: Any, batch: int, generator: torch.Generator) -> Iterator[Any]:
    """The item's rows, shuffled, in pieces of at most ``batch``."""
    if callable(item):
        raise CalibrationError(_uncut("a calibration function"))
    lengths = {len(leaf) if leaf.dim() else 0 for leaf in tree_leaves(item) if isinstance(leaf, Tensor)}
    if len(lengths) != 1 or not max(lengths):
        found = f"first dimensions of lengths {sorted(lengths)}" if lengths else "no tensors"
        raise CalibrationError(_uncut(f"an item of the calibration data with {found}"))
    for rows in torch.randperm(lengths.pop(), generator=generator, device="cpu").split(batch):
        yield tree_map_only(Tensor, partial(_taken, rows=rows), item)


def _taken(tensor: Tensor, rows: Tensor) -> Tensor:
    return tensor[rows.to(tensor.device)]


def _uncut(what: str) -> str:
    return (
        f"batch= cuts tensors along their first dimension, which {what} doesn't allow; leave it out, and give one"
        " input or one function of the model per minibatch"
    )

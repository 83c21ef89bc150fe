"""What a table of measurements belongs to: measurements of another model, or by another metric, mean nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from secateur.allocation.evaluator import Evaluator
from secateur.allocation.objective import Minimize, metric_name
from secateur.calibration import CalibrationData
from secateur.plan import FloatArray, named_tensors


def fingerprint(evaluator: Evaluator) -> dict[str, Any]:
    """What all measurements of an evaluator depend on, part by part, as JSON."""
    groups = evaluator.graph.groups
    objective = evaluator.objective
    aim = "minimize" if isinstance(objective, Minimize) else "maximize"
    return {
        "channel groups": _digest(f"{g.name} {g.size};".encode() for g in groups),
        "scores": _digest(_order(evaluator.scores[g.name]) for g in groups),
        "weights": _digest(_bytes(t) for t in named_tensors(evaluator.model).values()),
        "refit": None if evaluator.calibration is None else f"{evaluator.refit_steps} steps",
        "calibration data": _data(evaluator.calibration),
        "objective": None if objective is None else f"{aim} {metric_name(objective)}",
        "constraints": [f"{c.name}{' (confident)' if c.confident else ''}" for c in evaluator.constraints],
    }


def _data(calibration: CalibrationData | None) -> str | None:
    """What the rows are, where they can be looked at without running a user's code."""
    if not isinstance(calibration, Sequence):
        return None
    return _digest(_bytes(value) for value in tree_leaves(calibration) if isinstance(value, torch.Tensor))


def _order(scores: FloatArray) -> bytes:
    """The order of a group's channels: all that a candidate depends on, and the same where rounding differs."""
    return np.argsort(-scores, kind="stable").astype(np.int64).tobytes()


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]

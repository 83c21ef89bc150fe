"""What a table of measurements belongs to: measurements of another model, or by another metric, mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils._pytree import keystr, tree_leaves_with_path

from secateur.allocation.evaluator import Evaluator
from secateur.allocation.identity import content, digest, identity, parts
from secateur.allocation.objective import Constraint, Minimize
from secateur.calibration import CalibrationData
from secateur.plan import FloatArray, named_tensors


def fingerprint(evaluator: Evaluator) -> dict[str, Any]:
    """What all measurements of an evaluator depend on, part by part, as JSON."""
    groups = evaluator.graph.groups
    objective = evaluator.objective
    aim, metric = ("minimize", objective.metric) if isinstance(objective, Minimize) else ("maximize", objective)
    return {
        "channel groups": digest(f"{g.name} {g.size};".encode() for g in groups),
        "scores": digest(_order(evaluator.scores[g.name]) for g in groups),
        "weights": digest(content(t) for t in named_tensors(evaluator.model).values()),
        "refit": None if evaluator.calibration is None else f"{evaluator.refit_steps} steps",
        "calibration data": _data(evaluator.calibration),
        "objective": None if objective is None else f"{aim} {identity(metric)}",
        "constraints": [_constraint(c) for c in evaluator.constraints],
    }


def _constraint(constraint: Constraint) -> str:
    """What is measured for it; its bounds are held against that when it is read."""
    confident = " (confident)" if constraint.confident else ""
    return f"{constraint.name}{confident}, {identity(constraint.metric)}"


def _data(calibration: CalibrationData | None) -> str | None:
    """What the rows are, where they can be looked at without running a user's code."""
    if not isinstance(calibration, Sequence):
        return None
    return digest(piece for path, value in tree_leaves_with_path(calibration) for piece in _seen(keystr(path), value))


def _seen(place: str, value: Any) -> Iterator[bytes]:
    """A tensor's type and shape count, too: the same bytes may stand for other rows."""
    yield place.encode()
    yield from parts(value)


def _order(scores: FloatArray) -> bytes:
    """The order of a group's channels: all that a candidate depends on, and the same where rounding differs."""
    return np.argsort(-scores, kind="stable").astype(np.int64).tobytes()

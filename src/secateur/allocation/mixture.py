"""A path that can't meet the target, bent towards the uniform one until it can."""

from __future__ import annotations

import numpy as np

from secateur.allocation.budget import Path, meet, uniform_path
from secateur.allocation.problem import Problem
from secateur.errors import InfeasibleError
from secateur.graph.cost import IntArray

_WEIGHTS = (0.25, 0.5, 0.75)
"""Of the uniform path in the mixtures that are tried, before that path itself."""


def meet_near(problem: Problem, path: Path) -> IntArray:
    """Levels, shape (variables,), that meet the target on this path, or on one between it and the uniform one.

    Targets of components can contradict a path: an interface that shrinks much takes more of a component than was
    asked for. Then the uniform path is mixed in, as little as is needed.

    Raises:
        InfeasibleError: not even the uniform path meets the target; the message names the nearest that can be met.
    """
    uniform = uniform_path(problem)
    for candidate in (path, *(_mixed(path, uniform, weight) for weight in _WEIGHTS)):
        try:
            return meet(problem, candidate)
        except InfeasibleError:
            continue
    return meet(problem, uniform)


def _mixed(path: Path, uniform: Path, weight: float) -> Path:
    """A path between two; moments of the first count by their place among all of them, as a fraction."""
    moments = np.sort(np.concatenate([np.zeros(0), *path]))
    places = [np.searchsorted(moments, p, side="right") / len(moments) for p in path]
    return [(1 - weight) * place + weight * u for place, u in zip(places, uniform, strict=True)]

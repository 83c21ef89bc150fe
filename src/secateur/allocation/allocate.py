"""Find the pruning coefficients that meet a target."""

from __future__ import annotations

from collections.abc import Mapping

from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.sparsity import Sparsity
from secateur.allocation.strategy import Strategy
from secateur.allocation.uniform import Uniform
from secateur.errors import TargetError
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray, checked_scores

_UNIFORM = Uniform()


def allocate(
    graph: DependencyGraph, scores: Mapping[str, FloatArray], target: Sparsity, *, strategy: Strategy = _UNIFORM
) -> AllocationResult:
    """One pruning coefficient per channel group, such that the target is met exactly as surgery will count it.

    Args:
        graph: what :func:`secateur.trace` returned.
        scores: group name to importance, shape (group size,); higher stays longer.
        target: what fraction to remove, of what, to which tolerance.
        strategy: how to find the coefficients.

    Returns:
        The coefficients, the sparsities they achieve, and the candidates that were looked at.

    Raises:
        ScoreError: scores are missing, have the wrong size or aren't finite.
        TargetError: the target can't be met; the message names the nearest that can.
    """
    if not isinstance(target, Sparsity):
        raise TargetError(f"the target must be a Sparsity, such as Sparsity(0.5), not {target!r}")
    return strategy(Problem(graph, checked_scores(graph, scores), target))

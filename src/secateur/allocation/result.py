"""What every allocation strategy returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.allocation.sparsity import Sparsity


@dataclass(frozen=True)
class Evaluation:
    """One candidate that a strategy looked at.

    Attributes:
        coefficients: group name to pruning coefficient, in [0, 1).
        sparsity: what it removes of the whole model, as a fraction of the target's cost.
        objective: the application's metric for it, if the strategy measured it.
    """

    coefficients: Mapping[str, float]
    sparsity: float
    objective: float | None = None


@dataclass(frozen=True)
class AllocationResult:
    """Pruning coefficients that meet a target.

    Attributes:
        coefficients: group name to pruning coefficient, exactly ``1 - kept / size``.
        kept: group name to the number of channels that stay.
        sparsity: achieved for the whole model, as a fraction of the target's cost.
        component_sparsities: achieved for every component, likewise; 0 for one that has no cost.
        target: what was asked for.
        history: the candidates that the strategy looked at, in order.
    """

    coefficients: Mapping[str, float]
    kept: Mapping[str, int]
    sparsity: float
    component_sparsities: Mapping[str, float]
    target: Sparsity
    history: tuple[Evaluation, ...] = ()

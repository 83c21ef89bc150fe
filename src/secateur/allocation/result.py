"""What every allocation strategy returns."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from secateur.allocation.targets import Target


@dataclass(frozen=True)
class Evaluation:
    """One candidate that a strategy looked at.

    Attributes:
        coefficients: group name to pruning coefficient, in [0, 1).
        sparsity: what it removes of the whole model, as a fraction of the target's cost.
        kept: group name to the number of channels that stay.
        objective: the application's metric for it, if it was measured.
        interval: confidence interval of a noisy objective.
        constraints: constraint name to the value held against its bounds.
        satisfied: whether it was measured, or needn't be, and every constraint holds.
        seconds: that measuring took.
        error: traceback of an objective or constraint that failed.
        on_target: whether it meets the target; what a strategy measures of one group alone doesn't.
        full: whether it was measured as the finished model is, in a search that measures candidates with less.
    """

    coefficients: Mapping[str, float]
    sparsity: float
    kept: Mapping[str, int]
    objective: float | None = None
    interval: tuple[float, float] | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    satisfied: bool = True
    seconds: float = 0.0
    error: str | None = None
    on_target: bool = True
    full: bool = False


@dataclass(frozen=True)
class AllocationResult:
    """Pruning coefficients that meet a target.

    Attributes:
        coefficients: group name to pruning coefficient, exactly ``1 - kept / size``.
        kept: group name to the number of channels that stay.
        sparsity: achieved for the whole model, as a fraction of the target's cost.
        component_sparsities: achieved for every component, likewise; 0 for one that has no cost. Of multiply-adds
            where the target is of latency.
        target: what was asked for.
        history: the candidates that the strategy looked at, in order.
        best: the candidate that was chosen, as it was measured; None if nothing was.
        weights: parameter and buffer name to the dense model's tensors as they were trained along with the
            coefficients; None where a strategy leaves them alone. Surgery is then to be made on a model with these.
    """

    coefficients: Mapping[str, float]
    kept: Mapping[str, int]
    sparsity: float
    component_sparsities: Mapping[str, float]
    target: Target
    history: tuple[Evaluation, ...] = ()
    best: Evaluation | None = None
    weights: Mapping[str, Tensor] | None = None

    @property
    def measured(self) -> int:
        """How many candidates were measured, those that failed included."""
        return sum(bool(e.constraints) or e.objective is not None or e.error is not None for e in self.history)

    def dense(self, model: nn.Module) -> nn.Module:
        """What surgery is to be made on: the dense model itself, or a copy with the weights that were trained along."""
        if self.weights is None:
            return model
        trained = copy.deepcopy(model)
        trained.load_state_dict({**trained.state_dict(), **self.weights})
        return trained

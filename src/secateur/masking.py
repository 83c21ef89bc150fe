"""Run the original model as if channels were gone: zero them wherever they are summed over.

Where channels are contracted (a matrix product, a convolution, a sum), zeroing is the same as removal, whatever came
before: with a parameter's consumer axis, it is zeroing the consumer's slices, and it also covers channels that meet
other activations (queries and keys).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secateur.errors import VerificationError
from secateur.graph.components import ComponentMap
from secateur.graph.labels import NONE, Factor, Factors, Labels
from secateur.graph.rules import OpCall
from secateur.graph.tracer import Tracer

# Random operators that also compute with activations: replayed, they would hide what the smaller model computes.
_OF_ACTIVATIONS = ("dropout", "attention", "rrelu")


def _draws(func: Any) -> bool:
    """Whether an operator's result is random numbers."""
    return torch.Tag.nondeterministic_seeded in func.tags and not any(w in func.name() for w in _OF_ACTIVATIONS)


class MaskingTracer(Tracer):
    """Traces a second run of the model with the same labels, and zeroes the removed ones where they are summed over.

    Args:
        model: the original model.
        components: as in the first trace.
        removed: shape (labels,); whether each label of the first trace leaves.
    """

    def __init__(self, model: nn.Module, components: ComponentMap, removed: NDArray[np.bool_]) -> None:
        super().__init__(model, components)
        self._removed = removed
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._random: list[tuple[torch.Tensor, torch.Tensor]] = []

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator, remembering what it overwrites and what it draws."""
        if func._schema.is_mutable:
            self._before = [(t, t.clone()) for t in args if isinstance(t, torch.Tensor)]
        result = super().execute(func, args, kwargs)
        if _draws(func):
            drawn = result if isinstance(result, tuple) else (result,)
            self._random.extend((t.clone(), t) for t in drawn)
        return result

    def adjust(self, call: OpCall, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Run a contraction again with its removed indices zero."""
        masked: dict[int, torch.Tensor] = {}
        for mask in call.masked:
            stays = self._stays(mask.factor.labels)
            if not stays.all():
                zeroed = masked.get(id(mask.tensor), mask.tensor)
                gone = ~_broadcast(mask.factor, stays, mask.tensor)
                masked[id(mask.tensor)] = zeroed.masked_fill(gone, 0)
        if not masked:
            return result
        if func._schema.is_mutable:
            for tensor, value in self._before:
                tensor.copy_(value)
        args = [masked.get(id(a), a) if isinstance(a, torch.Tensor) else a for a in args]
        kwargs = {k: masked.get(id(a), a) if isinstance(a, torch.Tensor) else a for k, a in kwargs.items()}
        return func(*args, **kwargs)

    def set_labels(self, tensor: torch.Tensor, factors: Factors) -> None:
        """Replace the labels of a tensor; what was drawn just now may be in the caller's hands as another object."""
        super().set_labels(tensor, factors)
        for _, drawn in self._random[-1:]:
            if drawn is not tensor and drawn.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
                super().set_labels(drawn, factors)

    def draws(self) -> list[torch.Tensor]:
        """What random operators drew, in order, without the removed indices."""
        return [self.without_removed(value, self.labels_of(tensor)) for value, tensor in self._random]

    def without_removed(self, tensor: torch.Tensor, factors: Factors) -> torch.Tensor:
        """The tensor without its removed indices; every row of a split axis loses the same number."""
        for factor in factors:
            stays = self._stays(factor.labels)
            rows = stays.reshape(-1, stays.shape[-1])
            kept = [np.flatnonzero(row) for row in rows]
            if len({len(k) for k in kept}) != 1:
                raise VerificationError(
                    "rows of a split axis lose different numbers of channels; the plan isn't balanced"
                )
            index = np.stack(kept).reshape(*stays.shape[:-1], -1)
            target = list(tensor.shape)
            target[factor.free] = index.shape[-1]
            tensor = torch.gather(tensor, factor.free, _broadcast(factor, index, tensor).expand(target))
        return tensor

    def _stays(self, labels: Labels) -> NDArray[np.bool_]:
        if labels.max() >= len(self._removed):
            raise VerificationError(
                "two runs of the entry point on the same inputs took different paths; make it deterministic"
            )
        return np.where(labels == NONE, True, ~self._removed[labels])


class ReplayTracer(Tracer):
    """Traces the smaller model, giving it the random numbers that the original drew."""

    def __init__(self, model: nn.Module, components: ComponentMap, draws: list[torch.Tensor]) -> None:
        super().__init__(model, components)
        self._draws = list(draws)

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator; a random one gives what was recorded."""
        result = super().execute(func, args, kwargs)
        if _draws(func):
            for tensor in result if isinstance(result, tuple) else (result,):
                value = self._draws.pop(0) if self._draws else None
                if value is None or value.shape != tensor.shape:
                    found = "nothing" if value is None else f"shape {tuple(value.shape)}"
                    raise VerificationError(
                        f"the smaller model draws random numbers of shape {tuple(tensor.shape)} where the original, "
                        f"without the removed channels, draws {found}"
                    )
                tensor.copy_(value)
        return result


def _broadcast(factor: Factor, values: NDArray[Any], tensor: torch.Tensor) -> torch.Tensor:
    """Values over a factor's dimensions, as a tensor that broadcasts against ``tensor``."""
    shape = [1] * tensor.dim()
    for dim, size in zip(factor.dims, values.shape, strict=True):
        shape[dim] = size
    order = np.argsort(factor.dims)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(order)).reshape(shape)).to(tensor.device)

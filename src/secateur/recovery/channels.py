"""Which dimensions of what a run makes count channels, and which channels the smaller model still has.

Both are read off a traced run of the dense model: a channel's labels lead back to the parameters that make it, and the
plan says which of their indices stay. So the channels of a narrower output are known, whatever lies between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.calibration.runs import Run
from secateur.graph.components import ComponentMap
from secateur.graph.labels import NONE, Factor, Factors
from secateur.graph.record import Trace
from secateur.graph.solve import solve
from secateur.graph.trace import run_traced
from secateur.graph.tracer import Tracer
from secateur.plan import PruningPlan
from secateur.recovery.observer import Observer

_Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Selection:
    """Indices that stay along one dimension; of an axis split into rows, such as heads, those of every row.

    Attributes:
        dims: the rows' dimensions, and last the one along which indices stay.
        index: shape (size of dims[0], ..., indices that stay), ascending in every row.
    """

    dims: tuple[int, ...]
    index: NDArray[np.int64]

    def of(self, tensor: Tensor) -> Tensor:
        """The part of a tensor that stays."""
        shape = [1] * tensor.dim()
        for dim, size in zip(self.dims, self.index.shape, strict=True):
            shape[dim] = size
        ordered = np.ascontiguousarray(self.index.transpose(np.argsort(self.dims)))
        target = list(tensor.shape)
        target[self.dims[-1]] = self.index.shape[-1]
        index = torch.from_numpy(ordered.reshape(shape)).to(tensor.device)
        return tensor.gather(self.dims[-1], index.expand(target))

    def same(self, other: Selection) -> bool:
        """Whether the other keeps the same."""
        return self.dims == other.dims and np.array_equal(self.index, other.index)


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor.

    Attributes:
        dims: the dimensions that count channels, ascending; the others count examples, steps, places.
        selections: what the smaller model has of them; nothing for dimensions that stay whole.
        unpaired: why it isn't known what the smaller model has; empty if it is.
    """

    dims: tuple[int, ...]
    selections: tuple[Selection, ...] = ()
    unpaired: str = ""

    def kept(self, tensor: Tensor) -> Tensor:
        """The part of the dense model's tensor that the smaller model has, too."""
        for selection in self.selections:
            tensor = selection.of(tensor)
        return tensor

    def rows(self, tensor: Tensor) -> Tensor:
        """The tensor as a matrix, shape (rows, channels)."""
        last = tensor.movedim(self.dims, tuple(range(-len(self.dims), 0)))
        return last.reshape(-1, prod(tensor.shape[d] for d in self.dims))

    def same(self, other: Channels) -> bool:
        """Whether the other has the same channels."""
        pairs = zip(self.selections, other.selections, strict=False)
        same_number = len(self.selections) == len(other.selections)
        return self.dims == other.dims and same_number and all(one.same(two) for one, two in pairs)


def traced_channels(
    dense: Observer, run: Run, components: ComponentMap, plan: PruningPlan | None
) -> list[tuple[str, int, Channels]]:
    """Name, number of dimensions and channels of everything that a run of the dense model makes, in order.

    Raises:
        TraceError: the run fails.
    """
    tracer = Tracer(dense.model, components)
    tracer.whole_at = frozenset(() if plan is None else plan.whole).__contains__

    def look(tensor: Tensor) -> tuple[int, Factors]:
        return int(tensor.dim()), tracer.labels_of(tensor)

    made = dense.observe(lambda model: run_traced(model, run, tracer), look)
    fate = None if plan is None else _Fate.of(tracer.trace, plan)
    return [(name, dims, _channels(factors, fate)) for name, (dims, factors) in made]


def _channels(factors: Factors, fate: _Fate | None) -> Channels:
    dims = tuple(sorted({dim for factor in factors for dim in factor.dims}))
    if fate is None:
        return Channels(dims)
    if any(fate.is_scaled(factor) for factor in factors):
        return Channels(dims, unpaired="surgery has scaled it, to make up for a division by the root of its width")
    selections = [fate.selection(factor) for factor in factors if fate.shrinks(factor)]
    known = tuple(s for s in selections if s is not None)
    reason = "" if len(known) == len(selections) else "its rows lose different numbers of channels"
    return Channels(dims, known, reason)


@dataclass(frozen=True, eq=False)
class _Fate:
    """What the plan does to every label of a trace, shape (labels,): whether it leaves, and whether it is scaled."""

    leaves: _Flags
    scaled: _Flags

    @classmethod
    def of(cls, trace: Trace, plan: PruningPlan) -> _Fate:
        solution = solve(trace)
        leaves, scaled = (np.zeros(trace.facts.size, dtype=bool) for _ in range(2))
        for axis in trace.axes:
            leaves[axis.labels[plan.removed(axis.parameter, axis.axis)]] = True
            if axis.axis in plan.axis_scales(axis.parameter):
                scaled[axis.labels] = True
        # The parameters' labels come first; others, of tensors made on the way, share the fate of their channel.
        own = sum(len(axis.labels) for axis in trace.axes)
        for flags in (leaves, scaled):
            by_channel = np.zeros(len(solution.fixed), dtype=bool)
            by_channel[solution.channel_of[:own][flags[:own]]] = True
            flags[own:] = by_channel[solution.channel_of[own:]]
        return cls(leaves, scaled)

    def is_scaled(self, factor: Factor) -> bool:
        return bool(self._of(self.scaled, factor).any())

    def shrinks(self, factor: Factor) -> bool:
        return bool(self._of(self.leaves, factor).any())

    def selection(self, factor: Factor) -> Selection | None:
        """What stays; None if the rows lose different numbers."""
        stays = ~self._of(self.leaves, factor)
        rows = [np.flatnonzero(row) for row in stays.reshape(-1, stays.shape[-1])]
        if _lengths(rows) != 1:
            return None
        return Selection(factor.dims, np.stack(rows).reshape(*stays.shape[:-1], -1))

    def _of(self, flags: _Flags, factor: Factor) -> _Flags:
        found: _Flags = np.where(factor.labels == NONE, False, flags[factor.labels])
        return found


def _lengths(rows: Iterable[NDArray[np.int64]]) -> int:
    """How many different lengths there are."""
    return len({len(row) for row in rows})

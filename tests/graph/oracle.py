"""An oracle that knows no rule: perturb one index of an input, see which elements of the outputs move.

A :class:`Case` runs one operator on small float64 tensors. ``observe`` runs it under the tracer with fresh labels on
every axis of every input; the checks then hold what the labels claim against what the operator does:

- perturbing an index moves no element that doesn't carry its label, unless the label was summed over or mixed;
- perturbing all indices that leave together moves every element that carries their label;
- on inputs from which a channel is gone, the operator gives the original's outputs without that channel's elements
  (contracted channels are zeroed in the original where the rule says so);
- no two indices are tied for nothing: removing one of them alone fails or gives something else;
- exactly the expected indices are pinned, and exactly the expected axes mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._pytree import tree_flatten

from secateur.graph.components import component_map
from secateur.graph.kernels import plain_kernels
from secateur.graph.labels import NONE, Factor, Factors, Labels
from secateur.graph.rules import RULES, OpCall
from secateur.graph.tracer import Tracer

Axis = tuple[int, int]
"""(input, axis)"""
Place = tuple[Axis, int]
"""One index of an axis."""
Kept = Mapping[Axis, NDArray[np.int64]]
"""The indices that stay, of every axis of every input."""
ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Case:
    """One operator on some inputs.

    Attributes:
        ops: the operators that the run must reach, separated by blanks, without ``aten.``.
        run: the operator, as called by a user: a function of the inputs and of what ``adapt`` gives.
        inputs: tensors, or shapes of normally distributed float64 ones.
        note: what is special about this case.
        pinned: input axis to the indices that must stay.
        mixed: input axes whose indices are mixed.
        adapt: integer arguments of ``run``, from the kept indices; without it ``run`` needs none.
        deaf: inputs whose values never matter (``ones_like``), only their shape.
        random: whether the operator draws random numbers: only shapes are compared after removal.
        rejects: whether it draws until a number suits its inputs, so that all later ones depend on these.
        coarse: why indices that could leave alone leave together; by default none do.
        flexible: which output dimensions follow the input, as the tracer tells a reshape's rule.
        resizable: whether integer arguments are attributes of a module.
        weights: inputs that are parameters.
        macs: multiply-adds, where torch's own counter doesn't know the operator.
    """

    ops: str
    run: Callable[..., Any]
    inputs: Sequence[tuple[int, ...] | torch.Tensor]
    note: str = ""
    pinned: Mapping[Axis, slice | Sequence[int]] = field(default_factory=dict)
    mixed: Sequence[Axis] = ()
    adapt: Callable[[Kept], dict[str, Any]] | None = None
    deaf: Sequence[int] = ()
    random: bool = False
    rejects: bool = False
    coarse: str = ""
    flexible: frozenset[int] | None = None
    resizable: bool = False
    weights: Sequence[int] = ()
    macs: int | None = None

    def __str__(self) -> str:
        return f"{self.ops} {self.note}".strip().replace(" ", "-")

    @cached_property
    def tensors(self) -> list[torch.Tensor]:
        """The inputs."""
        generator = torch.Generator().manual_seed(1)
        return [
            item if isinstance(item, torch.Tensor) else torch.randn(item, generator=generator, dtype=torch.float64)
            for item in self.inputs
        ]

    def dense(self) -> Kept:
        """Every index of every axis."""
        return {(i, a): np.arange(n) for i, t in enumerate(self.tensors) for a, n in enumerate(t.shape)}

    def outputs(
        self,
        tensors: Sequence[torch.Tensor],
        kept: Kept,
        seed: int = 0,
        mode: AbstractContextManager[Any] | None = None,
    ) -> list[torch.Tensor]:
        """Run, under ``mode``, on copies of ``tensors``, of which these indices were kept."""
        extra = self.adapt(kept) if self.adapt else {}
        copies = [t.clone() for t in tensors]
        _seed(seed)
        with plain_kernels(), mode or nullcontext():
            return flat(self.run(*copies, **extra))


def _seed(seed: int) -> None:
    """Of the CPU alone: for each other device ``torch.manual_seed`` writes down a stack, which takes milliseconds."""
    torch.default_generator.manual_seed(seed)


def flat(result: Any) -> list[torch.Tensor]:
    return [item for item in tree_flatten(result)[0] if isinstance(item, torch.Tensor)]


# --- what the rules claim ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Mask:
    """Zero the removed indices of one tensor, the nth of the nth operator of the run."""

    call: int
    position: int
    shape: tuple[int, ...]
    factor: Factor


class _Recorder(Tracer):
    """Remembers the operators run, and what their rules want masked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, component_map(model, None))
        self.ran: list[str] = []
        self.masks: list[Mask] = []

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = str(func.overloadpacket)
        in_place = name not in RULES and name[:-1] in RULES
        self.ran.append((name[:-1] if in_place else name).removeprefix("aten."))
        return super().execute(func, args, kwargs)

    def adjust(self, call: OpCall, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        places = [id(item) for item in flat((args, kwargs))]
        for masked in call.masked:
            shape = tuple(masked.tensor.shape)
            self.masks.append(Mask(len(self.ran) - 1, places.index(id(masked.tensor)), shape, masked.factor))
        return result


@dataclass(frozen=True, eq=False)
class Observation:
    """What the rules claim of one case.

    Attributes:
        case: the case.
        inputs: labels of every axis of every input; none along axes of length one.
        factors: labels of every output.
        base: the outputs.
        leaves_with: shape (labels,); the smallest label that leaves together with each.
        pinned: shape (labels,); whether it must stay.
        mixed: shape (labels,); whether an operator mixes it.
        masks: what must be zeroed for masking to equal removal.
        recorder: the trace itself.
    """

    case: Case
    inputs: dict[Axis, Labels]
    factors: list[Factors]
    base: list[torch.Tensor]
    leaves_with: Labels
    pinned: NDArray[np.bool_]
    mixed: NDArray[np.bool_]
    masks: list[Mask]
    recorder: _Recorder

    @cached_property
    def channels(self) -> dict[int, list[Place]]:
        """The input indices that leave together, by their label."""
        found: dict[int, list[Place]] = {}
        for axis, labels in self.inputs.items():
            for index, channel in enumerate(self.leaves_with[labels]):
                found.setdefault(int(channel), []).append((axis, index))
        return found

    @cached_property
    def summed(self) -> NDArray[np.bool_]:
        """Whether a label is summed over somewhere, shape (labels,)."""
        flags = np.zeros(len(self.leaves_with), dtype=bool)
        for mask in self.masks:
            flags[self.leaves_with[_real(mask.factor.labels)]] = True
        return flags

    def carriers(self, channel: int) -> list[NDArray[np.bool_]]:
        """The elements of every output that leave with a channel."""
        return [~self.stay(f, tuple(out.shape), {channel}) for f, out in zip(self.factors, self.base, strict=True)]

    def stay(self, factors: Factors, shape: tuple[int, ...], removed: set[int]) -> NDArray[np.bool_]:
        """The elements of a tensor that stay once these channels are gone."""
        result = np.ones(shape, dtype=bool)
        for factor in factors:
            result &= broadcast(factor.dims, self._stays(factor.labels, removed), len(shape))
        return result

    def without(self, tensor: torch.Tensor, factors: Factors, removed: set[int]) -> torch.Tensor:
        """A tensor without the elements of these channels; every row of a split axis loses the same number."""
        for factor in sorted(factors, key=lambda f: -len(f.dims)):
            stays = self._stays(factor.labels, removed)
            others = [d for d in range(tensor.dim()) if d not in factor.dims]
            order = [*others, *factor.dims]
            moved = tensor.permute(order)
            left = int(stays.sum()) * stays.shape[-1] // stays.size
            taken = moved[..., torch.from_numpy(stays)].reshape(*moved.shape[:-1], left)
            tensor = taken.permute(np.argsort(order).tolist())
        return tensor

    def balanced(self, removed: set[int]) -> bool:
        """Whether equal counts stay equal."""
        for constraint in self.recorder.facts.counts:
            counts = {int(self._stays(e.labels, removed).sum()) * e.weight for e in constraint.entries}
            if len(counts) > 1:
                return False
        return True

    def macs(self, removed: set[int]) -> int:
        """Multiply-adds that the rules claim once these channels are gone."""
        return sum(
            extents.constant * int(np.prod([self._stays(labels, removed).sum() for labels in extents.arrays]))
            for _, extents in self.recorder.trace.macs
        )

    def axes_with(self, arrays: Sequence[Labels]) -> list[Axis]:
        """The input axes that have any of these labels."""
        known = np.concatenate([np.zeros(0, dtype=np.int64), *(labels.ravel() for labels in arrays)])
        return sorted(axis for axis, labels in self.inputs.items() if np.isin(labels, known).any())

    def kept(self, removed: set[int]) -> Kept:
        """The input indices that stay."""
        return {
            (i, a): np.flatnonzero(self._stays(self.inputs[i, a], removed)) if (i, a) in self.inputs else np.arange(n)
            for i, t in enumerate(self.case.tensors)
            for a, n in enumerate(t.shape)
        }

    def _stays(self, labels: Labels, removed: set[int]) -> NDArray[np.bool_]:
        gone = np.zeros(len(self.leaves_with) + 1, dtype=bool)  # the last is for NONE, which is -1
        gone[np.fromiter(removed, np.int64)] = True
        return ~gone[np.where(labels == NONE, NONE, self.leaves_with[np.maximum(labels, 0)])]


def _real(labels: Labels) -> Labels:
    return labels[labels != NONE]


def broadcast(dims: tuple[int, ...], values: NDArray[np.bool_], rank: int) -> NDArray[np.bool_]:
    order = np.argsort(dims)
    shape = [1] * rank
    for dim, size in zip(dims, values.shape, strict=True):
        shape[dim] = size
    return values.transpose(order).reshape(shape)


def observe(case: Case) -> Observation:
    """Run a case under the tracer."""
    holder = nn.Module()
    tensors = [t.clone() for t in case.tensors]
    holder.register_buffer("unused", torch.zeros(()))
    for i in case.weights:
        holder.register_buffer(f"input{i}", tensors[i])
    recorder = _Recorder(holder)
    recorder.flexible, recorder.resizable = case.flexible, case.resizable
    inputs = _label_inputs(recorder, tensors)
    extra = case.adapt(case.dense()) if case.adapt else {}
    _seed(0)
    with plain_kernels(), recorder:
        outputs = flat(case.run(*tensors, **extra))
    facts = recorder.facts
    leaves_with = _joined(facts.size, facts.equal)
    return Observation(
        case=case,
        inputs=inputs,
        factors=[recorder.labels_of(t) for t in outputs],
        base=[t.clone() for t in outputs],
        leaves_with=leaves_with,
        pinned=_spread(leaves_with, [n.labels for n in facts.fixed]),
        mixed=_spread(leaves_with, [n.labels for n in facts.mixed]),
        masks=recorder.masks,
        recorder=recorder,
    )


def _label_inputs(recorder: _Recorder, tensors: list[torch.Tensor]) -> dict[Axis, Labels]:
    inputs = {}
    for i, tensor in enumerate(tensors):
        if not recorder.is_weight(tensor):
            axes = [(a, n) for a, n in enumerate(tensor.shape) if n > 1]
            recorder.set_labels(tensor, tuple(Factor((a,), recorder.facts.fresh(n)) for a, n in axes))
        inputs.update({(i, f.free): f.labels for f in recorder.labels_of(tensor)})
    return inputs


def _joined(size: int, equal: list[tuple[Labels, Labels]]) -> Labels:
    """The smallest label equal to each, by plain repetition."""
    least = np.arange(size)
    pairs = [(int(x), int(y)) for a, b in equal for x, y in zip(a, b, strict=True)]
    while any(least[x] != least[y] for x, y in pairs):
        for x, y in pairs:
            least[[x, y]] = min(least[x], least[y])
        least = least[least]
    return least


def _spread(leaves_with: Labels, noted: list[Labels]) -> NDArray[np.bool_]:
    channels = np.unique(leaves_with[np.concatenate([np.zeros(0, dtype=np.int64), *noted])])
    return np.isin(leaves_with, channels)

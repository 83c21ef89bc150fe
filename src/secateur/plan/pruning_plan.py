"""Pruning plans: which indices of every parameter and buffer stay. Immutable, serialisable, free of tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from secateur.errors import PlanError
from secateur.graph.cost import FloatArray, IntArray
from secateur.graph.entry_point import EntryPoint
from secateur.graph.groups import Consumer
from secateur.graph.record import Step
from secateur.graph.storage import named_tensors, tied_names
from secateur.plan.format import fields_from_data, to_data

_SHOWN_DIFFERENCES = 3


@dataclass(frozen=True, eq=False)
class PruningPlan:
    """Which channels of every group, and so which indices of every parameter axis, stay.

    Made by :func:`secateur.plan`; holds no tensor, so it can be printed, compared, saved and read back.

    Attributes:
        shapes: dense shape of every parameter and buffer, under the first of its names.
        kept: (parameter name, axis) to the indices that stay, ascending; one entry for every axis a group touches.
        groups: group name to the channels that stay, ascending; one entry for every group.
        sizes: group name to the number of channels before pruning.
        consumers: the consumer axes that shrink, in the order of the trace's first use.
        mixing: groups that shrink and meet a mixing operation, to the names of these operations.
        attributes: ``module.attribute`` or ``module.attribute[position]`` to its new value, where it changes.
        tied: other names of tied parameters and buffers, to the first.
        scale: (parameter name, axis) to a factor for every index that stays, where there are factors other than one:
            what makes queries and keys that are divided by the root of their own width is scaled to make up for it.
        whole: places in the code, by module path and line, where an axis is split into blocks that leave whole.
        entry_point: the code that was traced; None for a plan that was read from JSON.
        steps: the operators that it ran; none for a plan that was read from JSON.
    """

    shapes: Mapping[str, tuple[int, ...]]
    kept: Mapping[tuple[str, int], IntArray]
    groups: Mapping[str, IntArray]
    sizes: Mapping[str, int]
    consumers: tuple[Consumer, ...] = ()
    mixing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: Mapping[str, int] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[tuple[str, int], FloatArray] = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    entry_point: EntryPoint | None = field(default=None, repr=False)
    steps: tuple[Step, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for array in (*self.kept.values(), *self.groups.values(), *self.scale.values()):
            array.setflags(write=False)

    @property
    def coefficients(self) -> dict[str, float]:
        """Group name to the fraction of its channels that leaves, exactly ``1 - kept / size``."""
        return {name: 1 - len(kept) / self.sizes[name] for name, kept in self.groups.items()}

    @property
    def is_empty(self) -> bool:
        """Whether nothing leaves."""
        return all(len(kept) == self.sizes[name] for name, kept in self.groups.items())

    @cached_property
    def _axes(self) -> dict[str, dict[int, IntArray]]:
        axes: dict[str, dict[int, IntArray]] = {}
        for (name, axis), indices in self.kept.items():
            if len(indices) < self.shapes[name][axis]:
                axes.setdefault(name, {})[axis] = indices
        return axes

    def shrunk_axes(self, name: str) -> Mapping[int, IntArray]:
        """Axis to kept indices, for the axes of one parameter or buffer that lose some; ``name`` may be a tied one."""
        return self._axes.get(self.tied.get(name, name), {})

    def kept_shape(self, name: str) -> tuple[int, ...]:
        """Shape of one parameter or buffer after surgery; ``name`` may be a tied one."""
        shape = list(self.shapes[self.tied.get(name, name)])
        for axis, indices in self.shrunk_axes(name).items():
            shape[axis] = len(indices)
        return tuple(shape)

    def axis_scales(self, name: str) -> dict[int, FloatArray]:
        """Axis to a factor per kept index, for the axes of one parameter or buffer that are scaled."""
        first = self.tied.get(name, name)
        return {axis: factors for (parameter, axis), factors in self.scale.items() if parameter == first}

    def removed(self, name: str, axis: int) -> IntArray:
        """The indices of one axis that leave, ascending; empty if no group touches it."""
        everything = np.arange(self.shapes[self.tied.get(name, name)][axis])
        return np.setdiff1d(everything, self.shrunk_axes(name).get(axis, everything), assume_unique=True)

    def check_fits(self, model: nn.Module) -> None:
        """Check that this plan was made for a model with these parameters and buffers.

        Raises:
            PlanError: names, shapes or ties differ; the message names the first differences.
        """
        differences = list(_differences(self, named_tensors(model)))
        if differences:
            shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
            rest = len(differences) - _SHOWN_DIFFERENCES
            more = f"; and {rest} more" if rest > 0 else ""
            raise PlanError(f"the plan was made for another model than this {type(model).__name__}: {shown}{more}")

    def to_json(self) -> str:
        """The plan as JSON, all but the entry point; :meth:`from_json` gives an equal plan back."""
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in to_data(self).items())
        return f"{{\n{lines}\n}}\n"

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Read what :meth:`to_json` wrote.

        Raises:
            PlanError: the text isn't a plan of this version; the message says what is wrong.
        """
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise PlanError(f"not a pruning plan: not JSON ({error})") from error
        return cls(**fields_from_data(data))

    def __eq__(self, other: object) -> bool:
        """Equal plans keep the same indices of the same parameters; the entry point doesn't matter."""
        return to_data(self) == to_data(other) if isinstance(other, PruningPlan) else NotImplemented

    def __str__(self) -> str:
        shrinking = sum(len(kept) < self.sizes[name] for name, kept in self.groups.items())
        width = max((len(name) for name in self.groups), default=0)
        lines = [f"Pruning plan: {shrinking} of {len(self.groups)} channel groups shrink"]
        for name, kept in self.groups.items():
            note = f"  mixing: {', '.join(self.mixing[name])}" if name in self.mixing else ""
            size = self.sizes[name]
            lines.append(
                f"  {name:<{width}}  keeps {len(kept):>5} of {size:>5}  ({1 - len(kept) / size:6.1%} leave){note}"
            )
        return "\n".join(lines)


def _differences(plan: PruningPlan, tensors: Mapping[str, torch.Tensor]) -> Iterator[str]:
    names = [*plan.shapes, *plan.tied]
    for name in names:
        shape = plan.shapes[plan.tied.get(name, name)]
        if name not in tensors:
            yield f"{name} {shape} of the plan is not in the model"
        elif tuple(tensors[name].shape) != shape:
            yield f"{name} has shape {tuple(tensors[name].shape)}, the plan's has {shape}"
    known = set(names)
    yield from (f"{name} {tuple(t.shape)} is not in the plan" for name, t in tensors.items() if name not in known)
    yield from _tie_differences(plan, {name: t for name, t in tensors.items() if name in known})


def _tie_differences(plan: PruningPlan, tensors: Mapping[str, torch.Tensor]) -> Iterator[str]:
    for name, first in tied_names(tensors).items():
        if plan.tied.get(name, name) != plan.tied.get(first, first):
            yield f"{first} and {name} are one tensor in the model, two in the plan"

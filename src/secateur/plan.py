"""Pruning plans: which indices of every parameter and buffer stay. Immutable, serialisable, free of tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secateur.errors import PlanError, ScoreError
from secateur.graph.cost import IntArray
from secateur.graph.entry_point import EntryPoint
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Consumer, Group
from secateur.graph.storage import tied_names

FloatArray = NDArray[np.float64]

_FORMAT = "secateur-plan"
_VERSION = 1
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
        entry_point: the code that was traced; None for a plan that was read from JSON.
    """

    shapes: Mapping[str, tuple[int, ...]]
    kept: Mapping[tuple[str, int], IntArray]
    groups: Mapping[str, IntArray]
    sizes: Mapping[str, int]
    consumers: tuple[Consumer, ...] = ()
    mixing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: Mapping[str, int] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    entry_point: EntryPoint | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for indices in (*self.kept.values(), *self.groups.values()):
            indices.setflags(write=False)

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
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in _to_data(self).items())
        return f"{{\n{lines}\n}}\n"

    @classmethod
    def from_json(cls, text: str) -> PruningPlan:
        """Read what :meth:`to_json` wrote.

        Raises:
            PlanError: the text isn't a plan of this version; the message says what is wrong.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(f"not a pruning plan: not JSON ({error})") from error
        return _from_data(data)

    def __eq__(self, other: object) -> bool:
        """Equal plans keep the same indices of the same parameters; the entry point doesn't matter."""
        return _to_data(self) == _to_data(other) if isinstance(other, PruningPlan) else NotImplemented

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


def plan(
    graph: DependencyGraph, scores: Mapping[str, FloatArray], coefficients: Mapping[str, float] | float
) -> PruningPlan:
    """Keep the top-scoring channels of every group.

    A group keeps the number of channels nearest to ``(1 - coefficient) * size`` that its units allow, at least one
    unit, and as many in each of its blocks. Of channels with equal scores, those with lower indices stay. Linear in
    the number of parameter indices, but for sorting the scores.

    Args:
        graph: what :func:`secateur.trace` returned.
        scores: group name to importance, shape (group size,); higher stays longer.
        coefficients: group name to the fraction of its channels to remove, in [0, 1), 0 where not named; or
            one fraction for all groups.

    Raises:
        ScoreError: scores are missing, have the wrong size or aren't finite.
        PlanError: an unknown group, a coefficient outside [0, 1), or tied groups with different coefficients.
    """
    importance = checked_scores(graph, scores)
    units = _kept_units(graph, coefficients)
    groups = {g.name: _top_channels(g, importance[g.name], int(u)) for g, u in zip(graph.groups, units, strict=True)}
    shapes = {spec.name: spec.shape for spec in graph.parameters}
    kept = _kept_indices(graph, groups, shapes)
    counts = np.array([len(groups[g.name]) for g in graph.groups], dtype=np.int64)
    dense = graph.kept_vector()
    return PruningPlan(
        shapes=shapes,
        kept=kept,
        groups=groups,
        sizes={g.name: g.size for g in graph.groups},
        consumers=tuple(c for c in graph.consumers if _shrinks(c, kept, shapes)),
        mixing={g.name: g.mixing for g in graph.groups if g.mixing and len(groups[g.name]) < g.size},
        attributes={a.key: a.value(counts) for a in graph.attributes if a.value(counts) != a.value(dense)},
        tied=dict(graph.tied),
        entry_point=graph.entry_point,
    )


def checked_scores(graph: DependencyGraph, scores: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The scores of every group as float64 arrays of shape (group size,).

    Raises:
        ScoreError: a group has no scores, too few or too many, or scores that aren't finite numbers; or scores are
            given for a group that the graph doesn't have.
    """
    unknown = sorted(set(scores) - {g.name for g in graph.groups})
    if unknown:
        raise ScoreError(
            f"scores were given for {unknown[0]!r}, which is no group of this graph; were they made for another?"
        )
    return {g.name: _checked_score(g, scores) for g in graph.groups}


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under all of its names, parameters first."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _checked_score(group: Group, scores: Mapping[str, FloatArray]) -> FloatArray:
    if group.name not in scores:
        raise ScoreError(f"group {group.name!r} has no scores; a criterion must score every group of the graph")
    try:
        values = np.asarray(scores[group.name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoreError(f"the scores of group {group.name!r} are not numbers: {error}") from error
    if values.shape != (group.size,):
        raise ScoreError(
            f"group {group.name!r} needs {group.size} scores, one per channel; given: shape {values.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ScoreError(
            f"{len(bad)} of the {group.size} scores of group {group.name!r} are not finite; "
            f"the first is channel {bad[0]}: {values[bad[0]]}"
        )
    return values


def _kept_units(graph: DependencyGraph, coefficients: Mapping[str, float] | float) -> IntArray:
    """Units kept per group, shape (groups,)."""
    named = {g.name: coefficients for g in graph.groups} if not isinstance(coefficients, Mapping) else coefficients
    for name, coefficient in named.items():
        graph.group(name)
        if isinstance(coefficient, bool) or not isinstance(coefficient, (int, float, np.floating)):
            raise PlanError(f"the pruning coefficient of group {name!r} must be a number, not {coefficient!r}")
        if not 0 <= coefficient < 1:
            raise PlanError(f"the pruning coefficient of group {name!r} must lie in [0, 1); it is {coefficient}")
    units = np.array([_nearest_units(g, float(named.get(g.name, 0.0))) for g in graph.groups], dtype=np.int64)
    _check_ties(graph, units)
    return units


def _nearest_units(group: Group, coefficient: float) -> int:
    # Half a unit is rounded up: in doubt a channel stays.
    return max(1, math.floor((1 - coefficient) * group.units + 0.5))


def _check_ties(graph: DependencyGraph, units: IntArray) -> None:
    for tie in graph.ties:
        odd = tie[units[tie] != units[tie[0]]]
        if len(odd):
            first, second = (graph.groups[i] for i in (tie[0], odd[0]))
            raise PlanError(
                f"groups {first.name!r} and {second.name!r} are tied and must keep the same fraction of channels; "
                f"the coefficients keep {units[tie[0]]}/{first.units} of one and {units[odd[0]]}/{second.units} of the "
                "other; give both the same coefficient"
            )


def _top_channels(group: Group, scores: FloatArray, units: int) -> IntArray:
    """The channels that stay, ascending: the best of every block."""
    per_block = group.size * units // group.units // group.blocks
    # lexsort is stable, so that of equal scores the lower index comes first.
    ranked = np.lexsort((-scores, group.block_of)).reshape(group.blocks, -1)
    return np.sort(ranked[:, :per_block].ravel()).astype(np.int64)


def _kept_indices(
    graph: DependencyGraph, groups: Mapping[str, IntArray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[str, int], IntArray]:
    stays: dict[tuple[str, int], NDArray[np.bool_]] = {}
    for group in graph.groups:
        leaves = np.ones(group.size, dtype=bool)
        leaves[groups[group.name]] = False
        for member in group.members:
            key = (member.parameter, member.axis)
            if key not in stays:
                stays[key] = np.ones(shapes[member.parameter][member.axis], dtype=bool)
            stays[key][member.indices[leaves]] = False
    return {key: np.flatnonzero(mask).astype(np.int64) for key, mask in stays.items()}


def _shrinks(
    consumer: Consumer, kept: Mapping[tuple[str, int], IntArray], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    indices = kept.get((consumer.parameter, consumer.axis))
    return indices is not None and len(indices) < shapes[consumer.parameter][consumer.axis]


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


def _to_data(plan: PruningPlan) -> dict[str, Any]:
    kept: dict[str, dict[str, list[int]]] = {}
    for (name, axis), indices in plan.kept.items():
        kept.setdefault(name, {})[str(axis)] = indices.tolist()
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "groups": {name: {"size": plan.sizes[name], "kept": kept.tolist()} for name, kept in plan.groups.items()},
        "mixing": {name: list(reasons) for name, reasons in plan.mixing.items()},
        "attributes": dict(plan.attributes),
        "consumers": [[c.parameter, c.axis] for c in plan.consumers],
        "tied": dict(plan.tied),
        "shapes": {name: list(shape) for name, shape in plan.shapes.items()},
        "kept": kept,
    }


def _from_data(data: object) -> PruningPlan:
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise PlanError(f'not a pruning plan: no object with "format": "{_FORMAT}"')
    if data.get("version") != _VERSION:
        raise PlanError(f"a pruning plan of version {data.get('version')}; this Secateur reads version {_VERSION}")
    shapes = _read_mapping(data, "shapes", _read_shape)
    groups = _read_mapping(data, "groups", _read_group)
    return PruningPlan(
        shapes=shapes,
        kept=dict(_read_kept(data, shapes)),
        groups={name: kept for name, (_, kept) in groups.items()},
        sizes={name: size for name, (size, _) in groups.items()},
        consumers=tuple(_read_consumers(data, shapes)),
        mixing=_within(_read_mapping(data, "mixing", _read_strings), groups, "mixing", "groups"),
        attributes=_read_mapping(data, "attributes", _read_int),
        tied=_read_tied(data, shapes),
    )


_T = TypeVar("_T")


def _malformed(where: str, what: str) -> PlanError:
    return PlanError(f"not a valid pruning plan: {where} {what}")


def _read_mapping(data: Mapping[str, Any], key: str, read: Callable[[Any, str], _T]) -> dict[str, _T]:
    if not isinstance(data.get(key), dict):
        raise _malformed(f'"{key}"', "is missing" if key not in data else "is not an object")
    return {name: read(value, f'"{key}" of {name!r}') for name, value in data[key].items()}


def _within(mapping: dict[str, _T], known: Mapping[str, object], key: str, where: str) -> dict[str, _T]:
    for name in mapping:
        if name not in known:
            raise _malformed(f'"{key}"', f'names {name!r}, which is not in "{where}"')
    return mapping


def _read_int(value: object, where: str) -> int:
    if type(value) is not int:  # bool is an int too
        raise _malformed(where, f"is not a whole number: {value!r}")
    return value


def _read_shape(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
        raise _malformed(where, f"is not a list of lengths: {value!r}")
    return tuple(value)


def _read_strings(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(s, str) for s in value):
        raise _malformed(where, f"is not a list of strings: {value!r}")
    return tuple(value)


def _read_indices(value: object, size: int, where: str) -> IntArray:
    if not isinstance(value, list) or not value or not all(type(i) is int for i in value):
        raise _malformed(where, "is not a list of at least one index")
    indices = np.array(value, dtype=np.int64)
    if indices[0] < 0 or indices[-1] >= size or not np.all(np.diff(indices) > 0):
        raise _malformed(where, f"is not a list of ascending indices below {size}")
    return indices


def _read_group(value: object, where: str) -> tuple[int, IntArray]:
    if not isinstance(value, dict) or not {"size", "kept"} <= set(value):
        raise _malformed(where, 'is not an object with "size" and "kept"')
    size = _read_int(value["size"], f'"size" in {where}')
    return size, _read_indices(value["kept"], size, f'"kept" in {where}')


def _read_kept(
    data: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[tuple[str, int], IntArray]]:
    axes = _within(_read_mapping(data, "kept", lambda value, _: value), shapes, "kept", "shapes")
    for name, per_axis in axes.items():
        if not isinstance(per_axis, dict):
            raise _malformed(f'"kept" of {name!r}', "is not an object from axis to indices")
        for key, indices in per_axis.items():
            axis = _read_axis(int(key) if key.isdecimal() else key, shapes[name], f'"kept" of {name!r}')
            yield (name, axis), _read_indices(indices, shapes[name][axis], f'"kept" of {name!r}, axis {axis},')


def _read_axis(value: object, shape: tuple[int, ...], where: str) -> int:
    if type(value) is not int or not 0 <= value < len(shape):
        raise _malformed(where, f"has axis {value!r}; the parameter has {len(shape)} axes")
    return value


def _read_consumers(data: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Consumer]:
    entries = data.get("consumers")
    if not isinstance(entries, list):
        raise _malformed('"consumers"', "is missing" if entries is None else "is not a list")
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or entry[0] not in shapes:
            raise _malformed('"consumers"', f'holds {entry!r}, not a parameter of "shapes" and an axis')
        yield Consumer(entry[0], _read_axis(entry[1], shapes[entry[0]], f'"consumers" of {entry[0]!r}'))


def _read_tied(data: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    tied = _read_mapping(data, "tied", lambda value, _: value)
    for name, first in tied.items():
        if not isinstance(first, str) or first not in shapes:
            raise _malformed(f'"tied" of {name!r}', f'names {first!r}, which is not in "shapes"')
    return tied

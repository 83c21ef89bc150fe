"""Plans as JSON data, written and read; what is read is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from secateur.errors import PlanError
from secateur.graph.cost import FloatArray, IntArray
from secateur.graph.groups import Consumer

if TYPE_CHECKING:
    from secateur.plan.pruning_plan import PruningPlan

_FORMAT = "secateur-plan"
_VERSION = 1


def to_data(plan: PruningPlan) -> dict[str, Any]:
    """The plan, all but its entry point, as JSON can hold it."""
    kept: dict[str, dict[str, list[int]]] = {}
    for (name, axis), indices in plan.kept.items():
        kept.setdefault(name, {})[str(axis)] = indices.tolist()
    scale: dict[str, dict[str, list[float]]] = {}
    for (name, axis), factors in plan.scale.items():
        scale.setdefault(name, {})[str(axis)] = factors.tolist()
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
        "scale": scale,
        "whole": list(plan.whole),
    }


def fields_from_data(data: object) -> dict[str, Any]:
    """The fields of the plan that :func:`to_data` gave.

    Raises:
        PlanError: the data isn't a plan of this version; the message says what is wrong.
    """
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise PlanError(f'not a pruning plan: no object with "format": "{_FORMAT}"')
    if data.get("version") != _VERSION:
        raise PlanError(f"a pruning plan of version {data.get('version')}; this Secateur reads version {_VERSION}")
    shapes = _read_mapping(data, "shapes", _read_shape)
    groups = _read_mapping(data, "groups", _read_group)
    kept = dict(_read_kept(data, shapes))
    return {
        "shapes": shapes,
        "kept": kept,
        "groups": {name: kept for name, (_, kept) in groups.items()},
        "sizes": {name: size for name, (size, _) in groups.items()},
        "consumers": tuple(_read_consumers(data, shapes)),
        "mixing": _within(_read_mapping(data, "mixing", _read_strings), groups, "mixing", "groups"),
        "attributes": _read_mapping(data, "attributes", _read_int),
        "tied": _read_tied(data, shapes),
        "scale": dict(_read_scale(data, kept)),
        "whole": _read_strings(data.get("whole", []), '"whole"'),
    }


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
    if not all(0 <= i < size for i in value) or sorted(set(value)) != value:
        raise _malformed(where, f"is not a list of ascending indices below {size}")
    return np.array(value, dtype=np.int64)


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


def _read_scale(
    data: Mapping[str, Any], kept: Mapping[tuple[str, int], IntArray]
) -> Iterator[tuple[tuple[str, int], FloatArray]]:
    for name, per_axis in _read_mapping(data, "scale", lambda value, _: value).items():
        for axis, factors in per_axis.items() if isinstance(per_axis, dict) else ():
            where = f'"scale" of {name!r}, axis {axis},'
            indices = kept.get((name, int(axis))) if axis.isdecimal() else None
            if indices is None:
                raise _malformed(f'"scale" of {name!r}', f'has axis {axis!r}, which is not in "kept"')
            if not isinstance(factors, list) or not all(type(f) is float and f > 0 for f in factors):
                raise _malformed(where, "is not a list of positive numbers")
            if len(factors) != len(indices):
                raise _malformed(where, f"has {len(factors)} factors for {len(indices)} indices")
            yield (name, int(axis)), np.array(factors)

"""What functions hold: cells of their closures, defaults and attributes; and which of it is of the model.

Python copies a function as itself. One that closes over the model, though, would go on reading the original in a copy
of it, so that a copy needs functions of its own: those that reach something that the model holds.
"""

from __future__ import annotations

import functools
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import torch
from torch import nn

from secateur.errors import warn
from secateur.graph.storage import storage_address
from secateur.graph.walk import modules_in, named_modules

ATOMIC = frozenset({type(None), bool, int, float, complex, str, bytes, type, types.BuiltinFunctionType})
"""Of these a copy is the same object, and they hold nothing."""

CONTAINERS = frozenset({list, set, dict, deque, OrderedDict, defaultdict, Counter})
"""Containers that can be filled after they were made."""

Remembering = type(functools.lru_cache(lambda: None))
"""What ``functools.lru_cache`` makes of a function."""

CALLABLES = frozenset({types.FunctionType, types.MethodType, functools.partial, Remembering})
"""What holds functions and is no container."""

_WITHOUT_PARTS = (type, types.ModuleType, Enum)


def cells_of(function: types.FunctionType) -> tuple[types.CellType, ...]:
    """The cells of a function's closure."""
    return function.__closure__ or ()


def is_filled(cell: types.CellType) -> bool:
    """Whether a cell holds anything: a name that the enclosing function hasn't assigned yet holds nothing."""
    return cell != types.CellType()  # empty ones are equal


def inside(value: Any) -> Iterator[Any]:
    """A value and all that it leads to through functions and containers, each object once; nothing atomic."""
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if type(item) not in ATOMIC and id(item) not in seen:
            seen.add(id(item))
            yield item
            stack.extend(_held_by(item))


def _held_by(item: Any) -> Iterable[Any]:
    kind = type(item)
    if kind is types.FunctionType:
        cells = [cell.cell_contents for cell in cells_of(item) if is_filled(cell)]
        return (*cells, *(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values(), *vars(item).values())
    if kind is functools.partial:
        return (item.func, *item.args, *item.keywords.values(), *vars(item).values())
    if kind is types.MethodType:
        return item.__func__, item.__self__
    if kind is Remembering:
        return (item.__wrapped__,)
    if isinstance(item, dict):
        return (*item.keys(), *item.values())
    return item if isinstance(item, (list, tuple, set, frozenset, deque)) else ()


class Owned:
    """What a model holds, in its modules' attributes and however deep below these, and which functions reach it.

    Linear in the number of these objects.

    Args:
        root: the model, or a container of it.
    """

    def __init__(self, root: Any) -> None:
        self._ids: set[int] = set()
        self._reachable: dict[int, tuple[Any, bool]] = {}
        self._cells: set[int] = set()
        self._storages: set[int] = set()
        self._functions: list[types.FunctionType] = []
        self._walk(root)
        self._take_shared_cells()

    def __contains__(self, value: Any) -> bool:
        return id(value) in self._ids

    def reaches(self, value: Any) -> bool:
        """Whether a value leads to something of the model through functions and containers."""
        known = self._reachable.get(id(value))
        if known is None:
            # The value is kept, so that nothing else gets its identity.
            known = self._reachable[id(value)] = (value, self._leads_here(value))
        return known[1]

    def warn_of_what_is_left(self, model: nn.Module) -> None:
        """Warn of functions that lead to the model by other objects than those that can be made anew."""
        for function in self._functions:
            for item in inside(function):
                if item not in self and self._leads_here_otherwise(item):
                    warn(
                        f"{_place_of(function, model)} holds a function ({function.__qualname__}) that reaches the "
                        f"original model's parts by a {type(item).__name__}, in the smaller copy too: prune with "
                        "inplace=True, or keep what the function reads as an attribute of the module"
                    )
                    break

    def _walk(self, root: Any) -> None:
        stack, seen = [root], set()
        while stack:
            item = stack.pop()
            kind = type(item)
            if kind in ATOMIC or id(item) in seen or isinstance(item, _WITHOUT_PARTS):
                continue
            seen.add(id(item))
            if kind is types.FunctionType:
                self._functions.extend(f for f in inside(item) if type(f) is types.FunctionType)
                continue
            held = getattr(item, "__dict__", None)
            if kind in CONTAINERS or (held is not None and kind not in CALLABLES):
                self._ids.add(id(item))
            if isinstance(item, torch.Tensor):
                self._storages.add(storage_address(item))
            stack.extend(_held_by(item))
            stack.extend((held or {}).values())

    def _take_shared_cells(self) -> None:
        """The cells of functions that reach the model: they are made anew, so that all functions over them must be."""
        waiting = list({id(f): f for f in self._functions}.values())
        while found := {id(f): f for f in waiting if self._leads_here(f)}:
            self._cells.update(id(cell) for f in found.values() for cell in cells_of(f))
            waiting = [f for f in waiting if id(f) not in found]

    def _leads_here(self, value: Any) -> bool:
        return any(
            id(item) in self._ids
            or (type(item) is types.FunctionType and any(id(cell) in self._cells for cell in cells_of(item)))
            for item in inside(value)
        )

    def _leads_here_otherwise(self, item: Any) -> bool:
        """Whether something that isn't the model's, and stays as it is, holds a module or tensor that is."""
        if type(item) in CALLABLES or type(item) in CONTAINERS or isinstance(item, _WITHOUT_PARTS):
            return False
        if isinstance(item, torch.Tensor):
            return storage_address(item) in self._storages
        held = [vars(module) for module in modules_in(item)] if isinstance(item, nn.Module) else _attributes(item)
        return any(
            isinstance(part, (nn.Module, torch.Tensor)) and part in self
            for attributes in held
            for part in inside(attributes)
        )


def _attributes(item: Any) -> list[dict[str, Any]]:
    held = getattr(item, "__dict__", None)
    return [] if held is None else [held]


def _place_of(function: types.FunctionType, model: nn.Module) -> str:
    """The attribute that leads to a function, with the path of its module."""
    for path, module in named_modules(model):
        for name, value in vars(module).items():
            if any(item is function for item in inside(value)):
                return repr(f"{path}.{name}".lstrip("."))
    return f"this {type(model).__name__}"

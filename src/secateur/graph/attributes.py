"""Attributes of modules: put back after code has run that may have changed them."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from secateur.graph.walk import modules_in, named_modules

_CHANGEABLE = frozenset({list, dict, set, deque, OrderedDict, defaultdict, Counter})
_COLLECTIONS = (list, tuple, set, frozenset, dict, deque)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """All modules' attributes as before afterwards, and the containers among them, however deep; no tensor's values."""
    modules = modules_in(model)
    held = [(module, vars(module).copy()) for module in modules]
    filled, empty = _collections(vars(module).values() for module in modules)
    contents = [(collection, collection.copy()) for collection in filled if type(collection) in _CHANGEABLE]
    try:
        yield
    finally:
        for module, before in held:
            vars(module).clear()
            vars(module).update(before)
        for collection in empty:
            if collection:
                collection.clear()
        for collection, content in contents:
            collection.clear()
            (collection.update if hasattr(collection, "update") else collection.extend)(content)


def paths_of_modules(model: nn.Module) -> dict[int, str]:
    """Path of every module by its ``id``, of those too that a module keeps in a plain list or tuple.

    Such hidden modules hold no parameters of the model; they run with its own under ``torch.func.functional_call``.
    """
    named = named_modules(model)
    paths = {id(module): path for path, module in named}
    for path, module in named:
        for name, value in vars(module).items():
            if not isinstance(value, (list, tuple)):
                continue
            for position, item in enumerate(value):
                if isinstance(item, nn.Module):
                    root = f"{path}.{name}[{position}]".lstrip(".")
                    for below, hidden in named_modules(item):
                        paths.setdefault(id(hidden), f"{root}.{below}".rstrip("."))
    return paths


def kept_activations(value: Any) -> Iterator[torch.Tensor]:
    """Tensors with a gradient's history in a value: itself, or in modules, lists, tuples, mappings and sets in it."""
    modules = modules_in(value) if isinstance(value, nn.Module) else []
    held: list[Iterable[Any]] = [vars(module).values() for module in modules] or [[value]]
    for item in chain.from_iterable((*held, *map(_items, _collections(held)[0]))):
        if isinstance(item, torch.Tensor) and item.grad_fn is not None:
            yield item


def _collections(values: Iterable[Iterable[Any]]) -> tuple[list[Any], list[Any]]:
    """The lists, tuples, mappings and sets among some values, and those in these, however deep; each once.

    Returns:
        Those that hold anything, and the empty ones that could be filled: every module has a dozen mappings for hooks.
    """
    filled: list[Any] = []
    empty: list[Any] = []
    seen: set[int] = set()
    others: set[type] = set()
    stack = list(values)
    while stack:
        for value in stack.pop():
            kind = type(value)
            if kind in others:
                continue
            if not issubclass(kind, _COLLECTIONS):
                others.add(kind)
            elif not value:
                if kind in _CHANGEABLE:
                    empty.append(value)
            elif id(value) not in seen:
                seen.add(id(value))
                filled.append(value)
                stack.append(_items(value))
    return filled, empty


def _items(collection: Any) -> Any:
    return collection.values() if isinstance(collection, dict) else collection

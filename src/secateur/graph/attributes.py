"""Attributes of modules: put back after code has run that may have changed them."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_CHANGEABLE = (list, dict, set, deque, OrderedDict, defaultdict, Counter)


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """All modules' attributes as before afterwards, and the containers among them, however deep; no tensor's values."""
    held = [(module, dict(vars(module))) for module in model.modules()]
    values = _within(value for _, before in held for value in before.values())
    containers = [(value, copy.copy(value)) for value in values if type(value) in _CHANGEABLE]
    try:
        yield
    finally:
        for module, before in held:
            vars(module).clear()
            vars(module).update(before)
        for container, before_it in containers:
            container.clear()
            (container.update if hasattr(container, "update") else container.extend)(before_it)


def paths_of_modules(model: nn.Module) -> dict[int, str]:
    """Path of every module by its ``id``, of those too that a module keeps in a plain list or tuple.

    Such hidden modules hold no parameters of the model; they run with its own under ``torch.func.functional_call``.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            for position, item in enumerate(value if isinstance(value, (list, tuple)) else ()):
                if isinstance(item, nn.Module):
                    root = f"{path}.{name}[{position}]".lstrip(".")
                    for below, hidden in item.named_modules():
                        paths.setdefault(id(hidden), f"{root}.{below}".rstrip("."))
    return paths


def kept_activations(model: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors with a gradient's history that modules hold, alone or in lists, tuples and mappings: left by a run."""
    for value in _within(value for module in model.modules() for value in vars(module).values()):
        if isinstance(value, torch.Tensor) and value.grad_fn is not None:
            yield value


def _within(values: Iterable[Any]) -> Iterator[Any]:
    """The values, and all that is in lists, tuples, mappings and sets among them; each container once."""
    stack, seen = list(values), set[int]()
    while stack:
        value = stack.pop()
        yield value
        if isinstance(value, (list, tuple, set, frozenset, dict, deque)) and id(value) not in seen:
            seen.add(id(value))
            stack.extend(value.values() if isinstance(value, dict) else value)

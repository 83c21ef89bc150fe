"""Attributes of modules: put back after code has run that may have changed them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """All modules' attributes as before afterwards, and the lists, mappings and sets among them; no tensor's values."""
    held = [(module, dict(vars(module))) for module in model.modules()]
    values = (value for _, before in held for value in before.values())
    containers = [(value, copy.copy(value)) for value in values if type(value) in (list, dict, set)]
    try:
        yield
    finally:
        for module, before in held:
            vars(module).clear()
            vars(module).update(before)
        for container, before_it in containers:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(before_it)


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
    stack: list[Any] = [value for module in model.modules() for value in vars(module).values()]
    while stack:
        value = stack.pop()
        if isinstance(value, torch.Tensor):
            if value.grad_fn is not None:
                yield value
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
        elif isinstance(value, dict):
            stack.extend(value.values())

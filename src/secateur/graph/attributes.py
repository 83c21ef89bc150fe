"""Attributes of modules: put back after code has run that may have changed them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

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

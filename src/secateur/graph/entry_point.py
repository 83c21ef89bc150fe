"""Entry points: code that exercises a model, from example inputs or from the user's own function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn

from secateur.errors import TraceError

EntryPoint = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class ForwardCall:
    """The entry point ``model(*inputs)``: a tensor, a tuple (positional) or a mapping (keywords) of inputs."""

    inputs: Any

    def __call__(self, model: nn.Module) -> Any:
        """Call ``model`` with the inputs."""
        return call_forward(model, self.inputs)


def call_forward(model: nn.Module, inputs: Any) -> Any:
    """Call ``model`` with a tensor, a tuple or list (positional) or a mapping (keywords) of inputs."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def as_entry_point(example_inputs: Any, run: EntryPoint | None) -> EntryPoint:
    """The entry point that ``trace`` and ``prune`` were given: exactly one of the two arguments.

    Raises:
        TraceError: both or neither are given, or ``run`` can't be called.
    """
    if (example_inputs is None) == (run is None):
        given = "both" if run is not None else "neither"
        raise TraceError(f"give either example_inputs or run=, the code that exercises the model; {given} given")
    if run is None:
        return ForwardCall(example_inputs)
    if not callable(run):
        raise TraceError(f"run must be a function that takes the model and exercises it, not {type(run).__name__}")
    return run


def inputs_of(entry_point: EntryPoint) -> list[torch.Tensor]:
    """The tensors that an entry point gives to the model, as far as they are known: those of ``example_inputs``."""
    return list(tensors_in(entry_point.inputs)) if isinstance(entry_point, ForwardCall) else []


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested tuples, lists, mappings, dataclasses and objects with attributes, in order."""
    seen: set[int] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            yield item
            continue
        if item is None or isinstance(item, (str, bytes, int, float, nn.Module, type)) or id(item) in seen:
            continue
        seen.add(id(item))
        stack.extend(reversed(_children(item)))


def _children(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return list(item.values())
    if isinstance(item, (tuple, list, set, frozenset)):
        return list(item)
    if is_dataclass(item):
        return [getattr(item, f.name) for f in fields(item)]
    return list(getattr(item, "__dict__", {}).values())

"""Facts about a model and what it returns, read without any pruning library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from .entry import Entry

_SEEDS = {"build": 0, "vary": 1, "inputs": 2, "run": 3}


def built(entry: Entry) -> nn.Module:
    """The entry's model, always with the same values, none of which a constant initialisation left alike."""
    torch.manual_seed(_SEEDS["build"])
    model = entry.build().train(entry.train)
    torch.manual_seed(_SEEDS["vary"])
    _vary(model)
    return model


def inputs_of(entry: Entry) -> Any:
    """The entry's inputs, always the same."""
    torch.manual_seed(_SEEDS["inputs"])
    return entry.inputs()


def outputs_of(entry: Entry, model: nn.Module, inputs: Any) -> list[torch.Tensor]:
    """The tensors that the entry point returns, in order; random numbers are always the same."""
    torch.manual_seed(_SEEDS["run"])
    return tensors(called(entry, model, inputs))


def called(entry: Entry, model: nn.Module, inputs: Any) -> Any:
    """What the entry point returns."""
    if entry.run is not None:
        return entry.run(model, inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested containers, dataclasses and objects, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if value is None or isinstance(value, (str, bytes, int, float, type, nn.Module)):
        return []
    if isinstance(value, Mapping):
        children = list(value.values())
    elif isinstance(value, (tuple, list)):
        children = list(value)
    elif is_dataclass(value):
        children = [getattr(value, f.name) for f in fields(value)]
    else:
        children = list(getattr(value, "__dict__", {}).values())
    return [tensor for child in children for tensor in tensors(child)]


def shapes(found: list[torch.Tensor]) -> list[tuple[int, ...]]:
    """The shape of each."""
    return [tuple(tensor.shape) for tensor in found]


def in_double(value: Any) -> Any:
    """The same containers of tensors, floating-point ones in double precision."""
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: in_double(item) for key, item in value.items()}
    return type(value)(in_double(item) for item in value) if isinstance(value, (tuple, list)) else value


def parameter_count(model: nn.Module) -> int:
    """Elements of all parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def ties(model: nn.Module) -> set[frozenset[str]]:
    """Sets of names that are one parameter."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


@torch.no_grad()
def _vary(model: nn.Module) -> None:
    """Constants become random, so that no two channels are alike and none is zero; so do running statistics."""
    for parameter in model.parameters():
        if (
            parameter.is_floating_point()
            and parameter.numel() > 1
            and bool((parameter == parameter.flatten()[0]).all())
        ):
            spread = 0.1 if parameter.ndim < 2 else (parameter.numel() / parameter.shape[0]) ** -0.5
            parameter.add_(spread * torch.randn_like(parameter))
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.1 * torch.randn_like(buffer))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))

"""Modules that run while a model is traced and are no part of it: nothing follows from their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from secateur.errors import warn
from secateur.graph.walk import modules_in


@contextmanager
def warning_of_outsiders(model: nn.Module) -> Iterator[None]:
    """Warn of modules that run meanwhile and hold parameters that the model doesn't have."""
    inside = modules_in(model)
    modules = set(map(id, inside))
    parameters = {id(parameter) for module in inside for parameter in module._parameters.values()}
    found: dict[str, None] = {}

    def look(module: nn.Module, args: Any) -> None:
        # Under torch.func.functional_call, an outside module runs with the model's own tensors as its parameters.
        if id(module) not in modules and any(
            isinstance(p, nn.Parameter) and id(p) not in parameters for p in module._parameters.values()
        ):
            found[type(module).__name__] = None

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
    if found:
        name = type(model).__name__
        warn(
            f"the run uses modules whose parameters {name} doesn't have ({', '.join(found)}): they stay as they are, "
            f"and so do the channels that meet them. If they belong to {name}, register them: nn.ModuleList and "
            "nn.ModuleDict do, a plain list or mapping doesn't"
        )

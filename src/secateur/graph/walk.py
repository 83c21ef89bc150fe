"""A model's modules in torch's own order, as lists: ``nn.Module``'s generators pass each one up through all levels."""

from __future__ import annotations

from torch import nn


def named_modules(model: nn.Module, *, all_names: bool = False) -> list[tuple[str, nn.Module]]:
    """The model and all modules in it by dotted path, each before those in it, in time linear in their number.

    Args:
        model: the model, whose path is "".
        all_names: give a module that is registered in several places under each of its paths, not the first alone.
    """
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    stack: list[tuple[str, nn.Module]] = [("", model)]
    while stack:
        path, module = stack.pop()
        if not all_names:
            if id(module) in seen:
                continue
            seen.add(id(module))
        found.append((path, module))
        if module._modules:
            prefix = f"{path}." if path else ""
            children = reversed(module._modules.items())
            stack.extend([(prefix + name, child) for name, child in children if child is not None])
    return found


def modules_in(model: nn.Module) -> list[nn.Module]:
    """The model and all modules in it, each once."""
    return [module for _, module in named_modules(model)]


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters, each once, under the first of its names."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for path, module in named_modules(model):
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in found:
                found[id(parameter)] = f"{path}.{name}" if path else name, parameter
    return dict(found.values())


def parameters_in(model: nn.Module) -> list[nn.Parameter]:
    """The model's parameters, each once."""
    return list(named_parameters(model).values())

"""Components: the named parts of a model and the parameters that each owns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import chain

import torch
from torch import nn

from secateur.errors import TraceError
from secateur.graph.storage import named_tensors
from secateur.graph.walk import named_modules

ComponentPart = nn.Module | torch.Tensor | str | type[nn.Module]
ComponentSpec = ComponentPart | Iterable[ComponentPart]

ROOT = "model"
"""The component of parameters that the model itself holds, outside its children."""


@dataclass(frozen=True)
class ComponentMap:
    """Which component owns a dotted path: the one with the longest path that is a prefix of it."""

    names: tuple[str, ...]
    owner: Mapping[str, int]

    def of(self, path: str) -> int | None:
        """Index of the component that owns a module or parameter path; None if none does."""
        while True:
            if path in self.owner:
                return self.owner[path]
            if not path:
                return None
            path = path.rpartition(".")[0]


def component_map(model: nn.Module, components: Mapping[str, ComponentSpec] | None) -> ComponentMap:
    """Owners by path, from the user's mapping or, where it is silent, each direct child that holds parameters.

    Raises:
        TraceError: a path matches nothing, two components claim the same one, or a component owns nothing.
    """
    if components is not None and not isinstance(components, Mapping):
        raise TraceError(f"components must map names to modules or their dotted names, not be {components!r}")
    owner: dict[str, str] = {}
    for name, spec in (components or {}).items():
        what = f"component {name!r}"
        paths = [p for item in listed(spec, what) for p in paths_of(model, item, what)]
        if not paths:
            raise TraceError(f"component {name!r} is empty; give it a module, its dotted name, or a list of these")
        for path in paths:
            if owner.setdefault(path, name) != name:
                raise TraceError(
                    f"components {owner[path]!r} and {name!r} both claim {path!r}; leave it to one of them"
                )
    for child, module in model.named_children():
        if any(True for _ in chain(module.parameters(), module.buffers())):
            owner.setdefault(child, child)
    owner.setdefault("", ROOT)
    return _used_map(model, owner, list(components or {}))


def _used_map(model: nn.Module, owner: dict[str, str], given: list[str]) -> ComponentMap:
    """Keep the components that own a parameter, in model order; one given by the user must."""
    names = tuple(dict.fromkeys(owner.values()))
    full = ComponentMap(names, {path: names.index(name) for path, name in owner.items()})
    first_name: dict[int, str] = {}
    for name, tensor in named_tensors(model).items():
        first_name.setdefault(id(tensor), name)
    used = [names[full.of(path) or 0] for path in first_name.values()]
    for name in given:
        if name not in used:
            raise TraceError(f"component {name!r} owns no parameter; other components may own the parts inside it")
    ordered = tuple(dict.fromkeys(used))
    return ComponentMap(ordered, {path: ordered.index(name) for path, name in owner.items() if name in ordered})


def listed(spec: ComponentSpec, what: str) -> list[ComponentPart]:
    """One part or several, as a list.

    Raises:
        TraceError: ``spec`` is neither.
    """
    if isinstance(spec, (nn.Module, torch.Tensor, str, type)):
        return [spec]
    if not isinstance(spec, Iterable):
        raise TraceError(
            f"{what}: expected a module, a parameter, a dotted name, a pattern, a module class, or a list of these, "
            f"not {spec!r}"
        )
    return list(spec)


def paths_of(model: nn.Module, item: object, what: str) -> list[str]:
    """Dotted paths in ``model`` of a module, a parameter or a dotted name; or of all that a pattern or class matches.

    Args:
        model: the model.
        item: a module or parameter of the model; the dotted name of one; a pattern of such names, in which ``*`` stands
            for any characters, ``?`` for any one and ``[12]`` for one of these; or a class of modules.
        what: what ``item`` is given for; the message begins with it.

    Raises:
        TraceError: ``item`` matches no part of the model; the message lists close names.
    """
    modules = dict(named_modules(model, all_names=True))
    tensors = named_tensors(model)
    if isinstance(item, str):
        return _paths_by_name(item, modules, tensors, what)
    if isinstance(item, type) and issubclass(item, nn.Module):
        found = [path for path, module in modules.items() if isinstance(module, item)]
        if found:
            return found
        raise TraceError(f"{what}: the model has no module of class {item.__name__}")
    if isinstance(item, (nn.Module, torch.Tensor)):
        known: Mapping[str, object] = modules if isinstance(item, nn.Module) else tensors
        found = [path for path, value in known.items() if value is item]
        if found:
            return found
        raise TraceError(f"{what}: the {type(item).__name__} given is not part of the model")
    raise TraceError(
        f"{what}: expected a module, a parameter, a dotted name, a pattern or a module class, not {type(item).__name__}"
    )


def _paths_by_name(name: str, modules: Mapping[str, object], tensors: Mapping[str, object], what: str) -> list[str]:
    """The one path that is this name, or those that match it as a pattern."""
    if name in modules or name in tensors:
        return [name]
    if not any(sign in name for sign in "*?["):
        raise TraceError(f"{what}: the model has no module or parameter {name!r}{_suggestion(name, modules, tensors)}")
    found = [path for path in (*modules, *tensors) if path and fnmatchcase(path, name)]
    if found:
        return found
    raise TraceError(
        f"{what}: no module or parameter of the model matches the pattern {name!r}{_suggestion(name, modules, tensors)}"
    )


def _suggestion(name: str, modules: Mapping[str, object], tensors: Mapping[str, object]) -> str:
    close = get_close_matches(name, [*modules, *tensors], n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""

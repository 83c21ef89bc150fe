"""Parts of a model that other models hold too, outside the one that is given.

Surgery gives the smaller model parameters of its own, or, in place, shrinks what the others hold: either way they and
the model part. A module that holds all of the model isn't meant: the model is a part of that one. Who holds an object
only a walk over all objects of the process can tell, so that is done only where counts of references show that
something outside the model holds a part of it.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from sys import getrefcount
from typing import Any

import torch
from torch import nn

from secateur.errors import warn
from secateur.graph.walk import modules_in

_MOST_SHOWN = 3


def warn_of_sharing(model: nn.Module) -> None:
    """Warn if modules outside ``model`` hold its parameters, or submodules that have some.

    Linear in the number of modules: 0.2 ms for ResNet-50. Where something beside the model holds one of its parts (a
    variable, an optimiser of some of the parameters), it takes a walk over all objects of the process: some 50 ms.
    """
    suspects = _held_outside(model)
    if not suspects or not _are_in_other_modules(model, suspects):
        return
    ours = _parts(model)
    gc.collect()  # else modules that nothing refers to any more would be taken for other models
    shared = dict(_holders(model, ours))
    if shared:
        shown = [f"{ours[part]!r} (also in a {holder})" for part, holder in list(shared.items())[:_MOST_SHOWN]]
        more = f" and {len(shared) - _MOST_SHOWN} more" if len(shared) > _MOST_SHOWN else ""
        warn(
            f"{type(model).__name__} shares parts with modules outside it: {', '.join(shown)}{more}. A smaller copy "
            "won't share them any more, and pruning in place changes the others too; trace one module that holds all"
        )


def _parts(model: nn.Module) -> dict[int, str]:
    """The names of the model's parameters and of its submodules that have some, by identity."""
    names = {id(p): name for name, p in model.named_parameters()}
    names.update((id(m), path) for path, m in model.named_modules() if path and next(m.parameters(), None) is not None)
    return names


def _holders(model: nn.Module, ours: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    """Parts of the model, by identity, that modules outside it hold, and these modules' classes."""
    inside = {id(module) for module in model.modules()}
    whole = {id(parameter) for parameter in model.parameters()}
    everything = gc.get_objects()
    # By type: hundreds of thousands of objects have a few thousand types.
    kinds = {kind for kind in set(map(type, everything)) if issubclass(kind, nn.Module)}
    for module in [item for item in everything if type(item) in kinds]:
        if id(module) not in inside:
            held = (*vars(module).get("_modules", {}).values(), *vars(module).get("_parameters", {}).values())
            shared = [id(part) for part in held if id(part) in ours]
            if shared and not whole <= {id(parameter) for parameter in module.parameters()}:
                yield from ((part, type(module).__name__) for part in shared)


def _are_in_other_modules(model: nn.Module, suspects: list[object]) -> bool:
    """Whether any of these is in a mapping that may be an outside module's: one of modules, or of tensors, alone."""
    inside = {id(mapping) for module in model.modules() for mapping in (module._modules, module._parameters)}
    return any(
        type(holder) is dict
        and id(holder) not in inside
        and all(value is None or isinstance(value, (nn.Module, torch.Tensor)) for value in holder.values())
        for holder in gc.get_referrers(*suspects)
    )


def _held_outside(model: nn.Module) -> list[object]:
    """Submodules and parameters of which references show that something outside the model holds them.

    What holds all parameters alike, such as an optimiser or a list of them, is no other model.
    """
    modules = modules_in(model)
    # All that modules hold is looked at only if what is registered with them leaves references over.
    registered = chain.from_iterable((*m._modules.values(), *m._parameters.values()) for m in modules)
    if not _suspects(modules, Counter(map(id, registered))):
        return []
    return _suspects(modules, Counter(map(id, chain.from_iterable(map(_held_by, modules)))))


def _suspects(modules: list[nn.Module], inside: Mapping[int, int]) -> list[object]:
    """The submodules with more references than these; of the parameters, one for every number above the smallest."""
    parameters = list({id(p): p for m in modules for p in m._parameters.values() if p is not None}.values())
    counts = [getrefcount(p) - inside[id(p)] for p in parameters]
    fewest = min(counts)
    held = {count: p for count, p in zip(counts, parameters, strict=True) if count > fewest}
    return [*held.values(), *(m for m, count in _submodule_references(modules, inside) if count > _USUAL)]


def _submodule_references(modules: list[nn.Module], inside: Mapping[int, int]) -> list[tuple[nn.Module, int]]:
    counts = [getrefcount(module) - inside[id(module)] for module in modules]
    return list(zip(modules, counts, strict=True))[1:]


def _held_by(module: nn.Module) -> Iterator[Any]:
    """A module's attributes, and what is in the lists, tuples and mappings among them."""
    for value in vars(module).values():
        kind = type(value)
        if kind is dict:
            yield from value.values()
        elif kind is list or kind is tuple:
            yield from value
        else:
            yield value


def _usual_references() -> int:
    """References to a submodule that nothing else holds, as they are counted here."""
    modules = modules_in(nn.Sequential(nn.Sequential()))
    return _submodule_references(modules, Counter(map(id, modules)))[0][1]


_USUAL = _usual_references()

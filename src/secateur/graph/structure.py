"""Models that change themselves while they run: submodules or parameters that are added, removed or replaced.

A graph is of the parts that a model has before it runs. Buffers and other attributes may change: they are put back
(``trace``), and hidden state that a model keeps is the same before every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from secateur.errors import TraceError, warn
from secateur.graph.walk import named_modules, parameters_in

_REMEDY = "build all of it in __init__, or run the model once first if only its first run does that"


@contextmanager
def structure_unchanged(model: nn.Module) -> Iterator[None]:
    """Check that what runs meanwhile changes no submodule and no parameter of the model.

    Raises:
        TraceError: it adds, removes or replaces one; the message names it. Nothing is put back here.

    Linear in the number of modules.
    """
    before = [(path, module, dict(module._modules), dict(module._parameters)) for path, module in named_modules(model)]
    yield
    for path, module, modules, parameters in before:
        for what, old, new in (("submodule", modules, module._modules), ("parameter", parameters, module._parameters)):
            change = _change(old, new)
            if change is not None:
                name = f"{path}.{change[1]}".lstrip(".")
                raise TraceError(
                    f"{type(model).__name__} {change[0]} its {what} {name!r} while it runs, which no graph can follow; "
                    f"{_REMEDY}"
                )


def _change(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, str] | None:
    """What became of the parts of one module, told by identity, and the name of the first that isn't as it was."""
    for name in {**old, **new}:
        if name not in new:
            return "removes", name
        if name not in old:
            return "adds", name
        if old[name] is not new[name]:
            return "replaces", name
    return None


@contextmanager
def warning_of_changed_parameters(model: nn.Module) -> Iterator[None]:
    """Warn of parameters whose values change meanwhile, as those of an embedding with a largest norm do."""
    before = [(p, _version(p)) for p in parameters_in(model)]
    yield
    changed = {id(p) for p, version in before if _version(p) != version}
    if changed:
        name = next(name for name, p in model.named_parameters() if id(p) in changed)
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        warn(
            f"running {type(model).__name__} changes its parameter {name!r}{more} in place: the values are now those "
            "after the run"
        )


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written to; inference tensors don't count."""
    return 0 if tensor.is_inference() else tensor._version

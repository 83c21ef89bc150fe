"""Models that can't be traced, told before anything runs: what is wrong with which module, and what to give instead."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from secateur.errors import TraceError
from secateur.graph.walk import named_modules

# What the classes in these modules of torch do to a model, and the remedy. Told by the module's name: to import most of
# these takes seconds.
_FOREIGN = {
    "torch.jit.": ("is a scripted module, whose operators can't be seen", "pass the original"),
    "torch._dynamo.": ("is a compiled module", "pass the original ({path}_orig_mod), and compile the smaller model"),
    "torch.export.": (
        "is an exported program, with its sizes fixed",
        "pass the original, and export the smaller model",
    ),
    "torch.nn.parallel.": (
        "runs on several devices, by copies or with hooks of its own",
        "pass the model inside ({path}module), and wrap the smaller one",
    ),
    "torch.distributed.": ("is kept in parts, in several places", "pass the model that it was made from"),
}


def check_model(model: nn.Module) -> None:
    """Check that ``model`` is one that can be traced.

    Raises:
        TraceError: it isn't a module; it or a part of it is scripted, compiled, exported or distributed; it has no
            parameters, or some without a shape. The message names the part, and says what to do.

    Linear in the number of modules.
    """
    if not isinstance(model, nn.Module):
        raise TraceError(f"expected a torch.nn.Module, not {type(model).__name__}{_original(model)}")
    known: dict[type, tuple[str, str] | None] = {}
    passed: set[type] = set()
    has_parameters = False
    for path, module in named_modules(model):
        _check_form(module, path, known)
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            # What there is to check is of a tensor's class.
            if tensor is not None and type(tensor) not in passed:
                _check_tensor(tensor, f"{path}.{name}".lstrip("."), module, known)
                passed.add(type(tensor))
        has_parameters = has_parameters or any(p is not None for p in module._parameters.values())
    if not has_parameters:
        raise TraceError(f"{type(model).__name__} has no parameters: there is nothing to prune")


def _check_form(module: nn.Module, path: str, known: dict[type, tuple[str, str] | None]) -> None:
    refusal = _refusal(type(module), known)
    if refusal is None and module._compiled_call_impl is not None:
        refusal = "was compiled by its compile()", "pass copy.deepcopy(model), which isn't compiled"
    if refusal is not None:
        what, remedy = refusal
        where, inside = (f"{path!r}", f"{path}.") if path else ("the model", "model.")
        raise TraceError(f"{where} {what}; {remedy.format(path=inside)}")


def _check_tensor(
    tensor: torch.Tensor, name: str, module: nn.Module, known: dict[type, tuple[str, str] | None]
) -> None:
    refusal = _refusal(type(tensor), known)
    if refusal is not None:
        raise TraceError(f"{name!r}, a {type(tensor).__name__}, {refusal[0]}; {refusal[1]}")
    if is_lazy(tensor):
        raise TraceError(
            f"{name!r} of a {type(module).__name__} has no shape yet; run the model once on its inputs, so that lazy "
            "modules get theirs, then trace it"
        )


def _original(model: object) -> str:
    return "; pass the original model" if type(model).__module__.startswith("torch.") else ""


def _refusal(cls: type, known: dict[type, tuple[str, str] | None]) -> tuple[str, str] | None:
    """What is wrong with modules or tensors of this class, and what to do about it; kept in ``known``."""
    if cls not in known:
        places = [f"{base.__module__}." for base in cls.__mro__]
        found = (_FOREIGN[prefix] for prefix in _FOREIGN if any(place.startswith(prefix) for place in places))
        known[cls] = next(found, None)
    return known[cls]

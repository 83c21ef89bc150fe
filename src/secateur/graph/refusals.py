"""Models that can't be traced, told before anything runs: what is wrong with which module, and what to give instead."""

from __future__ import annotations

from itertools import chain

from torch import nn
from torch.nn.parameter import is_lazy

from secateur.errors import TraceError

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
    refusals = {cls: _refusal(cls) for cls in {type(module) for module in model.modules()}}
    for path, module in model.named_modules():
        refusal = refusals[type(module)]
        if refusal is None and module._compiled_call_impl is not None:
            refusal = "was compiled by its compile()", "pass copy.deepcopy(model), which isn't compiled"
        if refusal is not None:
            what, remedy = refusal
            where, inside = (f"{path!r}", f"{path}.") if path else ("the model", "model.")
            raise TraceError(f"{where} {what}; {remedy.format(path=inside)}")
    _check_parameters(model)


def _original(model: object) -> str:
    return "; pass the original model" if type(model).__module__.startswith("torch.") else ""


def _refusal(cls: type) -> tuple[str, str] | None:
    """What is wrong with modules or tensors of this class, and what to do about it."""
    places = [f"{base.__module__}." for base in cls.__mro__]
    found = (_FOREIGN[prefix] for prefix in _FOREIGN if any(place.startswith(prefix) for place in places))
    return next(found, None)


def _check_parameters(model: nn.Module) -> None:
    if next(model.parameters(), None) is None:
        raise TraceError(f"{type(model).__name__} has no parameters: there is nothing to prune")
    named = list(chain(model.named_parameters(), model.named_buffers()))
    refusals = {cls: _refusal(cls) for cls in {type(tensor) for _, tensor in named}}
    for name, tensor in named:
        refusal = refusals[type(tensor)]
        if refusal is not None:
            raise TraceError(f"{name!r}, a {type(tensor).__name__}, {refusal[0]}; {refusal[1]}")
        if is_lazy(tensor):
            module = model.get_submodule(name.rpartition(".")[0])
            raise TraceError(
                f"{name!r} of a {type(module).__name__} has no shape yet; run the model once on its inputs, so that "
                "lazy modules get theirs, then trace it"
            )

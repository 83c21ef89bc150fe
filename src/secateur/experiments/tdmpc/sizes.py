"""Whether a model takes a task's observations and actions, as far as its layers tell."""

from __future__ import annotations

from torch import nn


def misfit(model: object, *, observations: int, actions: int) -> str | None:
    """What a model takes in another size than it would be given, in words; None if nothing speaks against it.

    Args:
        model: its first linear layer in ``encoder`` tells the observations, its last one in ``pi`` the actions; a model
            without these may take anything.
        observations: length of an observation.
        actions: length of an action.
    """
    taken = {
        "observations": [layer.in_features for layer in _linears(model, "encoder")[:1]],
        "actions": [layer.out_features for layer in _linears(model, "pi")[-1:]],
    }
    for what, given in (("observations", observations), ("actions", actions)):
        for size in taken[what]:
            if size != given:
                return f"{what} have {given} numbers; those of this model have {size}"
    return None


def _linears(model: object, part: str) -> list[nn.Linear]:
    """Of a part of the model, if it has one of that name."""
    module = getattr(model, part, None)
    return [m for m in module.modules() if isinstance(m, nn.Linear)] if isinstance(module, nn.Module) else []

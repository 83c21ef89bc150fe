"""Make the smaller model: slice every tensor, put right what counts its indices, carry the optimiser along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from secateur.errors import PlanError
from secateur.graph.collector import collector_paused
from secateur.plan import PruningPlan, named_tensors
from secateur.surgery.attributes import check_attributes, update_attributes
from secateur.surgery.computed_weights import compute_again, computed_weights
from secateur.surgery.copying import deep_copy
from secateur.surgery.optimizer import carried_states, carry_over, optimizers_in
from secateur.surgery.parameters import Replacement, made_like, put_in_place, replacements

Model = TypeVar("Model", bound=nn.Module)


def apply(
    model: Model, plan: PruningPlan, *, inplace: bool = False, optimizer: torch.optim.Optimizer | None = None
) -> Model:
    """The model without the channels that the plan removes, of the same class and trainable.

    Parameters and buffers keep their class, dtype, device, memory format, ``requires_grad``, gradient and ties; modules
    keep their mode, hooks and other attributes; an optimiser that is one of them keeps its state for the kept channels.
    The dense values are never copied. Everything is checked first: when this raises, the model and the optimiser are as
    they were.

    Args:
        model: the model that the plan was made for.
        plan: which channels stay.
        inplace: shrink ``model`` itself and return it; its parameters stay the same objects, so whatever refers to
            them goes on working. Else ``model`` is left as it is and a new model returned.
        optimizer: an optimiser of the model's parameters, whose state for the kept channels is kept. It is changed in
            place and belongs to the returned model afterwards: without ``inplace``, it no longer trains ``model``.

    Returns:
        The smaller model.

    Raises:
        PlanError: the plan was made for another model, the optimiser for other parameters or its state can't be cut
            down, or the model can't be copied.
    """
    plan.check_fits(model)
    check_attributes(model, plan.attributes)
    with torch.inference_mode(False), torch.no_grad(), collector_paused():
        given = [] if optimizer is None else [optimizer]
        carried = [(o, carried_states(o, model, plan)) for o in given]
        held = [(o, carried_states(o, model, plan)) for o in optimizers_in(model) if o is not optimizer]
        replaced = replacements(model, plan)
        successors: dict[int, torch.Tensor] = {}
        small = model
        if inplace:
            for replacement in replaced:
                put_in_place(replacement)
        else:
            small, memo = _copy_with(model, replaced, given)
            successors = {id(r.dense): memo[id(r.dense)] for r in replaced}
            held = [(memo[id(o)], states) for o, states in held]
        shrunk = {name: tensor for name, tensor in named_tensors(small).items() if plan.shrunk_axes(name)}
        if not inplace:
            _check_copy(shrunk, successors)
        compute_again(small)
        update_attributes(small, plan.attributes, shrunk)
    for moved, states in (*carried, *held):
        carry_over(moved, states, successors)
    return small


def _check_copy(shrunk: Mapping[str, torch.Tensor], successors: Mapping[int, torch.Tensor]) -> None:
    """Check that the copy holds the new tensors where it should be smaller."""
    made = set(map(id, successors.values()))
    for name, tensor in shrunk.items():
        if id(tensor) not in made:
            raise PlanError(
                f"{name!r} isn't shrunk in the copy of this model: what holds it has a __deepcopy__ that takes nothing "
                "from its memo; apply the plan with inplace=True, or let it copy its tensors by copy.deepcopy(t, memo)"
            )


def _copy_with(
    model: Model, replaced: list[Replacement], moved: list[torch.optim.Optimizer]
) -> tuple[Model, dict[int, Any]]:
    """A copy of the model with its tensors replaced, and all new objects by the old ones' identities.

    Optimisers that move to the copy are themselves in it where the model refers to them.
    """
    # A deep copy takes what its memo holds instead of copying: so no dense tensor is copied, and ties stay.
    memo: dict[int, Any] = {id(optimizer): optimizer for optimizer in moved} | computed_weights(model)
    try:
        for replacement in replaced:
            memo[id(replacement.dense)] = made_like(replacement)
        # Attributes of tensors may lead to the model again, so that they are copied with it.
        attributes = {id(r.dense): vars(r.dense) for r in replaced if vars(r.dense)}
        small, copied = deep_copy((model, attributes), memo, model=model)
        for dense, held in copied.items():
            vars(memo[dense]).update(held)
        return small, memo
    except (RuntimeError, TypeError) as error:
        raise PlanError(
            f"this {type(model).__name__} can't be copied ({error}); apply the plan with inplace=True, or detach "
            "what the model keeps beside its parameters and buffers"
        ) from error

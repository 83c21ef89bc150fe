"""An optimiser's state, cut down together with the parameters it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.errors import PlanError
from secateur.graph.cost import IntArray
from secateur.graph.entry_point import tensors_in
from secateur.graph.walk import modules_in, parameters_in
from secateur.plan import PruningPlan
from secateur.surgery.parameters import kept_copy


@dataclass(frozen=True, eq=False)
class CarriedState:
    """The smaller state of every parameter of the model that an optimiser holds.

    Attributes:
        parameter: the dense model's parameter.
        state: its new state; empty if it has none yet.
    """

    parameter: torch.Tensor
    state: dict[str, Any]


def optimizers_in(model: nn.Module) -> list[torch.optim.Optimizer]:
    """The optimisers that modules of a model keep as attributes and that hold some of its parameters."""
    found = {
        id(value): value
        for module in modules_in(model)
        for value in vars(module).values()
        if isinstance(value, torch.optim.Optimizer)
    }
    parameters = {id(p) for p in parameters_in(model)} if found else set()
    return [o for o in found.values() if any(id(p) in parameters for g in o.param_groups for p in g["params"])]


def carried_states(optimizer: torch.optim.Optimizer, model: nn.Module, plan: PruningPlan) -> list[CarriedState]:
    """What the optimiser knows of the kept part of every parameter of the model; nothing is touched.

    A state tensor of the parameter's shape, or of length 1 along some of its axes (a factored second moment), loses
    what the parameter loses; a single number stays.

    Raises:
        PlanError: this is no optimiser, it holds none of the model's parameters, or its state isn't one value per
            parameter index.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise PlanError(f"optimizer must be a torch.optim.Optimizer, not {type(optimizer).__name__}")
    names = {id(p): name for name, p in model.named_parameters()}
    held = [p for options in optimizer.param_groups for p in options["params"] if id(p) in names]
    if not held:
        raise PlanError(f"the optimizer holds none of the parameters of this {type(model).__name__}")
    return [CarriedState(p, _kept_state(optimizer, names[id(p)], p, plan)) for p in held]


def carry_over(
    optimizer: torch.optim.Optimizer, carried: list[CarriedState], successors: Mapping[int, torch.Tensor]
) -> None:
    """Give the optimiser the smaller state and, in place of the dense parameters, their successors.

    Args:
        optimizer: the optimiser.
        carried: what :func:`carried_states` returned.
        successors: identity of a dense parameter to the parameter that takes its place; itself if not named.
    """
    for options in optimizer.param_groups:
        # In place: some optimisers keep a reference to this list.
        options["params"][:] = [successors.get(id(p), p) for p in options["params"]]
    for item in carried:
        optimizer.state.pop(item.parameter, None)
        if item.state:
            optimizer.state[successors.get(id(item.parameter), item.parameter)] = item.state


def _kept_state(
    optimizer: torch.optim.Optimizer, name: str, parameter: torch.Tensor, plan: PruningPlan
) -> dict[str, Any]:
    # `get`: the state is a defaultdict, which looking must not fill.
    state = optimizer.state.get(parameter, {})
    axes = plan.shrunk_axes(name)
    return {key: _kept_value(value, parameter, axes, f"{key!r} of {name!r}") for key, value in state.items()}


def _kept_value(value: Any, parameter: torch.Tensor, axes: Mapping[int, IntArray], what: str) -> Any:
    if not isinstance(value, torch.Tensor):
        if any(True for _ in tensors_in(value)):
            raise _no_slice(what, f"is a {type(value).__name__} of tensors")
        return value
    if value.numel() == 1:
        return value
    if value.dim() != parameter.dim() or any(
        own not in (1, full) for own, full in zip(value.shape, parameter.shape, strict=True)
    ):
        raise _no_slice(what, f"has shape {tuple(value.shape)}, the parameter {tuple(parameter.shape)}")
    shared = {axis: indices for axis, indices in axes.items() if value.shape[axis] == parameter.shape[axis]}
    return kept_copy(value, shared)


def _no_slice(what: str, why: str) -> PlanError:
    return PlanError(
        f"the optimizer's state can't lose channels: {what} {why}; go on without this optimizer and make a new one "
        "afterwards"
    )

"""Weights that torch's older norms compute in a hook before every call, and keep as an attribute meanwhile."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from secateur.graph.walk import modules_in

_Hook = WeightNorm | SpectralNorm


def computed_weights(model: nn.Module) -> dict[int, torch.Tensor]:
    """Identity of every computed weight to the same without its gradient's history, with which none can be copied."""
    found = (vars(module).get(hook.name) for module, hook in _hooks(model))
    return {id(weight): weight.detach() for weight in found if isinstance(weight, torch.Tensor)}


def compute_again(model: nn.Module) -> None:
    """Compute these weights from the parameters as they are now, without a step of a power iteration."""
    for module, hook in _hooks(model):
        training, module.training = module.training, False
        try:
            hook(module, None)
        finally:
            module.training = training


def _hooks(model: nn.Module) -> list[tuple[nn.Module, Any]]:
    return [
        (module, hook)
        for module in modules_in(model)
        for hook in module._forward_pre_hooks.values()
        if isinstance(hook, _Hook)
    ]

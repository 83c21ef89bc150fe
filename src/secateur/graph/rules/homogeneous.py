"""Which results are scaled along when everything that makes their channels is scaled.

Queries and keys whose product is divided by the square root of their own width need it: once channels are gone the
divisor is another, and surgery makes up for that by scaling what makes the channels that stay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from secateur.graph.rules.base import OpCall, names
from secateur.graph.rules.contraction import PRODUCTS

_MOVES = frozenset(
    names(
        "view _unsafe_view _reshape_alias permute transpose t unsqueeze squeeze expand repeat repeat_interleave slice "
        "select unbind split split_with_sizes unsafe_split cat stack flip roll clone alias detach _to_copy neg add sub"
    )
)
"""Operators whose result is scaled by s if all their tensors are."""

_FACTORS = frozenset(names("mul div"))
"""Operators whose result is scaled by s if the first tensor is and the others have no channels."""


def is_homogeneous(call: OpCall, scales: Callable[[torch.Tensor], bool]) -> bool:
    """Whether the call's result is scaled by s when all parameters that make its channels are.

    Args:
        call: the executed call.
        scales: the same of a tensor argument; true of parameters.
    """
    operator = call.name.removeprefix("aten.")
    tensors = call.tensors()
    if operator in _MOVES:
        return all(map(scales, tensors))
    if operator in _FACTORS:
        first, *others = (call["self"], call["other"])
        return scales(first) and not any(isinstance(t, torch.Tensor) and call.labels_of(t) for t in others)
    if operator in PRODUCTS or operator in ("linear", "convolution"):
        *_, activations = sorted(tensors, key=call.is_weight, reverse=True)
        return not call.is_weight(activations) and sum(map(call.is_weight, tensors)) == len(tensors) - 1
    return False

"""The element-wise function that follows a module's output, found among the operators of an eager run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, eq=False)
class Following:
    """An operator that maps one tensor to one of the same shape, value by value, such as ReLU or sigmoid.

    Attributes:
        operator: the ATen operator.
        arguments: its other positional arguments, with None in the tensor's place.
        keywords: its keyword arguments.
        position: the tensor's place among the positional arguments.
    """

    operator: Any
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    position: int

    @property
    def name(self) -> str:
        """What PyTorch calls the operator, such as ``relu``."""
        return str(self.operator.overloadpacket.__name__).rstrip("_")

    def __call__(self, values: Tensor) -> Tensor:
        """The function of the values, differentiable; the values stay as they are even if the operator writes."""
        arguments = list(self.arguments)
        arguments[self.position] = values.clone() if self.operator._schema.is_mutable else values
        result: Tensor = self.operator(*arguments, **self.keywords)
        return result

    def is_same(self, other: Following) -> bool:
        """Whether both are the same function."""
        mine, its = ((f.operator, f.arguments, dict(f.keywords), f.position) for f in (self, other))
        return mine == its


def following(
    operator: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any], tensor: Tensor
) -> Following | None:
    """The operator as a function of one tensor; None if it isn't element-wise, or reads other tensors too."""
    tensors = [leaf for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)]
    is_random = torch.Tag.nondeterministic_seeded in operator.tags
    if torch.Tag.pointwise not in operator.tags or is_random or len(tensors) != 1 or not tensor.is_floating_point():
        return None
    positions = [i for i, argument in enumerate(arguments) if isinstance(argument, Tensor)]
    if not positions:
        return None
    others = tuple(None if i == positions[0] else argument for i, argument in enumerate(arguments))
    return Following(operator, others, dict(keywords), positions[0])

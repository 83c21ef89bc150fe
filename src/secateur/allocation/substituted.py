"""Run code that uses a model, any of its methods, with other tensors in the place of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from secateur.graph.storage import named_tensors, tied_names

Result = TypeVar("Result")


class Substituted:
    """A model whose tensors are replaced while a function runs; it gets its own back, whatever happens.

    Attributes:
        model: the model.
        first_of: other names of tied parameters and buffers, to the first.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._names = tuple(named_tensors(model))
        self.first_of = tied_names(named_tensors(model))
        self._caller = _Caller(model)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The model's own parameters and buffers, each under the first of its names."""
        return {name: t for name, t in named_tensors(self.model).items() if name not in self.first_of}

    def detached(self) -> dict[str, Tensor]:
        """Its parameters without gradients, and copies of its buffers: what a function does to those stays in them."""
        buffers = dict(self.model.named_buffers())
        # Tensors made in inference mode can't be used in a graph; their copies can.
        return {
            name: tensor.detach().clone() if name in buffers or tensor.is_inference() else tensor.detach()
            for name, tensor in self.tensors.items()
        }

    def run(self, function: Callable[[nn.Module], Result], tensors: Mapping[str, Tensor]) -> Result:
        """``function(model)`` with these tensors, by first names; tied names share them."""
        replaced = {f"model.{name}": tensors[self.first_of.get(name, name)] for name in self._names}
        result: Result = torch.func.functional_call(self._caller, replaced, (function,))
        return result


class _Caller(nn.Module):
    """Gives a model that may have no ``forward`` one: it calls a function with the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module], Result]) -> Result:
        return function(self.model)

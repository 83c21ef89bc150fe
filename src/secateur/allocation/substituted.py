"""Run code that uses a model, any of its methods, with other tensors in the place of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from secateur.graph.storage import named_tensors, tied_names

Result = TypeVar("Result")


class Substituted:
    """A model's tensors, to be replaced while a function runs; the model itself keeps its own, whatever happens.

    Attributes:
        tensors: parameters, detached, and copies of the buffers, each under the first of its names. What the function
            does to buffers happens to these copies.
    """

    def __init__(self, model: nn.Module) -> None:
        named = named_tensors(model)
        self._first_of = tied_names(named)
        self._all_names = tuple(named)
        buffers = dict(model.named_buffers())
        # Tensors made in inference mode can't be used in a graph; their copies can.
        self.tensors = {
            name: tensor.detach().clone() if name in buffers or tensor.is_inference() else tensor.detach()
            for name, tensor in named.items()
            if name not in self._first_of
        }
        self._caller = _Caller(model)

    def run(self, function: Callable[[nn.Module], Result], tensors: Mapping[str, Tensor]) -> Result:
        """``function(model)`` with these tensors, by first names; tied names share them."""
        replaced = {f"model.{name}": tensors[self._first_of.get(name, name)] for name in self._all_names}
        result: Result = torch.func.functional_call(self._caller, replaced, (function,))
        return result


class _Caller(nn.Module):
    """Gives a model that may have no ``forward`` one: it calls a function with the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module], Result]) -> Result:
        return function(self.model)

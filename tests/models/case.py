"""What the zoo's tests know of a model: how to build it, how to run it, and the groups a reader expects to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from secateur.graph import DependencyGraph, trace


@dataclass(frozen=True)
class Case:
    """A model of the zoo.

    Attributes:
        name: unique; the test's id.
        build: makes the model.
        inputs: makes the example inputs: a tensor, a tuple or a mapping.
        groups: the expected channel groups, name to size.
        blocks: equal blocks of the groups that have more than one.
        mixing: groups that a mixing operation meets, to a word of the reason given.
        ties: expected sets of groups that must keep equal fractions.
        run: called with the model and the inputs, where that isn't ``model(*inputs)``.
        mask: which slices to zero so that a channel vanishes: those that consume it (all, where nothing does), or all.
        keep: groups that can't be compared with masking, for a reason given beside them.
        counted: whether torch's own FLOP counter counts the same operators.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    groups: Mapping[str, int]
    blocks: Mapping[str, int] = field(default_factory=dict)
    mixing: Mapping[str, str] = field(default_factory=dict)
    ties: tuple[frozenset[str], ...] = ()
    run: Callable[[nn.Module, Any], Any] | None = None
    mask: Literal["consumers", "all"] = "consumers"
    keep: frozenset[str] = frozenset()
    counted: bool = True

    def model(self) -> nn.Module:
        """The model in float64 and eval mode, with nothing left at zero or one."""
        torch.manual_seed(0)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            model = self.build().eval()
        finally:
            torch.set_default_dtype(default)
        unsettle(model)
        return model

    def example(self) -> Any:
        """The example inputs, floating ones in float64; the same at every call."""
        torch.manual_seed(1)
        return doubled(self.inputs())

    def entry_point(self) -> Callable[[nn.Module], Any]:
        """Runs the model on the example, with the same random numbers every time."""
        inputs = self.example()

        def run(model: nn.Module) -> Any:
            torch.manual_seed(2)
            return call(model, inputs) if self.run is None else self.run(model, inputs)

        return run

    def graph(self) -> DependencyGraph:
        """Trace the model."""
        return trace(self.model(), run=self.entry_point())


class Step(nn.Module):
    """A function with its modules (in ``inner``), parameters, and buffers (names that begin with ``const``)."""

    def __init__(self, function: Callable[..., torch.Tensor], *modules: nn.Module, **parameters: torch.Tensor) -> None:
        super().__init__()
        self.inner = nn.ModuleList(modules)
        for name, value in parameters.items():
            if name.startswith("const"):
                self.register_buffer(name, value)
            else:
                setattr(self, name, nn.Parameter(value))
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output for one tensor, a tuple or a mapping."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def doubled(value: Any) -> Any:
    """Nested containers with their floating tensors in float64."""
    return tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, value)


def unsettle(model: nn.Module) -> None:
    """Give biases, norms and running statistics values that are not zero or one, so that no mistake can hide."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.dim() <= 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "bias" in name:
                parameter.normal_(0, 0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)

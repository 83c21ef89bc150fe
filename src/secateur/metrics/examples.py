"""Examples to measure a model on: inputs, and what its outputs are held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.calibration import evaluating
from secateur.errors import ObjectiveError
from secateur.metrics.checks import is_whole

Forward = Callable[[nn.Module, Tensor], Tensor]


def call(model: nn.Module, inputs: Tensor) -> Tensor:
    """``model(inputs)``."""
    outputs: Tensor = model(inputs)
    return outputs


@dataclass(frozen=True, eq=False)
class Examples:
    """What every metric of examples is given.

    Attributes:
        inputs: shape (examples, ...), on the model's device.
        targets: shape (examples, ...); the inputs themselves if not given, as for an autoencoder.
        batch_size: examples per call of the model.
        forward: how a model is run on a batch of inputs; ``model(inputs)`` if not given.

    Raises:
        ObjectiveError: no tensors, no examples, another number of targets than of inputs, or a batch size below 1.
    """

    inputs: Tensor
    targets: Tensor | None = None
    _: KW_ONLY
    batch_size: int = 500
    forward: Forward = call

    name: ClassVar[str] = "metric"

    def __post_init__(self) -> None:
        given: dict[str, Any] = {"inputs": self.inputs, "targets": self._targets}
        for what, value in given.items():
            if not isinstance(value, Tensor) or value.ndim == 0 or len(value) == 0:
                raise ObjectiveError(f"{self.name} needs {what} as a tensor with a row per example, not {_kind(value)}")
        if len(self._targets) != len(self.inputs):
            raise ObjectiveError(f"{self.name} got {len(self.inputs)} inputs but {len(self._targets)} targets")
        if not is_whole(self.batch_size, 1):
            raise ObjectiveError(f"{self.name} needs a batch_size of at least 1, not {self.batch_size!r}")

    @property
    def _targets(self) -> Tensor:
        return self.inputs if self.targets is None else self.targets

    def run(self, model: nn.Module, update: Callable[[Tensor, Tensor], object]) -> None:
        """Hand over the model's outputs and their targets, batch by batch, in evaluation mode and without gradients.

        Raises:
            ObjectiveError: the model returns something other than one tensor.
        """
        with evaluating(model), torch.no_grad():
            for inputs, targets in zip(*(t.split(self.batch_size) for t in (self.inputs, self._targets)), strict=True):
                outputs: Any = self.forward(model, inputs)
                if not isinstance(outputs, Tensor):
                    raise ObjectiveError(
                        f"{self.name} needs a model that returns one tensor, not {_kind(outputs)}; give "
                        "forward=lambda model, inputs: ..., which picks the tensor"
                    )
                update(outputs, targets)


def _kind(value: object) -> str:
    return f"one of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"

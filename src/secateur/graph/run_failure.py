"""What to do about an entry point that fails: the most likely causes, told from the model and the inputs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from secateur.graph.entry_point import EntryPoint, inputs_of
from secateur.graph.traced_size import TracedSize


def advice(model: nn.Module, entry_point: EntryPoint, error: Exception) -> str:
    """What to do about ``error``, which running ``entry_point`` on ``model`` raised."""
    if isinstance(error, NotImplementedError) and type(model).forward is nn.Module.forward:
        return (
            f"{type(model).__name__} has no forward: give run= instead of example_inputs, a function that takes the "
            "model and exercises it"
        )
    ours = list(chain(model.parameters(), model.buffers()))
    given = inputs_of(entry_point)
    if any(isinstance(t, FakeTensor) for t in given) and not any(isinstance(t, FakeTensor) for t in ours):
        return "The inputs are fake tensors and the model is not: give real ones, or put both on the meta device"
    model_devices, input_devices = _devices(ours), _devices(given)
    if len(model_devices) > 1:
        return f"The model is on several devices ({', '.join(model_devices)}): move it to one with model.to(...)"
    if input_devices and input_devices != model_devices:
        return (
            f"The inputs are on {', '.join(input_devices)} and the model on {model_devices[0]}: move one to the other"
        )
    if isinstance(error, ValueError) and "when training" in str(error):
        return "Batch norms in training mode need more than one row: call model.eval() first, or give more rows"
    if isinstance(error, RuntimeError) and "does not require grad" in str(error):
        return "The code takes gradients, which are off while it is traced: wrap that part in torch.enable_grad()"
    if TracedSize.__name__ in str(error):
        return (
            "While it is traced, sizes are integers of a class of their own: ask isinstance(n, int), not type(n) is int"
        )
    return "Check that example_inputs (or run=) work with model(...) outside Secateur"


def _devices(tensors: Iterable[torch.Tensor]) -> list[str]:
    return sorted({str(t.device) for t in tensors})

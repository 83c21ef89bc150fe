"""Parameters and buffers with only the kept indices: the same class, dtype, device, memory format and gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from secateur.graph.cost import FloatArray, IntArray
from secateur.plan import PruningPlan, named_tensors

_MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True, eq=False)
class Replacement:
    """What becomes of one parameter or buffer.

    Attributes:
        dense: the model's own tensor object.
        data: the kept part of its values, in memory of its own (shared by tied tensors).
        grad: the kept part of its gradient, if it has one.
    """

    dense: torch.Tensor
    data: torch.Tensor
    grad: torch.Tensor | None


def replacements(model: nn.Module, plan: PruningPlan) -> list[Replacement]:
    """One replacement for every parameter and buffer object of a model that the plan fits; the model isn't touched.

    Takes about as long as copying the kept values.
    """
    data: dict[str, torch.Tensor] = {}
    found: dict[int, Replacement] = {}
    for name, tensor in named_tensors(model).items():
        first = plan.tied.get(name, name)
        axes = plan.shrunk_axes(name)
        if first not in data:
            data[first] = scaled(kept_copy(tensor, axes), plan.axis_scales(name))
        if id(tensor) not in found:
            grad = None if tensor.grad is None else kept_copy(tensor.grad, axes)
            found[id(tensor)] = Replacement(tensor, data[first], grad)
    return list(found.values())


def kept_copy(tensor: torch.Tensor, axes: Mapping[int, IntArray]) -> torch.Tensor:
    """A copy of the tensor that keeps only the given indices of the given axes."""
    values = tensor.detach()
    if not axes:
        return values.clone()
    # The axis that loses most goes first, so that the others have less to copy; among equals the outermost, whose runs
    # in memory are longest.
    for axis in sorted(axes, key=lambda a: (len(axes[a]) / tensor.shape[a], a)):
        values = values.index_select(axis, _index(axes[axis], tensor.device))
    memory_format = _MEMORY_FORMATS.get(tensor.dim()) if tensor.layout == torch.strided else None
    if memory_format is None or tensor.is_contiguous() or not tensor.is_contiguous(memory_format=memory_format):
        return values
    return values.contiguous(memory_format=memory_format)


def _index(indices: IntArray, device: torch.device) -> torch.Tensor:
    """Indices as a tensor; on the CPU, the same memory where torch can take it."""
    return torch.from_numpy(indices if indices.flags.writeable else indices.copy()).to(device)


def scaled(values: torch.Tensor, scales: Mapping[int, FloatArray]) -> torch.Tensor:
    """``values`` times a factor per index of the given axes."""
    for axis, factors in scales.items():
        shape = [-1 if d == axis else 1 for d in range(values.dim())]
        values = values * torch.tensor(factors, dtype=values.dtype, device=values.device).reshape(shape)
    return values


def made_like(replacement: Replacement) -> torch.Tensor:
    """A tensor object of the dense one's class, without attributes, that holds the replacement."""
    dense = replacement.dense
    made: torch.Tensor = torch.Tensor._make_subclass(type(dense), replacement.data, dense.requires_grad)
    made.grad = replacement.grad
    return made


def put_in_place(replacement: Replacement) -> None:
    """Let the dense tensor object itself hold the replacement: everything that refers to it goes on working."""
    dense = replacement.dense
    if dense.layout != torch.strided:
        return  # a sparse tensor loses nothing, and can't be given other values
    dense.grad = None
    # A graph recorded before the surgery may still hold the node that accumulates this tensor's gradient, with the old
    # shape; torch makes a new node when the dtype changes, and only then.
    other_dtype = torch.float32 if dense.dtype == torch.float64 else torch.float64
    dense.data = torch.empty(0, dtype=other_dtype, device=dense.device)
    dense.data = replacement.data
    dense.grad = replacement.grad

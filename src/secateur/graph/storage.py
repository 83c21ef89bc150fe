"""A model's tensors by name, and which are the same memory: ties by storage, and views that merely overlap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import pairwise

import torch
from torch import nn


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under all of its names, parameters first."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def tied_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names whose tensor is the same memory, seen the same way, as that of an earlier name, to the first such name."""
    first_of: dict[Hashable, str] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = (storage_address(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
        first = first_of.setdefault(key, name) if tensor.numel() else name
        if first != name:
            tied[name] = first
    return tied


def overlapping_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names whose memory overlaps another's without being seen the same way (a transpose, a part), to that other."""
    tied = tied_names(tensors)
    spans = sorted(
        (storage_address(t), t.storage_offset(), t.storage_offset() + _extent(t), name)
        for name, t in tensors.items()
        if t.numel() and name not in tied
    )
    result: dict[str, str] = {}
    for before, after in pairwise(spans):
        if before[0] == after[0] and after[1] < before[2]:
            result[before[3]] = after[3]
            result[after[3]] = before[3]
    return result


def storage_address(tensor: torch.Tensor) -> int:
    """The storage's own address, which also tells tensors on the meta device apart, which have no data."""
    return int(tensor.untyped_storage()._cdata)


def _extent(tensor: torch.Tensor) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))

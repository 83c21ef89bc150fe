"""A model's tensors by name, and which are the same memory: ties by storage, and views that merely overlap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

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
        first = first_of.setdefault(_place(tensor), name) if tensor.numel() else name
        if first != name:
            tied[name] = first
    return tied


def overlapping_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names whose memory overlaps another's without being seen the same way (a transpose, a part), to that other."""
    tied = tied_names(tensors)
    in_storage: dict[int, list[tuple[int, int, str]]] = {}
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and tensor.numel() and name not in tied:
            start = int(tensor.storage_offset())
            in_storage.setdefault(storage_address(tensor), []).append((start, start + _extent(tensor), name))
    result: dict[str, str] = {}
    for spans in in_storage.values():
        # In order of where they start, each against the one that reaches furthest so far.
        (_, reach, furthest), *others = sorted(spans)
        for start, end, name in others:
            if start < reach:
                result[name] = furthest
                result.setdefault(furthest, name)
            if end > reach:
                reach, furthest = end, name
    return result


def _place(tensor: torch.Tensor) -> Hashable:
    """What tells tensors with memory of their own apart; of one without strides (a sparse one), the object itself."""
    if tensor.layout != torch.strided:
        return id(tensor)
    return storage_address(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


def storage_address(tensor: torch.Tensor) -> int:
    """The storage's own address, which also tells tensors on the meta device apart, which have no data."""
    return int(tensor.untyped_storage()._cdata)


def _extent(tensor: torch.Tensor) -> int:
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))

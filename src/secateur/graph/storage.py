"""A model's tensors by name, and which are the same memory: ties by storage, and views that merely overlap."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import nn

from secateur.graph.walk import named_modules


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under all of its names, parameters first."""
    modules = named_modules(model, all_names=True)
    return {**_held(modules, "_parameters"), **_held(modules, "_buffers")}


def named_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every buffer under all of its names."""
    return _held(named_modules(model, all_names=True), "_buffers")


def _held(modules: list[tuple[str, nn.Module]], mapping: str) -> dict[str, torch.Tensor]:
    return {
        f"{path}.{name}" if path else name: tensor
        for path, module in modules
        for name, tensor in getattr(module, mapping).items()
        if tensor is not None
    }


def tied_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names whose tensor is the same memory, seen the same way, as that of an earlier name, to the first such name."""
    tied: dict[str, str] = {}
    for names in _in_one_storage(tensors):
        first_of: dict[Hashable, str] = {}
        for name in names:
            first = first_of.setdefault(_place(tensors[name]), name)
            if first != name:
                tied[name] = first
    return tied


def overlapping_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names whose memory overlaps another's without being seen the same way (a transpose, a part), to that other."""
    result: dict[str, str] = {}
    for names in _in_one_storage(tensors):
        if tensors[names[0]].layout == torch.strided:
            first_of = {_place(tensors[name]): name for name in reversed(names)}
            _note_overlaps([_span(name, tensors[name]) for name in first_of.values()], result)
    return result


def _note_overlaps(spans: list[tuple[int, int, str]], result: dict[str, str]) -> None:
    # In order of where they start, each against the one that reaches furthest so far.
    (_, reach, furthest), *others = sorted(spans)
    for start, end, name in others:
        if start < reach:
            result[name] = furthest
            result.setdefault(furthest, name)
        if end > reach:
            reach, furthest = end, name


def _in_one_storage(tensors: Mapping[str, torch.Tensor]) -> list[list[str]]:
    """The names in every storage that holds several tensors."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            names.setdefault(storage_address(tensor), []).append(name)
    return [together for together in names.values() if len(together) > 1]


def _place(tensor: torch.Tensor) -> Hashable:
    """What tells tensors with memory of their own apart; of one without strides (a sparse one), the object itself."""
    if tensor.layout != torch.strided:
        return id(tensor)
    return storage_address(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()


def storage_address(tensor: torch.Tensor) -> int:
    """The storage's own address, which also tells tensors on the meta device apart, which have no data.

    Of a tensor without strides (a sparse one), which has no storage, what tells the object itself apart.
    """
    return int(tensor.untyped_storage()._cdata) if tensor.layout == torch.strided else id(tensor)


def _span(name: str, tensor: torch.Tensor) -> tuple[int, int, str]:
    start = int(tensor.storage_offset())
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + extent, name


def plain_tensors(model: nn.Module) -> dict[int, tuple[str, str, torch.Tensor]]:
    """Path of the module, attribute and tensor of every floating one kept as a plain attribute, by its identity."""
    return {
        id(value): (path, name, value)
        for path, module in named_modules(model)
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.layout == torch.strided
    }

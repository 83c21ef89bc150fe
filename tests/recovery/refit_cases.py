"""Plans written by hand, and their models sliced by hand, so that refit can be tested without trace and surgery."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.graph.groups import Consumer
from secateur.plan import PruningPlan


def hand_plan(
    model: nn.Module,
    kept: Mapping[tuple[str, int], Sequence[int]],
    consumers: Sequence[tuple[str, int]],
    attributes: Mapping[str, int] | None = None,
) -> PruningPlan:
    """A plan that keeps these indices; other axes stay whole."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return PruningPlan(
        shapes={name: tuple(t.shape) for name, t in tensors.items()},
        kept={axis: np.asarray(indices, dtype=np.int64) for axis, indices in kept.items()},
        groups={},
        sizes={},
        consumers=tuple(Consumer(*c) for c in consumers),
        attributes=attributes or {},
    )


def sliced(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """The model with only the kept indices."""
    small = copy.deepcopy(model)
    for name in plan.shapes:
        path, _, attribute = name.rpartition(".")
        module = small.get_submodule(path)
        tensor = getattr(module, attribute)
        data = tensor.data
        for axis, indices in plan.shrunk_axes(name).items():
            data = data.index_select(axis, torch.tensor(indices))
        is_parameter = isinstance(tensor, nn.Parameter)
        setattr(module, attribute, nn.Parameter(data, tensor.requires_grad) if is_parameter else data)
    for name, value in plan.attributes.items():
        path, _, attribute = name.rpartition(".")
        setattr(small.get_submodule(path), attribute, value)
    return small


def make_redundant(producer: Any, kept: Sequence[int], *, axis: int = 0, pool: Mapping[int, Sequence[int]]) -> None:
    """Make every output channel in ``pool`` a random combination of the kept ones named for it."""
    weight, bias = producer.weight.data.movedim(axis, 0), producer.bias
    for channel, sources in pool.items():
        assert set(sources) <= set(kept)
        mix = torch.randn(len(sources), dtype=weight.dtype)
        weight[channel] = torch.tensordot(mix, weight[list(sources)], dims=1)
        if bias is not None:
            bias.data[channel] = mix @ bias.data[list(sources)]

"""Sizes that the code reads: integers that remember which labels they count."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from secateur.graph.handlers.ties import traced_shape
from secateur.graph.labels import labels_along
from secateur.graph.torch_calls import Called, handles


@handles(torch.Tensor.shape.__get__, torch.Tensor.size, arguments="input dim")  # type: ignore[attr-defined]
def _size(call: Called) -> Any:
    shape = torch.Size(traced_shape(call.tracer, call["input"]))
    dim = call.get("dim")
    return shape if dim is None or call.func is not torch.Tensor.size else shape[dim]


@handles(torch.Tensor.__len__, arguments="input")
def _len(call: Called) -> int:
    labels = labels_along(call.tracer.labels_of(call["input"]), 0)
    if labels is not None:
        call.tracer.facts.fix(labels, f"its length is read by len() ({call.tracer.where()}); x.shape would follow")
    return int(call.run())


@handles(torch.Tensor.numel, torch.numel, torch.Tensor.nelement, arguments="input")
def _numel(call: Called) -> int:
    return prod(traced_shape(call.tracer, call["input"]))

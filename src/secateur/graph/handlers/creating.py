"""Sizes given to functions that make new tensors, and what is broadcast to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from secateur.graph import algebra
from secateur.graph.handlers.ties import listed, new_axis, tie_to_constant
from secateur.graph.torch_calls import Called, handles
from secateur.graph.traced_size import TracedSize, plain


@handles(torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn, arguments="")
def _create(call: Called) -> Any:
    return _created(call, listed(call.rest or (call["size"],)))


@handles(torch.Tensor.new_zeros, torch.Tensor.new_ones, torch.Tensor.new_empty, arguments="input")
def _create_like(call: Called) -> Any:
    return _created(call, listed(call.rest or (call["size"],)))


@handles(torch.full, arguments="size fill_value")
@handles(torch.Tensor.new_full, arguments="input size fill_value")
def _create_full(call: Called) -> Any:
    if isinstance(call["fill_value"], TracedSize):
        call["fill_value"].source.note_number(call.name)
    return _created(call, list(call["size"]))


def _created(call: Called, sizes: Sequence[Any]) -> Any:
    """A new tensor: what its sizes follow, or, in torch's own modules, labels for whatever meets it."""
    tracer, result = call.tracer, call.run()
    factors = []
    for dim, size in enumerate(sizes):
        if isinstance(size, TracedSize) and plain(size) < 2:
            tie_to_constant(tracer, size, f"size given to {call.name}")
        elif plain(size) > 1 and (tracer.in_own_sizes or isinstance(size, TracedSize)):
            factors.append(new_axis(call, dim, size))
    tracer.set_labels(result, tuple(factors))
    return result


@handles(torch.broadcast_tensors, arguments="")
def _broadcast(call: Called) -> Any:
    """Broadcast together, dimensions that are not of length one must stay equally long."""
    results = call.run()
    tensors = listed(call.rest or (call["tensors"],))
    rank = results[0].dim()
    operands = [algebra.Operand.broadcast(call.tracer.labels_of(t), t.shape, rank) for t in tensors]
    algebra.align(call.tracer.facts, operands, f"broadcast_tensors in {call.tracer.where()}")
    return results


@handles(torch.arange, torch.linspace, arguments="")
def _count(call: Called) -> Any:
    for size in (*call.args, *call.kwargs.values()):
        if isinstance(size, TracedSize):
            size.source.pin(f"the numbers of {call.name}")
    return call.run()

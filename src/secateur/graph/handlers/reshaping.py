"""Sizes given to reshapes, expansions and repetitions."""

from __future__ import annotations

import math
from typing import Any

import torch

from secateur.graph import algebra
from secateur.graph.handlers.ties import (
    listed,
    new_axis,
    size_given,
    stacked_dims,
    telling,
    tie_to_constant,
    traced_shape,
)
from secateur.graph.labels import labels_along
from secateur.graph.torch_calls import Called, handles
from secateur.graph.traced_size import TracedSize, plain


def _reshape_to(call: Called, sizes: list[Any], dim: int | None = None) -> Any:
    """Run a reshape to these sizes: of the whole tensor, or of the dimension ``dim`` alone."""
    tracer, lengths = call.tracer, list(map(plain, sizes))
    what = f"{call.name}({', '.join(map(str, lengths))})"
    given = dict(enumerate(sizes, dim or 0))
    follows = frozenset(dim for dim, size in given.items() if isinstance(size, TracedSize) or plain(size) == -1)
    widths = _block_widths(call["input"], lengths, dim, follows) if tracer.labels_of(call["input"]) else frozenset()
    site = tracer.where() if widths else ""
    if widths and tracer.whole_at(site):
        tracer.trace.whole[site] = None
        follows -= widths
    with telling(tracer, flexible=None if tracer.in_own_sizes else stacked_dims(call["input"], follows)):
        result = call.run()
    splits = [f.labels for f in tracer.labels_of(result) if f.free in widths and len(f.dims) > 1]
    if splits:
        tracer.trace.splits.setdefault(site, []).extend(splits)
    for place, size in given.items():
        size_given(tracer, result, place, size, what)
    return result


def _block_widths(tensor: torch.Tensor, sizes: list[int], dim: int | None, follows: frozenset[int]) -> frozenset[int]:
    """Output dimensions that are widths of blocks into which a reshape splits, where their number could follow too."""
    before = list(tensor.shape)
    total = tensor.numel() if dim is None else before[dim]
    known = math.prod(size for size in sizes if size != -1)
    if not known or not total or total % known:
        return frozenset()
    inner = [total // known if size == -1 else size for size in sizes]
    after = inner if dim is None else [*before[:dim], *inner, *before[dim + 1 :]]
    if math.prod(after) != tensor.numel():
        return frozenset()  # an expansion
    parts = [part for part in algebra.segments(before, after) if len(part.outputs) > 1]
    return frozenset(p.outputs[-1] for p in parts if p.outputs[-1] in follows and follows & set(p.outputs[:-1]))


@handles(
    torch.Tensor.view, torch.Tensor.reshape, torch.reshape,
    torch.Tensor.expand, torch.Tensor.broadcast_to, torch.broadcast_to,
    arguments="input",
)  # fmt: skip
def _view(call: Called) -> Any:
    sizes = listed(call.rest or tuple(call.get("shape", "size", default=())))
    if "dtype" in call.named or any(isinstance(size, torch.dtype) for size in sizes):
        return call.run()
    if call["input"].is_nested:
        return call.run()  # not followed, and some of its sizes aren't numbers
    return _reshape_to(call, sizes)


@handles(torch.Tensor.view_as, torch.Tensor.reshape_as, arguments="input other")
def _view_as(call: Called) -> Any:
    return _reshape_to(call, traced_shape(call.tracer, call["other"]))


@handles(torch.Tensor.expand_as, arguments="input other")
def _expand_as(call: Called) -> Any:
    """A tensor as long as another, index by index, wherever that shrinks."""
    tracer, other = call.tracer, call["other"]
    with telling(tracer, flexible=stacked_dims(call["input"], range(other.dim()))):
        result = call.run()
    operands = [algebra.Operand(tracer.labels_of(t), tuple(other.shape)) for t in (result, other)]
    tracer.set_labels(result, algebra.align(tracer.facts, operands, f"expand_as in {tracer.where()}"))
    return result


@handles(torch.repeat_interleave, torch.Tensor.repeat_interleave, arguments="input repeats")
def _repeat_interleave(call: Called) -> Any:
    """How often each index is repeated stays as it is."""
    if isinstance(call.get("repeats"), TracedSize):
        tie_to_constant(call.tracer, call["repeats"], f"how often {call.name} repeats")
    with telling(call.tracer, flexible=frozenset()):
        return call.run()


@handles(torch.Tensor.repeat, torch.Tensor.tile, torch.tile, arguments="input")
def _repeat(call: Called) -> Any:
    """A dimension of length one that is repeated as often as a size says is that long."""
    tracer, tensor = call.tracer, call["input"]
    times = listed(call.rest or tuple(call.get("repeats", "dims", default=())))
    result = call.run()
    first = result.dim() - len(times)
    factors = []
    for dim, count in enumerate(times, first):
        before = dim - (result.dim() - tensor.dim())
        if not isinstance(count, TracedSize):
            continue
        if plain(count) > 1 and (before < 0 or tensor.shape[before] == 1):
            factors.append(new_axis(call, dim, count))
        else:
            tie_to_constant(tracer, count, f"how often {call.name} repeats")
    tracer.set_labels(result, (*tracer.labels_of(result), *factors))
    return result


@handles(torch.Tensor.unflatten, torch.unflatten, arguments="input dim sizes")
def _unflatten(call: Called) -> Any:
    tracer, dim = call.tracer, call["dim"] % call["input"].dim()
    if not tracer.in_own_sizes:
        return _reshape_to(call, list(call["sizes"]), dim)
    # nn.Unflatten: whole blocks leave, and the first of its sizes follows.
    with telling(tracer, flexible=stacked_dims(call["input"], [dim])):
        result = call.run()
    labels = labels_along(tracer.labels_of(result), dim)
    if labels is not None:
        tracer.count_by("unflattened_size[0]", labels)
    return result

"""Indices at which the code cuts an axis: splits, slices, narrow."""

from __future__ import annotations

import operator
from typing import Any

import torch

from secateur.graph.expression import Count, Expression
from secateur.graph.handlers.ties import fix_every_row, size_given, telling, tie, tie_to_constant
from secateur.graph.labels import Labels, labels_along
from secateur.graph.torch_calls import Called, handles
from secateur.graph.traced_size import TracedSize, plain
from secateur.graph.tracer import Tracer


@handles(torch.split, torch.Tensor.split, torch.functional.split, arguments="tensor split_size dim")
def _split(call: Called) -> Any:
    sizes = call.get("split_size", "split_size_or_sections")
    with telling(call.tracer, sized=isinstance(sizes, (tuple, list))):
        pieces = call.run()
    dim = call.get("dim", default=0) % call["tensor"].dim()
    listed = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes] * (len(pieces) - 1)
    for piece, size in zip(pieces, listed, strict=False):
        size_given(call.tracer, piece, dim, size, "split")
    if isinstance(sizes, TracedSize):
        # The last of equal pieces is what is left over: never more than that.
        last = pieces[-1]
        if len(pieces) == 1 or last.shape[dim] < plain(sizes):
            _stays_beyond(call.tracer, labels_along(call.tracer.labels_of(last), dim), sizes, last.shape[dim])
    return pieces


@handles(torch.tensor_split, torch.Tensor.tensor_split, arguments="input indices_or_sections dim")
def _tensor_split(call: Called) -> Any:
    given = call.get("indices_or_sections", "indices", "sections")
    return _split_at(call, given, call.get("dim", default=0))


@handles(torch.hsplit, torch.Tensor.hsplit, arguments="input indices_or_sections")
def _hsplit(call: Called) -> Any:
    return _split_at(call, call.get("indices_or_sections", "indices", "sections"), min(1, call["input"].dim() - 1))


@handles(torch.vsplit, torch.Tensor.vsplit, arguments="input indices_or_sections")
def _vsplit(call: Called) -> Any:
    return _split_at(call, call.get("indices_or_sections", "indices", "sections"), 0)


@handles(torch.dsplit, torch.Tensor.dsplit, arguments="input indices_or_sections")
def _dsplit(call: Called) -> Any:
    return _split_at(call, call.get("indices_or_sections", "indices", "sections"), 2)


def _split_at(call: Called, given: Any, dim: int) -> Any:
    """Cut points stay where they are, or follow; into a number of pieces, all keep equally many."""
    tracer, tensor = call.tracer, call["input"]
    labels = labels_along(tracer.labels_of(tensor), dim % tensor.dim())
    if isinstance(given, (tuple, list)):
        for index in given:
            _cut(tracer, tensor, dim % tensor.dim(), index, call.name)
    elif labels is not None and int(given) > 1:
        if len(labels) % int(given):
            fix_every_row(tracer, tensor, dim % tensor.dim(), slice(None), f"{call.name} in unequal pieces")
        else:
            tracer.facts.balance(labels.reshape(int(given), -1), f"{call.name} ({tracer.where()})")
    return call.run()


@handles(torch.narrow, torch.Tensor.narrow, arguments="input dim start length")
def _narrow(call: Called) -> Any:
    dim = call["dim"] % call["input"].dim()
    _cut(call.tracer, call["input"], dim, call["start"], "narrow")
    result = call.run()
    size_given(call.tracer, result, dim, call["length"], "narrow")
    return result


@handles(torch.Tensor.__getitem__, torch.Tensor.__setitem__, arguments="input index")
def _getitem(call: Called) -> Any:
    tensor, items = call["input"], call["index"] if isinstance(call["index"], tuple) else (call["index"],)
    dim = 0
    for position, item in enumerate(items):
        if item is Ellipsis:
            dim = tensor.dim() - sum(_dims_used(i) for i in items[position + 1 :])
        elif isinstance(item, slice):
            _slice(call.tracer, tensor, dim, item)
            dim += 1
        else:
            dim += _dims_used(item)
    return call.run()


def _dims_used(item: Any) -> int:
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, torch.Tensor) and item.dtype in (torch.bool, torch.uint8):
        return item.dim()
    return 1


def _slice(tracer: Tracer, tensor: torch.Tensor, dim: int, item: slice) -> None:
    start, stop = item.start, item.stop
    if item.step is not None and (isinstance(item.step, TracedSize) or item.step != 1):
        _strided_slice(tracer, tensor, dim, item)
        return
    if start is not None:
        _cut(tracer, tensor, dim, start, "a slice")
    if isinstance(start, TracedSize) and isinstance(stop, TracedSize) and 0 < plain(start) < plain(stop):
        _given_piece(tracer, tensor, dim, start, stop)
    elif stop is not None:
        _cut(tracer, tensor, dim, stop, "a slice")


def _strided_slice(tracer: Tracer, tensor: torch.Tensor, dim: int, item: slice) -> None:
    """One index of every block, from the first block to the end: whole blocks leave. Otherwise everything stays."""
    stop, step, length = item.stop, item.step, tensor.shape[dim]
    start = 0 if item.start is None else item.start
    reason = f"strided slice ({tracer.where()})"
    if not (type(start) is type(step) is int and 0 <= start < step and _is_end(stop, length)):
        for bound in (start, stop, step):
            if isinstance(bound, TracedSize):
                bound.source.pin("a strided slice")
        fix_every_row(tracer, tensor, dim, slice(None), reason)
        return
    if isinstance(stop, TracedSize):
        _cut(tracer, tensor, dim, stop, "a slice")
    whole = length - length % step
    fix_every_row(tracer, tensor, dim, slice(whole, None), reason)
    for factor in tracer.labels_of(tensor):
        if factor.free == dim:
            blocks = factor.labels[..., :whole].reshape(-1, step)
            tracer.facts.equate(blocks, blocks[:, :1], reason)


def _is_end(stop: Any, length: int) -> bool:
    """Whether a slice ends with its axis; a size that follows must be no more than just as long."""
    if isinstance(stop, TracedSize):
        return plain(stop) == length
    return stop is None or (type(stop) is int and stop >= length)


def _given_piece(tracer: Tracer, tensor: torch.Tensor, dim: int, start: TracedSize, stop: TracedSize) -> None:
    """What lies between two cuts is as long as their difference."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    length = stop - start
    if labels is not None and isinstance(length, TracedSize):
        tie(tracer, labels[plain(start) : plain(stop)], length, "cut out by a slice")
    else:
        _cut(tracer, tensor, dim, stop, "a slice")


def _cut(tracer: Tracer, tensor: torch.Tensor, dim: int, bound: Any, what: str) -> None:
    """An axis is cut at index ``bound``: as many indices as that stay before it (after it, if negative)."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    if isinstance(bound, TracedSize):
        _cut_at_size(tracer, labels, bound, tensor.shape[dim], f"cut by {what}")
    elif labels is not None and not isinstance(bound, torch.Tensor) and 0 < abs(bound) < len(labels):
        part = slice(None, bound) if bound > 0 else slice(bound, None)
        fix_every_row(tracer, tensor, dim, part, f"cut by {what} at index {bound} ({tracer.where()})")


def _cut_at_size(tracer: Tracer, labels: Labels | None, bound: TracedSize, length: int, what: str) -> None:
    index = plain(bound)
    size = bound if index > 0 else -bound
    if abs(index) > length:
        _stays_beyond(tracer, labels, size, length)
    elif isinstance(size, TracedSize) and labels is not None and index:
        tie(tracer, labels[:index] if index > 0 else labels[index:], size, what)
    elif isinstance(size, TracedSize):
        tie_to_constant(tracer, size, f"{what}, where no labels are,")


def _stays_beyond(tracer: Tracer, labels: Labels | None, size: int, length: int) -> None:
    """A size that is no less than an axis is long must stay so."""
    if isinstance(size, TracedSize) and size.source.tracer is tracer:
        end = Expression.of(length if labels is None else Count(labels))
        size.source.keeps_relation(operator.ge, size.source.size + -end)

"""Sizes with provenance: what the code reads from shapes, and which sizes it gives to operators.

After surgery a forward pass can still hold yesterday's sizes, ``x.view(b, n, 4, 16)`` or ``h[:, :16]``. While
tracing, ``tensor.shape`` gives integers that remember which labels they count, so that a size which follows the model
is told from one that doesn't. A size that can't follow pins what it measures; one that follows ties the counts of
what it measures and where it came from. A module of torch.nn keeps its own sizes in attributes, which surgery
changes.

This is the place for more sources of sizes: attributes of the user's own modules, configuration objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from secateur.graph import algebra
from secateur.graph.labels import Factor, Labels, labels_along
from secateur.graph.rules.base import names
from secateur.graph.traced_size import Source, TracedFloat, TracedSize
from secateur.graph.tracer import Tracer, without_mkldnn


class SizeMode(TorchFunctionMode):
    """Watches the torch functions that the user's code calls, for the sizes that they read or are given."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None:
            return handler(self.tracer, func, args, kwargs or {})
        _note_numbers(func, (*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))


_ARITHMETIC = frozenset(names("add sub subtract mul multiply div divide truediv true_divide pow float_power"))

Handler = Callable[[Tracer, Any, Any, Any], Any]
_HANDLERS: dict[Any, Handler] = {}


def _handles(*functions: Any) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


def _note_numbers(func: Any, args: Any) -> None:
    """A traced size given to arithmetic is a number; to any other function, it may be a size that can't be followed."""
    for arg in args:
        for item in arg if isinstance(arg, (tuple, list)) else (arg,):
            if isinstance(item, (TracedSize, TracedFloat)):
                name = getattr(func, "__name__", "an operator")
                if name.strip("_").lstrip("ri") in _ARITHMETIC or name.strip("_") in _ARITHMETIC:
                    item.source.note_number(name)
                else:
                    item.source.pin(name)


# --- reading sizes ----------------------------------------------------------------------------------------------------


@_handles(torch.Tensor.shape.__get__)  # type: ignore[attr-defined]
def _shape(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> torch.Size:
    return torch.Size(_traced_shape(tracer, args[0], func(*args, **kwargs)))


@_handles(torch.Tensor.size)
def _size(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    result = func(*args, **kwargs)
    if isinstance(result, torch.Size):
        return torch.Size(_traced_shape(tracer, args[0], result))
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    return _traced_shape(tracer, args[0], tuple(args[0].size()))[dim]


@_handles(torch.Tensor.__len__)
def _len(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> int:
    labels = labels_along(tracer.labels_of(args[0]), 0)
    if labels is not None:
        tracer.facts.fix(labels, f"its length is read by len() ({tracer.where()}); x.shape would follow")
    return int(func(*args, **kwargs))


@_handles(torch.Tensor.numel, torch.numel, torch.Tensor.nelement)
def _numel(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> int:
    count = int(func(*args, **kwargs))
    factors = tracer.labels_of(args[0])
    if len(factors) == 1 and len(factors[0].dims) == 1:
        labels = factors[0].labels
        return TracedSize(count, Source(labels, count // len(labels), 1, tracer))
    for factor in factors:
        tracer.facts.fix(factor.labels, f"its elements are counted ({tracer.where()})")
    return count


def _traced_shape(tracer: Tracer, tensor: torch.Tensor, shape: Sequence[int]) -> list[int]:
    sizes = list(shape)
    for factor in tracer.labels_of(tensor):
        row = factor.labels.reshape(-1, factor.labels.shape[-1])[0]
        sizes[factor.free] = TracedSize(sizes[factor.free], Source(row, 1, 1, tracer))
    return sizes


# --- giving sizes -----------------------------------------------------------------------------------------------------


def _given(tracer: Tracer, tensor: torch.Tensor, dim: int, size: Any, what: str) -> None:
    """The code says that ``dim`` of ``tensor`` has this many indices."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    if labels is None:
        if isinstance(size, TracedSize) and tensor.shape[dim] > 1 and not _is_row(tracer, tensor, dim):
            size.source.pin(f"the size of an axis without labels in {what}")
        return
    if isinstance(size, TracedSize):
        _tie(tracer, labels, size, f"size given to {what}")
    elif size != -1 and not tracer.in_torch_module:
        tracer.facts.fix(
            labels,
            f"{what} has a size given as a number; -1, or one read from x.shape, would follow ({tracer.where()})",
        )


def _tie(tracer: Tracer, labels: Labels, size: TracedSize, what: str) -> None:
    """As many of ``labels`` stay as ``size`` counts; one kept from an earlier trace (in a cache) counts nothing now."""
    source = size.source
    reason = f"{what} by {tracer.where()}"
    if source.tracer is tracer:
        tracer.facts.same_count(labels, source.labels, reason, weight_a=source.over, weight_b=source.times)
    else:
        tracer.facts.fix(labels, reason)


def _is_row(tracer: Tracer, tensor: torch.Tensor, dim: int) -> bool:
    return any(dim in f.dims for f in tracer.labels_of(tensor))


def _listed(args: Sequence[Any]) -> list[Any]:
    """Sizes given one by one or as one sequence."""
    return list(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list, torch.Size)) else list(args)


def _reshape_to(tracer: Tracer, func: Any, args: Any, kwargs: Any, sizes: list[Any], first_dim: int = 0) -> Any:
    """Run a reshape whose output dimensions from ``first_dim`` on have these sizes."""
    given = {first_dim + i: size for i, size in enumerate(sizes)}
    if not tracer.in_torch_module:
        known = range(first_dim, first_dim + len(sizes))
        tracer.flexible = frozenset(d for d in known if given[d] == -1 or isinstance(given[d], TracedSize))
    try:
        result = func(*args, **kwargs)
    finally:
        tracer.flexible = None
    what = f"{func.__name__}({', '.join(str(int(size)) for size in sizes)})"
    for dim, size in given.items():
        _given(tracer, result, dim, size, what)
    return result


@_handles(
    torch.Tensor.view, torch.Tensor.reshape, torch.reshape,
    torch.Tensor.expand, torch.Tensor.broadcast_to, torch.broadcast_to,
)  # fmt: skip
def _view(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    sizes = _listed(args[1:]) if len(args) > 1 else list(kwargs.get("shape", kwargs.get("size", ())))
    if any(isinstance(size, torch.dtype) for size in sizes) or "dtype" in kwargs:
        return func(*args, **kwargs)
    return _reshape_to(tracer, func, args, kwargs, sizes)


@_handles(torch.Tensor.unflatten, torch.unflatten)
def _unflatten(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    tensor = args[0]
    dim = (args[1] if len(args) > 1 else kwargs["dim"]) % tensor.dim()
    sizes = list(args[2] if len(args) > 2 else kwargs["sizes"])
    if not tracer.in_torch_module:
        return _reshape_to(tracer, func, args, kwargs, sizes, dim)
    # nn.Unflatten: whole blocks leave, and the first of its sizes follows.
    tracer.flexible = frozenset({dim})
    try:
        result = func(*args, **kwargs)
    finally:
        tracer.flexible = None
    labels = labels_along(tracer.labels_of(result), dim)
    if labels is not None:
        tracer.trace.counted.append((tracer.module_path, "unflattened_size", 0, labels))
    return result


@_handles(
    torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn,
    torch.Tensor.new_zeros, torch.Tensor.new_ones, torch.Tensor.new_empty, torch.Tensor.new_full,
)  # fmt: skip
def _create(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    result = func(*args, **kwargs)
    given = args[1:] if args and isinstance(args[0], torch.Tensor) else args
    sizes = kwargs.get("size") or (given[0] if func in (torch.full, torch.Tensor.new_full) else _listed(given))
    factors = []
    for dim, size in enumerate(sizes):
        if size > 1 and (tracer.in_torch_module or isinstance(size, TracedSize)):
            labels = tracer.facts.fresh(int(size))
            factors.append(Factor((dim,), labels))
            if isinstance(size, TracedSize):
                _tie(tracer, labels, size, f"size given to {func.__name__}")
    tracer.set_labels(result, tuple(factors))
    return result


@_handles(torch.broadcast_tensors)
def _broadcast(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """Broadcast together, dimensions that are not of length one must stay equally long."""
    results = func(*args, **kwargs)
    rank = results[0].dim()
    tensors = args[0] if isinstance(args[0], (tuple, list)) else args
    operands = []
    for tensor in tensors:
        shift = rank - tensor.dim()
        factors = tuple(f.moved([d + shift for d in range(tensor.dim())]) for f in tracer.labels_of(tensor))
        operands.append(algebra.Operand(factors, (1,) * shift + tuple(tensor.shape)))
    algebra.align(tracer.facts, operands, f"broadcast_tensors in {tracer.where()}")
    return results


@_handles(torch.arange, torch.linspace)
def _count(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    for size in (*args, *kwargs.values()):
        if isinstance(size, TracedSize):
            size.source.pin(f"the numbers of {func.__name__}")
    return func(*args, **kwargs)


@_handles(torch.split, torch.Tensor.split, torch.functional.split)
def _split(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    sizes = args[1] if len(args) > 1 else kwargs.get("split_size", kwargs.get("split_size_or_sections"))
    tracer.sized = isinstance(sizes, (tuple, list))
    try:
        pieces = func(*args, **kwargs)
    finally:
        tracer.sized = False
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].dim()
    listed = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes] * (len(pieces) - 1)
    # The last of equal pieces is what is left over.
    for piece, size in zip(pieces, listed, strict=False):
        _given(tracer, piece, dim, size, "split")
    return pieces


@_handles(torch.narrow, torch.Tensor.narrow)
def _narrow(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    named = dict(zip(("input", "dim", "start", "length"), args, strict=False)) | kwargs
    tensor, dim, start = args[0], named["dim"] % args[0].dim(), named["start"]
    _cut(tracer, tensor, dim, start, "narrow")
    result = func(*args, **kwargs)
    _given(tracer, result, dim, named["length"], "narrow")
    return result


@_handles(torch.Tensor.__getitem__, torch.Tensor.__setitem__)
def _getitem(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    tensor, items = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    dim = 0
    for position, item in enumerate(items):
        if item is Ellipsis:
            dim = tensor.dim() - sum(_dims_used(i) for i in items[position + 1 :])
        elif isinstance(item, slice):
            _slice(tracer, tensor, dim, item)
            dim += 1
        else:
            dim += _dims_used(item)
    return func(*args, **kwargs)


def _dims_used(item: Any) -> int:
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, torch.Tensor) and item.dtype in (torch.bool, torch.uint8):
        return item.dim()
    return 1


def _slice(tracer: Tracer, tensor: torch.Tensor, dim: int, item: slice) -> None:
    if item.step not in (None, 1):
        _fix_every_row(tracer, tensor, dim, slice(None), f"strided slice ({tracer.where()})")
        return
    for bound in (item.start, item.stop):
        if bound is not None:
            _cut(tracer, tensor, dim, bound, "a slice")


def _cut(tracer: Tracer, tensor: torch.Tensor, dim: int, bound: Any, what: str) -> None:
    """An axis is cut at index ``bound``: as many indices as that stay before it (after it, if negative)."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    if labels is None or isinstance(bound, torch.Tensor):
        return
    if isinstance(bound, TracedSize):
        _tie(tracer, labels[: int(bound)], bound, f"cut by {what}")
    elif 0 < abs(bound) < len(labels):
        part = slice(None, bound) if bound > 0 else slice(bound, None)
        _fix_every_row(tracer, tensor, dim, part, f"cut by {what} at index {bound} ({tracer.where()})")


def _fix_every_row(tracer: Tracer, tensor: torch.Tensor, dim: int, part: slice, reason: str) -> None:
    for factor in tracer.labels_of(tensor):
        if factor.free == dim:
            tracer.facts.fix(factor.labels[..., part], reason)


# --- functions with sizes of their own --------------------------------------------------------------------------------


@_handles(F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d)
def _convolution(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    with _resizable(tracer, isinstance(groups, TracedSize)):
        return func(*args, **kwargs)


@contextmanager
def _resizable(tracer: Tracer, value: bool = True) -> Iterator[None]:
    """Integers given to the operators run meanwhile follow the model, those that expand a mask for all heads too."""
    tracer.resizable = value
    try:
        yield
    finally:
        tracer.resizable = False


@_handles(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
def _recurrent(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    with without_mkldnn():
        return func(*args, **kwargs)


@_handles(F.layer_norm, F.rms_norm)
def _layer_norm(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    shape = list(args[1] if len(args) > 1 else kwargs["normalized_shape"])
    tensor = args[0]
    first = tensor.dim() - len(shape)
    for position, size in enumerate(shape):
        labels = labels_along(tracer.labels_of(tensor), first + position)
        if labels is not None and tracer.in_torch_module:
            tracer.trace.counted.append((tracer.module_path, "normalized_shape", position, labels))
        _given(tracer, tensor, first + position, size, func.__name__)
    return func(*args, **kwargs)


@_handles(F.scaled_dot_product_attention)
def _own_scale(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """Without a scale, queries and keys are divided by the square root of their width, in whichever kernel."""
    named = dict(zip(("query", "key"), args, strict=False)) | kwargs
    if named.get("scale") is None:
        query = named["query"]
        linear = tracer.scales(query) and tracer.scales(named["key"])
        for factor in tracer.labels_of(query):
            if query.dim() - 1 in factor.dims:
                reason = f"scaled by its own width in scaled_dot_product_attention ({tracer.where()})"
                tracer.mix(factor.labels, reason, by_width=linear)
    return func(*args, **kwargs)


@_handles(F.multi_head_attention_forward)
def _attention(tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    """Whole heads leave, so that the head width and its scale stay; inner width and embedding shrink alike."""
    names = ("query", "key", "value", "embed_dim", "num_heads", "in_weight", "in_bias", "bias_k", "bias_v", "add_zero",
             "dropout", "out_weight", "out_bias")  # fmt: skip
    named = dict(zip(names, args, strict=False))
    query, out_weight = named["query"], named["out_weight"]
    heads = named["num_heads"]
    width = query.size(-1) // heads
    separate = [kwargs.get(f"{name}_proj_weight") for name in "qkv"]
    for tensor in (named["in_weight"], named["in_bias"], named["bias_k"], named["bias_v"], *separate):
        if tensor is not None:
            _coarsen(tracer, tensor, tensor.dim() - 1 if tensor.dim() == 3 else 0, width)
    _coarsen(tracer, out_weight, 1, width)
    with _resizable(tracer):
        result = func(*args, **kwargs)
    inner, outer = labels_along(tracer.labels_of(out_weight), 1), labels_along(tracer.labels_of(query), query.dim() - 1)
    reason = f"width of nn.MultiheadAttention and of its input ({tracer.where()})"
    if inner is not None:
        if outer is None or not tracer.in_torch_module:
            tracer.facts.fix(inner, f"{algebra.NO_INDEX}: {reason}")
        else:
            tracer.facts.same_count(inner, outer, reason)
    return result


def _coarsen(tracer: Tracer, tensor: torch.Tensor, axis: int, width: int) -> None:
    """From here on, blocks of ``width`` consecutive indices of a parameter axis leave together."""
    factors = []
    for factor in tracer.labels_of(tensor):
        if factor.dims == (axis,):
            blocks = factor.labels.reshape(-1, width)
            tracer.facts.equate(blocks, blocks[:, :1], f"whole heads leave ({tracer.where()})")
            factor = Factor((axis,), np.repeat(blocks[:, 0], width))
        factors.append(factor)
    tracer.set_labels(tensor, tuple(factors))

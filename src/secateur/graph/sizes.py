"""Sizes with provenance: what the code reads from shapes, and which sizes it gives to operators.

After surgery a forward pass can still hold yesterday's sizes, ``x.view(b, n, 4, 16)`` or ``h[:, :16]``. While
tracing, ``tensor.shape`` gives integers that remember which labels they count, so that a size which follows the model
is told from one that doesn't. A size that can't follow pins what it measures; one that follows ties the counts of
what it measures and where it came from. A module of torch.nn keeps its own sizes in attributes, which surgery
changes.

This is the place for more sources of sizes: attributes of the user's own modules, configuration objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from secateur.graph import algebra
from secateur.graph.labels import Factor, Labels, labels_along
from secateur.graph.rules.base import names
from secateur.graph.torch_calls import HANDLERS, Called, handles, note_numbers
from secateur.graph.traced_size import Source, TracedSize
from secateur.graph.tracer import Tracer, without_mkldnn


class SizeMode(TorchFunctionMode):
    """Watches the torch functions that the user's code calls, for the sizes that they read or are given."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in HANDLERS:
            arguments, handler = HANDLERS[func]
            named = dict(zip(arguments, args, strict=False)) | kwargs
            return handler(Called(self.tracer, func, args, kwargs, named, args[len(arguments) :]))
        note_numbers(func, (*args, *kwargs.values()))
        return func(*args, **kwargs)


# --- reading sizes ----------------------------------------------------------------------------------------------------


@handles(torch.Tensor.shape.__get__, torch.Tensor.size, arguments="input dim")  # type: ignore[attr-defined]
def _size(call: Called) -> Any:
    shape = torch.Size(_traced_shape(call.tracer, call["input"]))
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
    tracer, count = call.tracer, int(call.run())
    factors = tracer.labels_of(call["input"])
    if len(factors) == 1 and len(factors[0].dims) == 1:
        labels = factors[0].labels
        return TracedSize(count, Source(labels, count // len(labels), 1, tracer))
    for factor in factors:
        tracer.facts.fix(factor.labels, f"its elements are counted ({tracer.where()})")
    return count


def _traced_shape(tracer: Tracer, tensor: torch.Tensor) -> list[int]:
    sizes: list[int] = list(tensor.shape)
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


@contextmanager
def _set(tracer: Tracer, **values: Any) -> Iterator[None]:
    """What the rules are told of the operators run meanwhile; afterwards, nothing again."""
    before = {name: getattr(tracer, name) for name in values}
    for name, value in values.items():
        setattr(tracer, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(tracer, name, value)


def _reshape_to(call: Called, sizes: list[Any], first_dim: int = 0) -> Any:
    """Run a reshape whose output dimensions from ``first_dim`` on have these sizes."""
    tracer = call.tracer
    given = {first_dim + i: size for i, size in enumerate(sizes)}
    follows = frozenset(dim for dim, size in given.items() if size == -1 or isinstance(size, TracedSize))
    with _set(tracer, flexible=None if tracer.in_torch_module else follows):
        result = call.run()
    what = f"{call.name}({', '.join(str(int(size)) for size in sizes)})"
    for dim, size in given.items():
        _given(tracer, result, dim, size, what)
    return result


@handles(
    torch.Tensor.view, torch.Tensor.reshape, torch.reshape,
    torch.Tensor.expand, torch.Tensor.broadcast_to, torch.broadcast_to,
    arguments="input",
)  # fmt: skip
def _view(call: Called) -> Any:
    sizes = _listed(call.rest or tuple(call.get("shape", "size", default=())))
    if "dtype" in call.named or any(isinstance(size, torch.dtype) for size in sizes):
        return call.run()
    return _reshape_to(call, sizes)


@handles(torch.Tensor.unflatten, torch.unflatten, arguments="input dim sizes")
def _unflatten(call: Called) -> Any:
    tracer, dim = call.tracer, call["dim"] % call["input"].dim()
    if not tracer.in_torch_module:
        return _reshape_to(call, list(call["sizes"]), dim)
    # nn.Unflatten: whole blocks leave, and the first of its sizes follows.
    with _set(tracer, flexible=frozenset({dim})):
        result = call.run()
    labels = labels_along(tracer.labels_of(result), dim)
    if labels is not None:
        tracer.trace.counted.append((tracer.module_path, "unflattened_size", 0, labels))
    return result


@handles(torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn, arguments="")
def _create(call: Called) -> Any:
    return _created(call, _listed(call.rest or (call["size"],)))


@handles(torch.Tensor.new_zeros, torch.Tensor.new_ones, torch.Tensor.new_empty, arguments="input")
def _create_like(call: Called) -> Any:
    return _created(call, _listed(call.rest or (call["size"],)))


@handles(torch.full, arguments="size fill_value")
@handles(torch.Tensor.new_full, arguments="input size fill_value")
def _create_full(call: Called) -> Any:
    return _created(call, list(call["size"]))


def _created(call: Called, sizes: Sequence[Any]) -> Any:
    """A new tensor: what its sizes follow, or, in torch's own modules, labels for whatever meets it."""
    tracer, result = call.tracer, call.run()
    factors = []
    for dim, size in enumerate(sizes):
        if size > 1 and (tracer.in_torch_module or isinstance(size, TracedSize)):
            labels = tracer.facts.fresh(int(size))
            factors.append(Factor((dim,), labels))
            if isinstance(size, TracedSize):
                _tie(tracer, labels, size, f"size given to {call.name}")
    tracer.set_labels(result, tuple(factors))
    return result


@handles(torch.broadcast_tensors, arguments="")
def _broadcast(call: Called) -> Any:
    """Broadcast together, dimensions that are not of length one must stay equally long."""
    results = call.run()
    tensors = _listed(call.rest or (call["tensors"],))
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


@handles(torch.split, torch.Tensor.split, torch.functional.split, arguments="tensor split_size dim")
def _split(call: Called) -> Any:
    sizes = call.get("split_size", "split_size_or_sections")
    with _set(call.tracer, sized=isinstance(sizes, (tuple, list))):
        pieces = call.run()
    dim = call.get("dim", default=0) % call["tensor"].dim()
    listed = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes] * (len(pieces) - 1)
    # The last of equal pieces is what is left over.
    for piece, size in zip(pieces, listed, strict=False):
        _given(call.tracer, piece, dim, size, "split")
    return pieces


@handles(torch.narrow, torch.Tensor.narrow, arguments="input dim start length")
def _narrow(call: Called) -> Any:
    dim = call["dim"] % call["input"].dim()
    _cut(call.tracer, call["input"], dim, call["start"], "narrow")
    result = call.run()
    _given(call.tracer, result, dim, call["length"], "narrow")
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


@handles(F.conv1d, F.conv2d, F.conv3d, arguments="input weight bias stride padding dilation groups")
def _convolution(call: Called) -> Any:
    with _set(call.tracer, resizable=isinstance(call.get("groups"), TracedSize)):
        return call.run()


@handles(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, arguments="")
def _recurrent(call: Called) -> Any:
    with without_mkldnn():
        return call.run()


@handles(F.layer_norm, F.rms_norm, arguments="input normalized_shape")
def _layer_norm(call: Called) -> Any:
    tracer, tensor, shape = call.tracer, call["input"], call["normalized_shape"]
    first = tensor.dim() - len(shape)
    for position, size in enumerate(shape):
        labels = labels_along(tracer.labels_of(tensor), first + position)
        if labels is not None and tracer.in_torch_module:
            tracer.trace.counted.append((tracer.module_path, "normalized_shape", position, labels))
        _given(tracer, tensor, first + position, size, call.name)
    return call.run()


@handles(F.batch_norm, F.instance_norm, F.group_norm, arguments="input")
def _channel_norm(call: Called) -> Any:
    """Without parameters or statistics, only the module's attribute says how many channels there are."""
    labels = labels_along(call.tracer.labels_of(call["input"]), 1)
    if labels is not None and call.tracer.in_torch_module:
        attribute = "num_channels" if call.func is F.group_norm else "num_features"
        call.tracer.trace.counted.append((call.tracer.module_path, attribute, None, labels))
    return call.run()


@handles(F.scaled_dot_product_attention, arguments="query key value attn_mask dropout_p is_causal")
def _own_scale(call: Called) -> Any:
    """Without a scale, queries and keys are divided by the square root of their width, in whichever kernel."""
    tracer, query = call.tracer, call["query"]
    if call.get("scale") is None:
        linear = tracer.scales(query) and tracer.scales(call["key"])
        for factor in tracer.labels_of(query):
            if query.dim() - 1 in factor.dims:
                reason = f"scaled by its own width in scaled_dot_product_attention ({tracer.where()})"
                tracer.mix(factor.labels, reason, by_width=linear)
    return call.run()


@handles(
    F.multi_head_attention_forward,
    arguments="query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn "
    "dropout_p out_proj_weight out_proj_bias",
)
def _attention(call: Called) -> Any:
    """Whole heads leave, so that the head width and its scale stay; inner width and embedding shrink alike."""
    tracer, query, out_weight = call.tracer, call["query"], call["out_proj_weight"]
    width = query.size(-1) // call["num_heads"]
    makers = names("in_proj_weight in_proj_bias bias_k bias_v q_proj_weight k_proj_weight v_proj_weight")
    for tensor in map(call.get, makers):
        if tensor is not None:
            _coarsen(tracer, tensor, tensor.dim() - 1 if tensor.dim() == 3 else 0, width)
    _coarsen(tracer, out_weight, 1, width)
    # The number of heads follows, also where a mask is expanded to it.
    with _set(tracer, resizable=True):
        result = call.run()
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

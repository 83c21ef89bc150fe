"""Sizes with provenance: what the code reads from shapes, and which sizes it gives to operators.

After surgery a forward pass can still hold yesterday's sizes, ``x.view(b, n, 4, 16)`` or ``h[:, :16]``. While
tracing, ``tensor.shape`` gives integers that remember which labels they count, so that a size which follows the model
is told from one that doesn't. A size that can't follow pins what it measures; one that follows ties the counts of
what it measures and where it came from. A module of torch.nn keeps its own sizes in attributes, which surgery
changes. The integers that the user's own modules keep are traced as well (``attribute_sizes``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from secateur.graph import algebra
from secateur.graph.expression import Count, Expression
from secateur.graph.labels import Factor, Labels, SizeEquation, labels_along
from secateur.graph.rules.base import names
from secateur.graph.source import Source
from secateur.graph.torch_calls import HANDLERS, Called, handles, note_numbers
from secateur.graph.traced_size import TracedSize, plain
from secateur.graph.tracer import Tracer, without_mkldnn


class SizeMode(TorchFunctionMode):
    """Watches the torch functions that the user's code calls, for the sizes that they read or are given."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __exit__(self, *details: Any) -> None:
        self.tracer.is_over = True
        super().__exit__(*details)  # type: ignore[no-untyped-call]

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
        number: int = TracedSize(len(labels), Source.counting(labels, tracer)) * (count // len(labels))
        return number
    for factor in factors:
        tracer.facts.fix(factor.labels, f"its elements are counted ({tracer.where()})")
    return count


def _traced_shape(tracer: Tracer, tensor: torch.Tensor) -> list[int]:
    sizes: list[int] = list(tensor.shape)
    for factor in tracer.labels_of(tensor):
        row = factor.labels.reshape(-1, factor.labels.shape[-1])[0]
        sizes[factor.free] = TracedSize(sizes[factor.free], Source.counting(row, tracer))
    return sizes


# --- giving sizes -----------------------------------------------------------------------------------------------------


def _given(tracer: Tracer, tensor: torch.Tensor, dim: int, size: Any, what: str) -> None:
    """The code says that ``dim`` of ``tensor`` has this many indices."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    if labels is None:
        if isinstance(size, TracedSize):
            _tie_to_constant(tracer, size, f"the size of an axis without labels in {what}")
        return
    if isinstance(size, TracedSize):
        _tie(tracer, labels, size, f"size given to {what}")
    elif plain(size) != -1 and not tracer.in_own_sizes:
        tracer.facts.fix(
            labels,
            f"{what} has a size given as a number; -1, or one read from x.shape, would follow ({tracer.where()})",
        )


def _tie(tracer: Tracer, labels: Labels, size: TracedSize, what: str) -> None:
    """As many of ``labels`` stay as ``size`` counts; one kept from an earlier trace (in a cache) counts nothing now."""
    source, reason = size.source, f"{what} by {tracer.where()}"
    term = source.size.only
    if source.tracer is not tracer:
        tracer.facts.fix(labels, reason)
    elif term is not None and not term.down and len(term.up) == 1 and isinstance(term.up[0], Count):
        weights = {"weight_a": term.times.denominator, "weight_b": term.times.numerator}
        tracer.facts.same_count(labels, term.up[0].labels, reason, **weights)
    else:
        difference = Expression.of(Count(labels)) + -source.size
        tracer.facts.equations.append(SizeEquation(difference, reason, labels))


def _tie_to_constant(tracer: Tracer, size: TracedSize, what: str) -> None:
    """``size`` must stay what it is."""
    if size.source.tracer is tracer:
        difference = Expression.of(plain(size)) + -size.source.size
        tracer.facts.equations.append(SizeEquation(difference, f"{what} by {tracer.where()}", None))


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
    # The rule sees the stacked tensor; mapped dimensions are moved to the front.
    mapped = _mapped_dims(call["input"])
    with _set(tracer, flexible=None if tracer.in_own_sizes else frozenset(d + mapped for d in follows)):
        result = call.run()
    splits = [f.labels for f in tracer.labels_of(result) if f.free in widths and len(f.dims) > 1]
    if splits:
        tracer.trace.splits.setdefault(site, []).extend(splits)
    for place, size in given.items():
        _given(tracer, result, place, size, what)
    return result


def _mapped_dims(tensor: torch.Tensor) -> int:
    """How many of its dimensions ``torch.vmap`` hides from the code."""
    count = 0
    while torch._C._functorch.is_batchedtensor(tensor):
        tensor, count = torch._C._functorch.get_unwrapped(tensor), count + 1
    return count


def _block_widths(tensor: torch.Tensor, sizes: list[int], dim: int | None, follows: frozenset[int]) -> frozenset[int]:
    """Output dimensions that are widths of blocks into which a reshape splits, where their number could follow too."""
    before = list(tensor.shape)
    total = tensor.numel() if dim is None else before[dim]
    known = math.prod(size for size in sizes if size != -1)
    if not known or total % known:
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
    sizes = _listed(call.rest or tuple(call.get("shape", "size", default=())))
    if "dtype" in call.named or any(isinstance(size, torch.dtype) for size in sizes):
        return call.run()
    return _reshape_to(call, sizes)


@handles(torch.Tensor.view_as, torch.Tensor.reshape_as, arguments="input other")
def _view_as(call: Called) -> Any:
    return _reshape_to(call, _traced_shape(call.tracer, call["other"]))


@handles(torch.Tensor.expand_as, arguments="input other")
def _expand_as(call: Called) -> Any:
    """A tensor as long as another, index by index, wherever that shrinks."""
    tracer, other = call.tracer, call["other"]
    with _set(tracer, flexible=frozenset(range(other.dim()))):
        result = call.run()
    operands = [algebra.Operand(tracer.labels_of(t), tuple(other.shape)) for t in (result, other)]
    tracer.set_labels(result, algebra.align(tracer.facts, operands, f"expand_as in {tracer.where()}"))
    return result


@handles(torch.repeat_interleave, torch.Tensor.repeat_interleave, arguments="input repeats")
def _repeat_interleave(call: Called) -> Any:
    """How often each index is repeated stays as it is."""
    if isinstance(call.get("repeats"), TracedSize):
        _tie_to_constant(call.tracer, call["repeats"], f"how often {call.name} repeats")
    with _set(call.tracer, flexible=frozenset()):
        return call.run()


@handles(torch.Tensor.repeat, torch.Tensor.tile, torch.tile, arguments="input")
def _repeat(call: Called) -> Any:
    """A dimension of length one that is repeated as often as a size says is that long."""
    tracer, tensor = call.tracer, call["input"]
    times = _listed(call.rest or tuple(call.get("repeats", "dims", default=())))
    result = call.run()
    first = result.dim() - len(times)
    factors = []
    for dim, count in enumerate(times, first):
        before = dim - (result.dim() - tensor.dim())
        if not isinstance(count, TracedSize):
            continue
        if before < 0 or tensor.shape[before] == 1:
            factors.append(_new_axis(call, dim, count))
        else:
            _tie_to_constant(tracer, count, f"how often {call.name} repeats")
    tracer.set_labels(result, (*tracer.labels_of(result), *factors))
    return result


@handles(torch.Tensor.unflatten, torch.unflatten, arguments="input dim sizes")
def _unflatten(call: Called) -> Any:
    tracer, dim = call.tracer, call["dim"] % call["input"].dim()
    if not tracer.in_own_sizes:
        return _reshape_to(call, list(call["sizes"]), dim)
    # nn.Unflatten: whole blocks leave, and the first of its sizes follows.
    with _set(tracer, flexible=frozenset({dim})):
        result = call.run()
    labels = labels_along(tracer.labels_of(result), dim)
    if labels is not None:
        tracer.count_by("unflattened_size[0]", labels)
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
    if isinstance(call["fill_value"], TracedSize):
        call["fill_value"].source.note_number(call.name)
    return _created(call, list(call["size"]))


def _created(call: Called, sizes: Sequence[Any]) -> Any:
    """A new tensor: what its sizes follow, or, in torch's own modules, labels for whatever meets it."""
    tracer, result = call.tracer, call.run()
    factors = []
    for dim, size in enumerate(sizes):
        if plain(size) > 1 and (tracer.in_own_sizes or isinstance(size, TracedSize)):
            factors.append(_new_axis(call, dim, size))
    tracer.set_labels(result, tuple(factors))
    return result


def _new_axis(call: Called, dim: int, size: Any) -> Factor:
    """Labels of a dimension that is made so long; what its size follows, if it is traced."""
    labels = call.tracer.facts.fresh(plain(size))
    if isinstance(size, TracedSize):
        _tie(call.tracer, labels, size, f"size given to {call.name}")
    return Factor((dim,), labels)


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
            _fix_every_row(tracer, tensor, dim % tensor.dim(), slice(None), f"{call.name} in unequal pieces")
        else:
            tracer.facts.balance(labels.reshape(int(given), -1), f"{call.name} ({tracer.where()})")
    return call.run()


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
    start, stop = item.start, item.stop
    if start is not None:
        _cut(tracer, tensor, dim, start, "a slice")
    if isinstance(start, TracedSize) and isinstance(stop, TracedSize) and 0 < plain(start) < plain(stop):
        _given_piece(tracer, tensor, dim, start, stop)
    elif stop is not None:
        _cut(tracer, tensor, dim, stop, "a slice")


def _given_piece(tracer: Tracer, tensor: torch.Tensor, dim: int, start: TracedSize, stop: TracedSize) -> None:
    """What lies between two cuts is as long as their difference."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    length = stop - start
    if labels is not None and isinstance(length, TracedSize):
        _tie(tracer, labels[plain(start) : plain(stop)], length, "cut out by a slice")
    else:
        _cut(tracer, tensor, dim, stop, "a slice")


def _cut(tracer: Tracer, tensor: torch.Tensor, dim: int, bound: Any, what: str) -> None:
    """An axis is cut at index ``bound``: as many indices as that stay before it (after it, if negative)."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    if isinstance(bound, TracedSize):
        _cut_at_size(tracer, labels, bound, tensor.shape[dim], f"cut by {what}")
    elif labels is not None and not isinstance(bound, torch.Tensor) and 0 < abs(bound) < len(labels):
        part = slice(None, bound) if bound > 0 else slice(bound, None)
        _fix_every_row(tracer, tensor, dim, part, f"cut by {what} at index {bound} ({tracer.where()})")


def _cut_at_size(tracer: Tracer, labels: Labels | None, bound: TracedSize, length: int, what: str) -> None:
    index = plain(bound)
    if not 0 < abs(index) <= length:
        return
    size = bound if index > 0 else -bound
    if isinstance(size, TracedSize) and labels is not None:
        _tie(tracer, labels[:index] if index > 0 else labels[index:], size, what)
    elif isinstance(size, TracedSize):
        _tie_to_constant(tracer, size, f"{what}, where no labels are,")


def _fix_every_row(tracer: Tracer, tensor: torch.Tensor, dim: int, part: slice, reason: str) -> None:
    for factor in tracer.labels_of(tensor):
        if factor.free == dim:
            tracer.facts.fix(factor.labels[..., part], reason)


# --- functions with sizes of their own --------------------------------------------------------------------------------


@handles(F.conv1d, F.conv2d, F.conv3d, arguments="input weight bias stride padding dilation groups")
@handles(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
         arguments="input weight bias stride padding output_padding groups")  # fmt: skip
def _convolution(call: Called) -> Any:
    """Where ``groups`` is an attribute of the user's own module, it follows the whole convolution groups that leave."""
    tracer, groups = call.tracer, call.get("groups")
    if not isinstance(groups, TracedSize):
        return call.run()
    with _set(tracer, resizable=True), tracer.counting() as counted:
        result = call.run()
    if "groups" in counted:
        _tie(tracer, counted["groups"], groups, f"number of groups of {call.name}")
    else:
        _tie_to_constant(tracer, groups, f"number of groups of {call.name}")
    return result


@handles(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, arguments="")
def _recurrent(call: Called) -> Any:
    with without_mkldnn():
        return call.run()


@handles(
    torch.take_along_dim, torch.Tensor.take_along_dim, torch.quantile, torch.Tensor.quantile,
    torch.nanquantile, torch.Tensor.nanquantile, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__, torch.einsum, torch.functional.einsum,
    arguments="",
)  # fmt: skip
def _expanded_to_each_other(call: Called) -> Any:
    """One of the tensors may be expanded to another's size."""
    note_numbers(call.func, (*call.args, *call.kwargs.values()))
    with _set(call.tracer, expanding=True):
        return call.run()


@handles(
    torch._VF._pad_packed_sequence, F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout,
    torch.feature_dropout, torch.feature_alpha_dropout, torch.stft, torch.Tensor.stft, torch.istft, torch.Tensor.istft,
    arguments="",
)  # fmt: skip
def _own_sizes(call: Called) -> Any:
    """Composed of operators whose integers all come from the shapes of what goes in."""
    with _set(call.tracer, resizable=True):
        return call.run()


@handles(F.layer_norm, F.rms_norm, arguments="input normalized_shape")
def _layer_norm(call: Called) -> Any:
    tracer, tensor, shape = call.tracer, call["input"], call["normalized_shape"]
    first = tensor.dim() - len(shape)
    for position, size in enumerate(shape):
        labels = labels_along(tracer.labels_of(tensor), first + position)
        if labels is not None and tracer.in_own_sizes:
            tracer.count_by(f"normalized_shape[{position}]", labels)
        _given(tracer, tensor, first + position, size, call.name)
    return call.run()


@handles(F.batch_norm, F.instance_norm, arguments="input")
@handles(F.group_norm, torch.group_norm, arguments="input num_groups")
def _channel_norm(call: Called) -> Any:
    """Without parameters or statistics, only the module's attribute says how many channels there are."""
    if isinstance(call.get("num_groups"), TracedSize):
        _tie_to_constant(call.tracer, call["num_groups"], f"number of groups of {call.name}")
    labels = labels_along(call.tracer.labels_of(call["input"]), 1)
    if labels is not None and call.tracer.in_own_sizes:
        attribute = "num_channels" if "group" in call.name else "num_features"
        call.tracer.count_by(attribute, labels)
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
        if outer is None or not tracer.in_own_sizes:
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

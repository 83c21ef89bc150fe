"""Strides that the code reads from a tensor, and views that it makes from strides.

Of a tensor without gaps in memory, the stride of a dimension is the product of the sizes of those further in. A
dimension that ``as_strided`` gives the very stride and size of one of the tensor's follows it. The others go along
dimensions that stay, in whatever windows, as far as what they reach lies in the tensor, before pruning and after.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from secateur.graph.expression import Atom, Expression, Term
from secateur.graph.handlers.ties import size_given, telling, traced_shape
from secateur.graph.rules.indexing import BY_STRIDES, fix_memory
from secateur.graph.source import Source
from secateur.graph.torch_calls import Called, handles, note_numbers
from secateur.graph.traced_size import TracedSize, plain
from secateur.graph.tracer import Tracer


@handles(torch.Tensor.stride, arguments="input dim")
def _stride(call: Called) -> Any:
    strides, dim = _traced_strides(call.tracer, call["input"]), call.get("dim")
    return tuple(strides) if dim is None else strides[dim]


@handles(
    torch.as_strided, torch.Tensor.as_strided, torch.as_strided_, torch.Tensor.as_strided_,
    arguments="input size stride storage_offset",
)  # fmt: skip
def _as_strided(call: Called) -> Any:
    tracer, tensor, sizes = call.tracer, call["input"], list(call["size"])
    if tracer.in_own_sizes:
        return call.run()
    follows = _following(call, list(map(plain, sizes)))
    if follows is None:
        note_numbers(call.func, (sizes, call["stride"], call.get("storage_offset")))
        if not tracer.labels_of(tensor):
            # Its rule won't be asked, but the rest of its memory may have labels.
            fix_memory(tracer.facts, tracer.labels_of, tensor, f"{BY_STRIDES} ({call.name} in {tracer.where()})")
        return call.run()
    with telling(tracer, flexible=frozenset(follows)):
        result = call.run()
    for dim, size in enumerate(sizes):
        size_given(tracer, result, dim, size, call.name)
    return result


def _traced_strides(tracer: Tracer, tensor: torch.Tensor) -> list[int]:
    """The strides, which remember what they count where there are no gaps."""
    strides, outwards = list(tensor.stride()), _outwards(tracer, tensor)
    if outwards is not None:
        sizes = traced_shape(tracer, tensor)
        stride = 1
        for dim in outwards:
            strides[dim] = stride
            stride = stride * sizes[dim]
    return strides


def _outwards(tracer: Tracer, tensor: torch.Tensor) -> list[int] | None:
    """The dimensions longer than one, the innermost in memory first; None if there are gaps between elements.

    Parameters are only counted on where they lie as surgery leaves them.
    """
    if torch._C._functorch.is_batchedtensor(tensor) or (tracer.is_weight(tensor) and not tensor.is_contiguous()):
        return None
    shape, strides = tensor.shape, tensor.stride()
    dims = sorted((d for d, size in enumerate(shape) if size > 1), key=strides.__getitem__)
    expected = 1
    for dim in dims:
        if strides[dim] != expected:
            return None
        expected *= shape[dim]
    return dims


# --- what strides reach -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Neighbouring dimensions of a tensor in memory, seen as one.

    Attributes:
        innermost: of these dimensions.
        length: the product of their sizes.
        stride: of the innermost.
    """

    innermost: int
    length: int
    stride: Expression


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """Steps of one length along an axis.

    Attributes:
        axis: the axis; None if it is not known where they go.
        reach: how far they go together.
        given_by: what their length depends on.
    """

    axis: _Axis | None
    reach: int = 0
    given_by: tuple[Atom, ...] = ()


def _following(call: Called, sizes: list[int]) -> list[int] | None:
    """Dimensions of the result that are dimensions of the tensor; None if more than the tensor may be addressed."""
    tracer, tensor, offset = call.tracer, call["input"], call.get("storage_offset")
    outwards = _outwards(tracer, tensor)
    if outwards is None or (offset is not None and (type(offset) is not int or offset or tensor.storage_offset())):
        return None
    # Where an index is the only one, its stride addresses nothing.
    given = {d: _counted(tracer, stride) for d, stride in enumerate(call["stride"]) if sizes[d] > 1}
    strides = [_counted(tracer, stride) for stride in _traced_strides(tracer, tensor)]
    to = {}
    for dim in {d for factor in tracer.labels_of(tensor) for d in factor.dims}:
        same = [d for d in given if sizes[d] == tensor.shape[dim] and _is_same(given[d], strides[dim])]
        if len(same) == 1:
            to[dim] = same[0]
    while True:
        axes = _axes([(dim, tensor.shape[dim], strides[dim]) for dim in outwards], to)
        steps = [_steps(axes, stride, sizes[d] - 1) for d, stride in given.items() if d not in to.values()]
        entered = {s.axis.innermost for s in steps if s.axis is not None}
        if entered.isdisjoint(to):
            break
        # Where other steps go along a dimension, all of it stays.
        to = {dim: made for dim, made in to.items() if dim not in entered}
    return _settled(call, axes, steps, to)


def _settled(call: Called, axes: list[_Axis], steps: list[_Steps], to: Mapping[int, int]) -> list[int] | None:
    """The dimensions that follow, if all steps stay inside; what the length of these depends on must stay."""
    inside = all(sum(s.reach for s in steps if s.axis is axis) < axis.length for axis in axes)
    if not inside or any(s.axis is None for s in steps):
        return None
    for atom in (atom for s in steps for atom in s.given_by):
        Source(Expression.of(atom), call.tracer).pin(call.name)
    return list(to.values())


def _axes(dims: Sequence[tuple[int, int, Expression]], alone: Container[int]) -> list[_Axis]:
    """The dimensions, given from the innermost on with lengths and strides; neighbours that aren't ``alone`` as one."""
    axes: list[_Axis] = []
    is_open = False
    for dim, length, stride in dims:
        if is_open and dim not in alone:
            axes[-1] = _Axis(axes[-1].innermost, axes[-1].length * length, axes[-1].stride)
        else:
            axes.append(_Axis(dim, length, stride))
        is_open = dim not in alone
    return axes


def _steps(axes: Sequence[_Axis], stride: Expression, count: int) -> _Steps:
    """So many steps of this stride, along the axis where their length depends on the least; of these, the outermost."""
    best = _Steps(None)
    for axis in reversed(axes):
        term = _quotient(stride, axis.stride)
        length = None if term is None else term.value(lambda atom: Fraction(atom.value))
        if term is None or length is None or length.denominator != 1:
            continue
        given_by = (*term.up, *term.down)
        if best.axis is None or len(given_by) < len(best.given_by):
            best = _Steps(axis, count * int(length), given_by)
    return best


def _counted(tracer: Tracer, size: int) -> Expression:
    """What an integer counts in this run."""
    if isinstance(size, TracedSize) and size.source.tracer is tracer:
        return size.source.size
    return Expression.of(plain(size))


def _quotient(above: Expression, below: Expression) -> Term | None:
    quotient = above.over(below)
    return None if quotient is None else quotient.only


def _is_same(stride: Expression, other: Expression) -> bool:
    """Whether two strides are equal whatever stays."""
    term = _quotient(stride, other)
    return term is not None and term.times == 1 and not term.up and not term.down

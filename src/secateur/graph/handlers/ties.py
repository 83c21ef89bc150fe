"""What a traced size that the code gives says of labels: as many of these stay as it counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from secateur.graph.expression import Count, Expression
from secateur.graph.labels import Factor, Labels, SizeEquation, labels_along
from secateur.graph.source import Source
from secateur.graph.torch_calls import Called
from secateur.graph.traced_size import TracedSize, plain
from secateur.graph.tracer import Tracer


def traced_shape(tracer: Tracer, tensor: torch.Tensor) -> list[int]:
    """The shape, in integers that remember which labels they count."""
    sizes: list[int] = list(tensor.shape)
    for factor in tracer.labels_of(tensor):
        row = factor.labels.reshape(-1, factor.labels.shape[-1])[0]
        sizes[factor.free] = TracedSize(sizes[factor.free], Source.counting(row, tracer))
    return sizes


def size_given(tracer: Tracer, tensor: torch.Tensor, dim: int, size: Any, what: str) -> None:
    """The code says that ``dim`` of ``tensor`` has this many indices."""
    labels = labels_along(tracer.labels_of(tensor), dim)
    if labels is None:
        if isinstance(size, TracedSize):
            tie_to_constant(tracer, size, f"the size of an axis without labels in {what}")
        return
    if isinstance(size, TracedSize):
        tie(tracer, labels, size, f"size given to {what}")
    elif plain(size) != -1 and not tracer.in_own_sizes:
        tracer.facts.fix(
            labels,
            f"{what} has a size given as a number; -1, or one read from x.shape, would follow ({tracer.where()})",
        )


def tie(tracer: Tracer, labels: Labels, size: TracedSize, what: str) -> None:
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


def tie_to_constant(tracer: Tracer, size: TracedSize, what: str) -> None:
    """``size`` must stay what it is."""
    if size.source.tracer is tracer:
        difference = Expression.of(plain(size)) + -size.source.size
        tracer.facts.equations.append(SizeEquation(difference, f"{what} by {tracer.where()}", None))


def listed(args: Sequence[Any]) -> list[Any]:
    """Sizes given one by one or as one sequence."""
    return list(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list, torch.Size)) else list(args)


@contextmanager
def telling(tracer: Tracer, **values: Any) -> Iterator[None]:
    """What the rules are told of the operators run meanwhile; afterwards, nothing again."""
    before = {name: getattr(tracer, name) for name in values}
    for name, value in values.items():
        setattr(tracer, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(tracer, name, value)


def stacked_dims(tensor: torch.Tensor, dims: Iterable[int]) -> frozenset[int]:
    """Dimensions of what is made of a tensor, as rules see them: ``torch.vmap`` puts those that it hides in front."""
    hidden = 0
    while torch._C._functorch.is_batchedtensor(tensor):
        tensor, hidden = torch._C._functorch.get_unwrapped(tensor), hidden + 1
    return frozenset(dim + hidden for dim in dims)


def new_axis(call: Called, dim: int, size: Any) -> Factor:
    """Labels of a dimension that is made so long; what its size follows, if it is traced."""
    labels = call.tracer.facts.fresh(plain(size))
    if isinstance(size, TracedSize):
        tie(call.tracer, labels, size, f"size given to {call.name}")
    return Factor((dim,), labels)


def fix_every_row(tracer: Tracer, tensor: torch.Tensor, dim: int, part: slice, reason: str) -> None:
    """Pin a part of the labels along ``dim``, in every row of a split axis."""
    for factor in tracer.labels_of(tensor):
        if factor.free == dim:
            tracer.facts.fix(factor.labels[..., part], reason)

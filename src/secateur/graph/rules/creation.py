"""New tensors made from others: of their kind, or of sizes and values read from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factor, Factors
from secateur.graph.rules.base import OpCall, names, rule

FROM_SIZES = names("empty full ones rand randn zeros new_empty new_empty_strided new_full new_ones new_zeros")


@rule(*FROM_SIZES)
def from_sizes(call: OpCall) -> Sequence[Factors]:
    """A tensor whose sizes are numbers: where these follow (inside torch's own code), so does it, whatever it meets."""
    if not call.resizable:
        return [() for _ in call.outputs]
    return [tuple(Factor((d,), call.facts.fresh(n)) for d, n in enumerate(out.shape) if n > 1) for out in call.outputs]


@rule("arange", "eye", "linspace", "logspace")
def from_numbers(call: OpCall) -> Sequence[Factors]:
    """A tensor whose values are positions: those of one size mean nothing at another."""
    return [() for _ in call.outputs]


FROM_DATA = names("""
_unique _unique2 bincount histc histogram masked_select nonzero nonzero_static put repeat_interleave unique_consecutive
unique_dim unique_dim_consecutive
""")


@rule(*FROM_DATA)
def from_data(call: OpCall) -> Sequence[Factors]:
    """Results whose values or sizes are read from data: every labelled argument must stay."""
    call.fix_all(call.tensors(), "read as data")
    return [() for _ in call.outputs]


@rule("multinomial")
def multinomial(call: OpCall) -> Sequence[Factors]:
    """Places drawn along the last dimension, whose probabilities must stay."""
    return [call.fix_dims(call.factors("self"), [call["self"].dim() - 1], "drawn from as probabilities")]


@rule("searchsorted")
def searchsorted(call: OpCall) -> Sequence[Factors]:
    """Places in sorted sequences, which must stay; every value that is looked up has its own."""
    values, *sequences = (call.arguments.get(name) for name in ("self", "sorted_sequence", "sorter"))
    operands = [Operand(call.labels_of(values), tuple(values.shape))] if isinstance(values, torch.Tensor) else []
    for sequence in sequences:
        if sequence is not None:
            last = sequence.dim() - 1
            rows = call.fix_dims(call.labels_of(sequence), [last], "searched as a sorted sequence")
            if last:
                operands.append(Operand(rows, (*sequence.shape[:last], 1)))
    return [algebra.align(call.facts, operands, call.site)]


@rule("bucketize", "isin")
def looked_up(call: OpCall) -> Sequence[Factors]:
    """Every value is looked up by itself, among values that must stay."""
    values = call.arguments.get("elements", call.arguments.get("self"))
    call.fix_all((t for t in call.tensors() if t is not values), "searched for values")
    return [call.labels_of(values) if isinstance(values, torch.Tensor) else ()]

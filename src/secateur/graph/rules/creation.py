"""New tensors made from others: of their kind, or of sizes and values read from them."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.labels import Factors
from secateur.graph.rules.base import OpCall, rule


@rule("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided")
def creation(call: OpCall) -> Sequence[Factors]:
    """A tensor of the same kind, whose sizes are given as numbers: no labels, unless the tracer knows the sizes."""
    return [() for _ in call.outputs]


@rule("nonzero", "multinomial", "bincount", "_unique2", "searchsorted", "bucketize", "repeat_interleave", "histc")
@rule("take", "masked_select", "masked_scatter")
def from_data(call: OpCall) -> Sequence[Factors]:
    """Results whose values or sizes are read from data: every labelled argument must stay."""
    for tensor in call.tensors():
        call.fix_dims(call.labels_of(tensor), range(tensor.dim()), "read as data")
    return [() for _ in call.outputs]

"""New tensors: no labels, unless the tracer knows where their sizes come from; and operators that make no tensor."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.labels import Factors
from secateur.graph.rules.base import OpCall, rule

CREATION = """
zeros ones empty full rand randn randint arange linspace logspace eye scalar_tensor new_zeros new_ones new_empty new_full
new_empty_strided empty_strided tril_indices triu_indices randperm empty_permuted hann_window
""".split()


@rule(*CREATION)
def creation(call: OpCall) -> Sequence[Factors]:
    """Sizes given as numbers stay what they are."""
    return [() for _ in call.outputs]


@rule("nonzero", "multinomial", "bincount", "unique2", "_unique2", "searchsorted", "bucketize", "one_hot", "equal")
@rule("masked_select", "_local_scalar_dense", "is_same_size", "histc", "allclose", "_assert_async")
def from_data(call: OpCall) -> Sequence[Factors]:
    """Results whose values or sizes are read from data: every labelled argument must stay."""
    for tensor in call.tensors():
        call.fix_dims(call.labels_of(tensor), range(tensor.dim()), "read as data")
    return [() for _ in call.outputs]

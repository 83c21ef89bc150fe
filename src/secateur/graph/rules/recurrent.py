"""Fused recurrent cells, which are their own operators on a GPU, and packed sequences."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factor, Factors
from secateur.graph.rules.base import OpCall, rule


@rule("_thnn_fused_lstm_cell", gates=4, state="cx")
@rule("_thnn_fused_gru_cell", gates=3, state="hx")
def fused_cell(call: OpCall, *, gates: int, state: str) -> Sequence[Factors]:
    """The gates' pieces of the same index leave together, with that index of the state."""
    batch, width = call[state].shape
    operands = [Operand(call.factors(state), (batch, width))]
    for name in ("input_gates", "hidden_gates", "input_bias", "hidden_bias"):
        tensor = call[name]
        if tensor is None:
            continue
        if call.is_weight(tensor):
            call.produced.extend(f.labels for f in call.labels_of(tensor))
        shift = 2 - tensor.dim()
        factors = tuple(f.moved([d + shift for d in range(tensor.dim())]) for f in call.labels_of(tensor))
        extents = (1 if shift else batch, width)
        operands.append(Operand(tuple(done for f in factors for done in _of_one_gate(call, f, gates)), extents))
    labels = algebra.align(call.facts, operands, call.site)
    # The last output is kept for gradients only.
    return [labels if out.shape == (batch, width) else () for out in call.outputs]


def _of_one_gate(call: OpCall, factor: Factor, gates: int) -> Factors:
    if 1 not in factor.dims:
        return (factor,)
    reason = f"gates of one cell ({call.site})"
    pieces = algebra.collapse(call.facts, factor, 1, reason).labels.reshape(gates, -1)
    call.facts.equate(pieces[1:], pieces[:1], reason)
    return algebra.squeezed(Factor((1,), pieces[0]))


@rule("_pack_padded_sequence")
def pack_padded_sequence(call: OpCall) -> Sequence[Factors]:
    """Steps of all sequences in one list: batch and time must stay, the rest passes."""
    call.fix_dims(call.factors("lengths"), [0], "lengths of sequences")
    kept = call.fix_dims(call.factors("input"), [0, 1], "packed by the lengths of sequences")
    return [algebra.renumber_without(kept, [0], call["input"].dim()), ()]

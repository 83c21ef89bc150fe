"""Fused recurrent cells and packed sequences.

The cells run on a GPU only: here they get kernels of their own, made of ordinary operators.
"""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import pack_padded_sequence

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import aten

Outputs = tuple[torch.Tensor, ...]
CELLS = torch.library.Library("aten", "IMPL")


def _sum(gates: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return gates if bias is None else gates + bias


def _lstm_cell(
    inputs: torch.Tensor,
    hidden: torch.Tensor,
    cell: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> Outputs:
    gates = _sum(inputs, input_bias) + _sum(hidden, hidden_bias)
    i, f, g, o = gates.chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell, gates


def _gru_cell(
    inputs: torch.Tensor,
    hidden: torch.Tensor,
    state: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> Outputs:
    first, second = (_sum(gates, bias).chunk(3, 1) for gates, bias in ((inputs, input_bias), (hidden, hidden_bias)))
    reset, update = ((a + b).sigmoid() for a, b in zip(first[:2], second[:2], strict=True))
    new = (first[2] + reset * second[2]).tanh()
    return (1 - update) * new + update * state, torch.cat([*first, *second[:2]], 1)


CELLS.impl("_thnn_fused_lstm_cell", _lstm_cell, "CPU")
CELLS.impl("_thnn_fused_gru_cell", _gru_cell, "CPU")

CASES = [
    Case(
        "_thnn_fused_lstm_cell",
        lambda x, h, c, b, d: aten._thnn_fused_lstm_cell(x, h, c, b, d)[:2],
        [(2, 12), (2, 12), (2, 3), (12,), (12,)],
    ),
    Case(
        "_thnn_fused_gru_cell",
        lambda x, h, s, b, d: aten._thnn_fused_gru_cell(x, h, s, b, d)[0],
        [(2, 9), (2, 9), (2, 3), (9,), (9,)],
    ),
    Case(
        "_pack_padded_sequence",
        lambda x: pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True).data,
        [(2, 3, 4)],
        pinned={(0, 0): ALL, (0, 1): ALL},
    ),
]

"""Operators that are deliberately not followed: everything that goes in stays."""

from __future__ import annotations

import warnings

import torch

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import BOTH, X, aten, normal


def _quantised(x: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
        return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).int_repr()


def _gradient(x: torch.Tensor) -> torch.Tensor:
    """Of a convolution's input."""
    rest = (None, [1], [0], [1], False, [0], 1, [True, False, False])
    result: torch.Tensor = aten.convolution_backward(x, torch.ones(2, 2, 4), torch.ones(3, 2, 2), *rest)[0]
    return result


CASES = [
    Case("quantize_per_tensor", _quantised, [normal(*X).float()], pinned=BOTH),
    Case("_to_sparse", lambda x: x.to_sparse().to_dense(), [X], pinned=BOTH),
    Case("to_mkldnn", lambda x: x.to_mkldnn().to_dense(), [normal(*X).float()], pinned=BOTH),
    Case("convolution_backward", _gradient, [normal(2, 3, 3).float()], pinned={(0, a): ALL for a in (0, 1, 2)}),
]

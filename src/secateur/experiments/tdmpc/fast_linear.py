"""Linear layers by oneDNN where PyTorch would ask MKL: the same numbers up to rounding, faster on some processors.

For float32 on a CPU PyTorch takes MKL, which leaves the widest vectors unused on processors that aren't Intel's. On an
AMD EPYC (Zen 5), one thread, 1280 rows through a layer of 256 x 256: 97 GFLOP/s with MKL, 230 with oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_WORTH_IT = 10_000_000
"""Multiply-adds of a layer from which on its gain is more than what the context costs in all other calls.

An agent that plans with 256 sequences, one thread of an AMD EPYC, milliseconds per step of one episode / of ten: width
256, 38 / 343 without the context and 28 / 259 with it; 69 % removed, 16 / 125 and 18 / 114; 92 % removed, 7 / 54 and
12 / 61.
"""


def fast_where_worth_it(model: object, rows: int) -> AbstractContextManager[object]:
    """A ``FastLinear`` for a model's forward passes, if its widest layer is wide enough for it, with so many rows."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    widest = max((p.numel() for p in parameters), default=0)
    return FastLinear() if rows * widest >= _WORTH_IT else nullcontext()


class FastLinear(TorchFunctionMode):
    """A context in which the linear layers of float32 models on a CPU run on oneDNN, forwards and backwards.

    Everything else runs as ever, and everything does where this PyTorch comes without oneDNN or it is switched off. The
    backward pass may be run outside. There are no second derivatives.
    """

    def __init__(self) -> None:
        super().__init__()
        backend: Any = torch.backends.mkldnn
        # The operator is the one torch.compile uses; it has no public name.
        self._is_there = backend.is_available() and backend.enabled and hasattr(torch.ops.mkldnn, "_linear_pointwise")

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self._is_there and func is F.linear and not kwargs and _fits(*args[:2]):
            return _linear(*args)
        return func(*args, **(kwargs or {}))


def _fits(inputs: Tensor, weight: Tensor) -> bool:
    plain = all(type(each) in (Tensor, nn.Parameter) and each.is_cpu for each in (inputs, weight))
    return plain and inputs.dtype == weight.dtype == torch.float32 and inputs.ndim > 1 and inputs.numel() > 0


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not torch.is_grad_enabled():
        return _product(inputs, weight, bias)
    apply: Any = _Linear.apply
    outputs: Tensor = apply(inputs, weight, bias)
    return outputs


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``rows @ weight.T + bias``; neither need be contiguous."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            _product(gradient, weight.t()) if of_inputs else None,
            _product(rows.t(), inputs.flatten(0, -2).t()) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )

"""Inputs that the cases of all rules share, each with values of one range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.graph.oracle import ALL


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(*shape: int) -> torch.Tensor:
    return normal(*shape, seed=3).abs() + 1.1


def unit(*shape: int) -> torch.Tensor:
    """Inside (0, 1)."""
    return (normal(*shape, seed=4) * 0.7).sigmoid()


def integers(*shape: int, high: int = 5) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(5))


def bools(*shape: int) -> torch.Tensor:
    return normal(*shape, seed=6) > 0


def whole(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function composed of others as one operator: so torch hands it over under inference mode."""

    def run(*args: Any) -> Any:
        with torch.inference_mode():
            return function(*args)

    return run


aten: Any = torch.ops.aten

X = (3, 4)
"""The usual shape."""
BOTH = {(0, 0): ALL, (0, 1): ALL}
"""Both axes of the first input, to be pinned."""
ROWS = torch.tensor([2, 0])
"""An index that no label touches."""

"""Whether an entry point does the same twice, on the same inputs and random numbers.

What a trace finds holds for every run that takes the same operators. A forward pass that depends on something outside
the model, such as a global counter, takes others, or computes other values with them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from secateur.graph.components import component_map
from secateur.graph.entry_point import EntryPoint
from secateur.graph.parting import described, parting
from secateur.graph.randomness import same_randomness
from secateur.graph.record import Step
from secateur.graph.trace import run_traced
from secateur.graph.tracer import Tracer


def difference_between_runs(model: nn.Module, entry_point: EntryPoint) -> str | None:
    """Run the entry point twice, and say where the second run computes something else; None if it doesn't.

    For a proof that failed: it tells a model that isn't deterministic from a mistake. Takes two traces, and a checksum
    of what every operator gives.
    """
    with same_randomness() as restart:
        first, second = (_recorded(model, entry_point, restart) for _ in range(2))
    steps, other_steps = ([step for step, _ in recorded] for recorded in (first, second))
    parted = parting(steps, other_steps)
    if parted is not None:
        return f"two runs take different operators {parted}"
    for number, (a, b) in enumerate(zip(first, second, strict=True), start=1):
        if a != b:
            return f"two runs compute different values from operator {number} on: {described(a[0])}"
    return None


def _recorded(
    model: nn.Module, entry_point: EntryPoint, restart: Callable[[], None]
) -> list[tuple[Step, tuple[int, ...]]]:
    """Every operator of one run with a checksum of each of its outputs."""
    recorder = _Recorder(model, component_map(model, None))
    restart()
    run_traced(model, entry_point, recorder)
    return recorder.recorded


class _Recorder(Tracer):
    """Notes what every operator gives; also of those that no parameter reaches, where a counter comes in."""

    def __init__(self, model: nn.Module, components: Any) -> None:
        super().__init__(model, components)
        self.recorded: list[tuple[Step, tuple[int, ...]]] = []

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = super().execute(func, args, kwargs)
        name = str(func.overloadpacket)
        outputs = [t for t in _listed(result) if isinstance(t, torch.Tensor)]
        # What is merely allocated holds anything, and so does a part of it; what is read from it later is compared.
        is_unread = "empty" in name or "resize" in name or _is_view(func)
        values = () if is_unread else tuple(map(_checksum, outputs))
        self.recorded.append(((name, self.where(), tuple(t.shape for t in outputs)), values))
        return result


def _is_view(func: Any) -> bool:
    """Whether an operator gives a part of its argument's memory, as it is."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _listed(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (tuple, list)) else (result,)


def _checksum(tensor: torch.Tensor) -> int:
    """A checksum of a tensor's values, bit by bit; 0 where there are none to be read."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.numel() == 0:
        return 0
    values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return zlib.crc32(values.view(torch.uint8).numpy().tobytes())

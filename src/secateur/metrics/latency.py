"""Measured latency as a metric."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import nn

from secateur.calibration import evaluating
from secateur.errors import ObjectiveError
from secateur.graph.entry_point import EntryPoint, as_entry_point
from secateur.latency import measure_latency
from secateur.metrics.checks import is_number, is_whole


@dataclass(frozen=True, eq=False)
class Latency:
    """Median seconds of one run, measured; lower is better.

    A measurement is only comparable with others of the same machine and number of threads, with nothing else running.

    Attributes:
        example_inputs: a tensor, a tuple (positional) or a mapping (keywords) of inputs for ``model(...)``.
        run: instead, code that exercises a model.
        threads: torch's intra-op threads while measuring.
        repeats: measurements, after a warm-up.
        shortest: seconds that one measurement takes at least; a quicker run is repeated inside it.

    Raises:
        TraceError: both or neither of ``example_inputs`` and ``run`` are given.
        ObjectiveError: ``threads`` or ``repeats`` is below 1, or ``shortest`` below 0.
    """

    example_inputs: Any = None
    run: EntryPoint | None = None
    threads: int = 1
    repeats: int = 30
    shortest: float = 1e-3

    name: ClassVar[str] = "latency"
    unit: ClassVar[str] = "s"

    def __post_init__(self) -> None:
        as_entry_point(self.example_inputs, self.run)
        for what in ("threads", "repeats"):
            if not is_whole(getattr(self, what), 1):
                given = getattr(self, what)
                raise ObjectiveError(f"latency needs {what} to be a whole number, at least 1, not {given!r}")
        if not is_number(self.shortest) or self.shortest < 0:
            raise ObjectiveError(f"latency needs shortest to be seconds, at least 0, not {self.shortest!r}")

    def __call__(self, model: nn.Module) -> float:
        """The model's latency in seconds."""
        run = partial(as_entry_point(self.example_inputs, self.run), model)
        with evaluating(model):
            measured = measure_latency(
                {"model": run}, repeats=self.repeats, threads=self.threads, shortest=self.shortest
            )
        return measured["model"].median

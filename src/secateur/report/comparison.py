"""Before and after: the states of a model side by side, per component and in total."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from secateur.graph.cost import Cost
from secateur.graph.describe import plain_table
from secateur.latency import Latency

TOTAL = "total"


@dataclass(frozen=True)
class Stage:
    """One state of a model: dense, pruned, refitted.

    Attributes:
        name: what the column is called.
        cost: parameters and MACs, in total and by component.
        objective: the application's metric, or None where there is none.
        latency: component name, or "total", to its measured latency; may be empty.
    """

    name: str
    cost: Cost
    objective: float | None = None
    latency: Mapping[str, Latency] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Parameters in total."""
        return self.cost.parameters

    @property
    def macs(self) -> int:
        """Multiply-adds of one run of the entry point, in total."""
        return self.cost.macs

    def as_data(self) -> dict[str, Any]:
        """The stage as JSON can hold it; latencies in seconds."""
        return {
            "name": self.name,
            "objective": self.objective,
            "parameters": self.parameters,
            "macs": self.macs,
            "components": {name: asdict(part) for name, part in self.cost.by_component.items()},
            "latency": {name: asdict(latency) for name, latency in self.latency.items()},
        }


def comparison(
    stages: Sequence[Stage],
    *,
    title: str = "Before and after",
    objective: str = "objective",
    latency: str = "latency, ms",
) -> Table:
    """A table with a column per stage and the change from the first to the last.

    Args:
        stages: at least one; the first is what the others are compared with.
        title: the table's title.
        objective: name and unit of the metric, such as ``PSNR, dB``.
        latency: what the latency rows are called, such as ``latency, ms, 256 images``.
    """
    names = [stage.name for stage in stages]
    table = plain_table(title, "", "component", *names, "change", numeric=[*names, "change"])
    if any(stage.objective is not None for stage in stages):
        table.add_row(objective, "", *_objectives(stages))
        table.add_section()
    _add_rows(table, "parameters", stages, [_parameters(stage.cost) for stage in stages], _count)
    _add_rows(table, "MACs", stages, [_macs(stage.cost) for stage in stages], _count)
    if any(stage.latency for stage in stages):
        _add_rows(table, latency, stages, [_medians(stage) for stage in stages], _latency_cell)
        table.caption, table.caption_justify = f"latency: {_how_measured(stages)}", "left"
    return table


def _objectives(stages: Sequence[Stage]) -> list[str]:
    values = [stage.objective for stage in stages]
    decimals = _decimals([value for value in values if value is not None])
    first, last = values[0], values[-1]
    change = f"{last - first:+.{decimals}f}" if first is not None and last is not None else ""
    return [*("" if value is None else f"{value:.{decimals}f}" for value in values), change]


def _decimals(values: Sequence[float]) -> int:
    """Two, or as many more as the largest value needs to show four digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return max(2, 3 - math.floor(math.log10(largest))) if largest > 0 else 2


def _parameters(cost: Cost) -> dict[str, float]:
    return {**{name: part.parameters for name, part in cost.by_component.items()}, TOTAL: cost.parameters}


def _macs(cost: Cost) -> dict[str, float]:
    return {**{name: part.macs for name, part in cost.by_component.items()}, TOTAL: cost.macs}


def _medians(stage: Stage) -> dict[str, float]:
    return {name: latency.median for name, latency in stage.latency.items()}


def _add_rows(
    table: Table,
    quantity: str,
    stages: Sequence[Stage],
    values: Sequence[Mapping[str, float]],
    cell: Callable[[Stage, str, float], str],
) -> None:
    """One row per component; ``values`` holds a mapping from component to number for every stage."""
    for position, part in enumerate(values[0]):
        cells = [
            cell(stage, part, column[part]) if part in column else ""
            for stage, column in zip(stages, values, strict=True)
        ]
        table.add_row("" if position else quantity, part, *cells, _change(values[0][part], values[-1].get(part)))
    table.add_section()


def _change(first: float, last: float | None) -> str:
    return "" if last is None or first == 0 else f"{100 * (last / first - 1):+.1f} %"


def _count(_stage: Stage, _part: str, value: float) -> str:
    return f"{value:,.0f}"


def _latency_cell(stage: Stage, part: str, value: float) -> str:
    return f"{1e3 * value:.3f} ({1e3 * stage.latency[part].spread:.3f})"


def _how_measured(stages: Sequence[Stage]) -> str:
    one = next(latency for stage in stages for latency in stage.latency.values())
    threads = "1 thread" if one.threads == 1 else f"{one.threads} threads"
    return f"median and, in brackets, distance between quartiles of {one.repeats} measurements with {threads}"

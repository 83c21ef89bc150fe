"""The objective against the sparsity, strategy by strategy: as a table, as data and as a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from secateur.extras import needs
from secateur.graph.describe import plain_table, to_text

_COSTS = {"params": "parameters", "macs": "multiply-adds", "latency": "latency"}


@dataclass(frozen=True)
class TradeOffPoint:
    """One strategy at one sparsity.

    Attributes:
        strategy: its name.
        target: the sparsity that was asked for.
        sparsity: the one achieved; None where the strategy found nothing.
        objective: of the finished model, after refit if there is calibration data; None where there is no model.
        interval: confidence interval of a noisy objective.
        constraints: constraint name to the value held against its bounds.
        seconds: that finding and finishing the model took.
        evaluations: candidates that the strategy looked at.
        coefficients: group name to pruning coefficient.
        kept: group name to the number of channels that stay.
        failure: why there is no model; empty if there is one.
    """

    strategy: str
    target: float
    sparsity: float | None = None
    objective: float | None = None
    interval: tuple[float, float] | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    evaluations: int = 0
    coefficients: Mapping[str, float] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class TradeOff:
    """The objective of the best model that each strategy found at each sparsity.

    Attributes:
        objective: what it is called.
        of: the cost that the sparsities are fractions of: ``"params"``, ``"macs"`` or ``"latency"``.
        dense: the dense model's objective.
        dense_interval: its confidence interval, if it is noisy.
        points: strategy by strategy, in the order of the sparsities.
    """

    objective: str
    of: str
    dense: float
    dense_interval: tuple[float, float] | None
    points: tuple[TradeOffPoint, ...]

    @property
    def strategies(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(dict.fromkeys(point.strategy for point in self.points))

    def table(self) -> Table:
        """One row per strategy and sparsity, then what failed."""
        columns = ["asked", "removed", self.objective, "to dense", "evaluations", "seconds"]
        table = plain_table(f"{self._title()}; dense: {_digits(self.dense)}", "strategy", *columns, numeric=columns)
        for name in self.strategies:
            for point in self._of(name):
                table.add_row(point.strategy, f"{point.target:.1%}", *self._cells(point))
            table.add_section()
        return table

    def __str__(self) -> str:
        failures = [f"{p.strategy} at {p.target:.1%}: {p.failure}" for p in self.points if p.failure]
        return "\n".join([to_text([self.table()]), *failures])

    def as_data(self) -> dict[str, Any]:
        """The trade-off as JSON can hold it."""
        return asdict(self)

    def figure(self, *, title: str = "", dpi: int = 150) -> bytes:
        """A PNG: one line per strategy, bands for confidence intervals, the dense model's objective across.

        Args:
            title: written above; what is shown if empty.
            dpi: dots per inch.

        Raises:
            SecateurError: matplotlib isn't installed.
        """
        with needs("matplotlib", extra="demo"):
            from secateur.report.figures import Curve, curves
        lines = []
        for name in self.strategies:
            found = [(p.sparsity, p.objective, p.interval) for p in self._of(name)]
            drawn = sorted((s, v, i or (v, v), i) for s, v, i in found if s is not None and v is not None)
            low, high = ([i[end] for *_, i, _ in drawn] for end in (0, 1))
            noisy = any(interval is not None for *_, interval in drawn)
            line = Curve(
                name, [s for s, *_ in drawn], [v for _, v, *_ in drawn], low if noisy else (), high if noisy else ()
            )
            lines.append(line)
        return curves(
            lines,
            x=f"{_COSTS[self.of]} removed",
            y=self.objective,
            title=title or self._title(),
            levels={"dense": self.dense},
            percent=True,
            dpi=dpi,
        )

    def _of(self, strategy: str) -> Iterator[TradeOffPoint]:
        return (point for point in self.points if point.strategy == strategy)

    def _title(self) -> str:
        return f"{self.objective} against the fraction of {_COSTS[self.of]} removed"

    def _cells(self, point: TradeOffPoint) -> Iterator[str]:
        """What was reached, its objective with half the interval's width, the change from dense, and the effort."""
        removed, value = point.sparsity, point.objective
        yield "none found" if removed is None else f"{removed:.1%}"
        spread = "" if point.interval is None else f" +- {(point.interval[1] - point.interval[0]) / 2:.2g}"
        yield "" if value is None else f"{_digits(value)}{spread}"
        yield "" if value is None else f"{value - self.dense:+.3g}"
        yield f"{point.evaluations:,}"
        yield f"{point.seconds:.1f}"


def _digits(value: float) -> str:
    """Four digits, zeros at the end among them."""
    return f"{value:#.4g}".rstrip(".")

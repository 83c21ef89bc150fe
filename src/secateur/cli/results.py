"""What ``secateur prune`` found, as tables and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from secateur.allocation import Evaluation
from secateur.api import PruningResult
from secateur.cli.job import Job
from secateur.cli.metrics import constraints
from secateur.graph.describe import plain_table, to_text
from secateur.report.comparison import comparison

_COSTS = {"params": "parameters", "macs": "MACs", "latency": "latency, as measured"}


def show(result: PruningResult, job: Job) -> None:
    """Print the comparison, the coefficients, the constraints and the proof."""
    metric = job.maximize or job.minimize or "objective"
    tables = [comparison([result.before, result.after], objective=metric), _coefficients(result)]
    if job.constraint:
        tables.append(_constraints(result, job))
    print(to_text(tables))
    print(f"\nremoved: {result.allocation.sparsity:.2%} of the {_COSTS[job.of]}")
    if job.is_measured:
        print(f"candidates: {_counts(result.allocation.history)}")
    print(f"proof: {result.report}")


def _counts(history: Sequence[Evaluation]) -> str:
    """How many were measured, and how many of these in full, or in vain, where there are such."""
    counts = {"in full": sum(e.full for e in history), "failed": sum(e.error is not None for e in history)}
    return ", ".join([f"{len(history)} measured", *(f"{count} {what}" for what, count in counts.items() if count)])


def as_data(result: PruningResult, job: Job) -> dict[str, Any]:
    """The result as JSON can hold it."""
    allocation = result.allocation
    return {
        "job": job.as_data(),
        "before": result.before.as_data(),
        "after": result.after.as_data(),
        "sparsity": allocation.sparsity,
        "component_sparsities": dict(allocation.component_sparsities),
        "coefficients": dict(result.plan.coefficients),
        "constraints": {} if allocation.best is None else dict(allocation.best.constraints),
        "history": [asdict(evaluation) for evaluation in allocation.history],
    }


def _coefficients(result: PruningResult) -> Table:
    table = plain_table(
        "Pruning coefficients", "group", "components", "channels", "kept", "coefficient",
        numeric=["channels", "kept", "coefficient"],
    )  # fmt: skip
    for group in result.graph.groups:
        kept = len(result.plan.groups[group.name])
        table.add_row(
            group.name, ", ".join(group.components), str(group.size), str(kept), f"{1 - kept / group.size:.3f}"
        )
    return table


def _constraints(result: PruningResult, job: Job) -> Table:
    table = plain_table("Constraints", "constraint", "value", numeric=["value"])
    values = {} if result.allocation.best is None else result.allocation.best.constraints
    for constraint in constraints(job.constraint, job.factory):
        table.add_row(str(constraint), f"{values[constraint.name]:.5g}" if constraint.name in values else "")
    return table

"""Tables of what things cost: grouping, analysis, search and planning."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.planning import ONE, PLANNED, THREADS
from secateur.experiments.tdmpc.reproduction.records import DISTILLED, Record
from secateur.experiments.tdmpc.reproduction.reproduction import Reproduction
from secateur.report.tables import Table

STAGES = {
    "search": ("score", "allocate"),
    "surgery, proof, refit": ("surgery", "verify", "refit"),
    "final choice": ("judge",),
}
"""What a pruning does, and the phases that belong to it."""


def grouping_table(found: Reproduction) -> Table:
    """Count and sizes of groups, and how much of the model the largest one touches."""
    columns = [
        "grouping",
        "groups",
        "channels, smallest to largest",
        "largest group's share",
        "components in one group",
    ]
    rows = []
    for each in found.groupings:
        sizes = f"{min(each.sizes)} to {max(each.sizes)}"
        rows.append([each.name, str(len(each.sizes)), sizes, f"{max(each.shares):.1%}", str(each.components)])
    note = (
        "A group's share: the parameters that touch one of its channels, of all parameters. Merged: groups that share "
        "a parameter are one, which is what a single coefficient for the whole model amounts to."
    )
    return Table("groups", columns, rows, note)


def analysis_table(found: Reproduction) -> Table:
    """Seconds and memory of every phase of a pruning."""
    phases = found.analysis.phases
    rows = [[name, f"{phase.seconds:.2f}", _megabytes(phase.peak)] for name, phase in phases.items()]
    rows.append(["all", f"{sum(phase.seconds for phase in phases.values()):.2f}", ""])
    note = (
        f"Half of {found.parameters:,} parameters, {found.analysis.rows:,} rows of calibration data in memory, rolled "
        f"out over {found.horizon} steps. Memory: the process's peak beyond what it held before the phase."
    )
    return Table("cost of the analysis", ["phase", "seconds", "peak memory, MB"], rows, note)


def allocation_table(found: Reproduction) -> Table:
    """What a search costs, with refit: the mean over the sparsities."""
    rows = []
    for name in found.settings.methods:
        records = [r for r in found.records if r.refit and r.method == name]
        if records:
            rows.append([METHODS[name].label, *_search_cells(records)])
    columns = ["method", "candidates", *(f"{stage}, s" for stage in STAGES), "peak memory, MB"]
    note = "Mean over the sparsities, with refit. The final choice runs episodes; the search doesn't."
    return Table("cost of the allocation", columns, rows, note)


def distillation_table(found: Reproduction) -> Table:
    """Steps of the optimiser, by method and sparsity."""
    targets = found.settings.sparsities
    rows = []
    for name in found.settings.methods:
        at = [found.of(name, target, DISTILLED) for target in targets]
        if any(at):
            rows.append([METHODS[name].label, *("" if each is None else _distillation_cell(each[0]) for each in at)])
    note = (
        f"Steps of the optimiser, and seconds, preparations and measurements included. {found.settings.distill:g} s by "
        "the clock were asked for: a busier or slower machine makes fewer steps of them. No gain: the error didn't "
        "fall, and the weights stayed as the refit left them."
    )
    return Table("steps of distillation", ["method", *(f"{100 * t:.3g} %" for t in targets)], rows, note)


def _distillation_cell(record: Record) -> str:
    cost = record.distillation
    if cost is None:
        return "not recorded"
    return f"{cost.steps:,} in {cost.seconds:.1f} s{'' if cost.improved else ', no gain'}"


def planning_table(found: Reproduction) -> Table:
    """Time and memory of planning, dense against pruned."""
    dense = found.planning.dense
    models = {"dense": dense}
    models |= {f"{METHODS[each.method].label}, {100 * each.target:.3g} %": each.cost for each in found.planning.pruned}
    rows = []
    for name, cost in models.items():
        row = [name, f"{cost.weights / 1e3:,.0f}"]
        for what in (ONE, PLANNED):
            median, spread = cost.latency[what].median, cost.latency[what].spread
            row += [f"{1e3 * median:.3g} ({1e3 * spread:.2g})", f"{dense.latency[what].median / median:.2f}"]
        rows.append([*row, *(f"{cost.tensors[what] / 1e3:,.1f}" for what in (ONE, PLANNED))])
    columns = ["model", "weights, kB", "one state, ms", "times faster", "planning step, ms", "times faster"]
    note = (
        f"Median and, in brackets, distance between quartiles of {dense.latency[ONE].repeats} measurements in turns, "
        f"{THREADS} thread. One state: encode, next, act and q at batch 1. Planning step: one episode, the planner's "
        "batch. Tensors: the most that live at once, beyond the weights."
    )
    return Table("cost of planning", [*columns, "tensors, one state, kB", "tensors, planning, kB"], rows, note)


def seconds_of(record: Record, phases: Sequence[str]) -> float:
    """Of these phases of a pruning, together."""
    return sum(record.seconds.get(phase, 0.0) for phase in phases)


def _search_cells(records: Sequence[Record]) -> list[str]:
    seconds = [statistics.mean(seconds_of(r, phases) for r in records) for phases in STAGES.values()]
    peaks = [r.peak for r in records if r.peak is not None]
    candidates = statistics.mean(r.evaluations for r in records)
    return [f"{candidates:.0f}", *(f"{s:.1f}" for s in seconds), _megabytes(max(peaks, default=None))]


def _megabytes(count: int | None) -> str:
    return "not measured" if count is None else f"{count / 1e6:.0f}"

"""The papers' tables: PSNR, latent drift, cost of the search and coefficients per method, and the smallest models."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from secateur.experiments.reproduce.methods import FINISHES, METHODS
from secateur.experiments.reproduce.records import Record
from secateur.experiments.reproduce.reproduction import Reproduction
from secateur.experiments.unreachable import NOT_REACHABLE, reasons
from secateur.report.tables import Table

ARMS = {False: "without refit", True: "with refit"}


def all_tables(found: Reproduction) -> list[Table]:
    """Every table, in the order of reading."""
    tables = main_tables(found)
    tables += [drift_table(found, refit=refit) for refit in ARMS]
    tables += [coefficients_table(found, target, refit=refit) for target in found.settings.sparsities for refit in ARMS]
    return [table for table in tables if table.rows]


def main_tables(found: Reproduction) -> list[Table]:
    """What is shown at the end: PSNR, the smallest models, and the cost."""
    tables = [psnr_table(found, refit=refit) for refit in ARMS]
    if found.is_fine_tuned:
        tables.append(_fine_tuned_table(found))
    tables += [smallest_table(found), *(cost_table(found, refit=refit) for refit in ARMS)]
    return [table for table in tables if table.rows]


def psnr_table(found: Reproduction, *, refit: bool) -> Table:
    """PSNR over the test images by method and sparsity."""
    return _by_sparsity(found, f"PSNR, dB, {ARMS[refit]}", refit, lambda records: _range([r.psnr for r in records]))


def _fine_tuned_table(found: Reproduction) -> Table:
    def cell(records: Sequence[Record]) -> str:
        tuned = [r.tuned for r in records if r.tuned is not None]
        return _range(tuned) if tuned else ""

    return _by_sparsity(found, f"PSNR, dB, with refit and {_epochs(found)}", True, cell)


def drift_table(found: Reproduction, *, refit: bool) -> Table:
    """How far the latent vectors move: relative distance, and similarity in brackets."""

    def cell(records: Sequence[Record]) -> str:
        drift, similarity = (statistics.mean(v) for v in zip(*((r.drift, r.similarity) for r in records), strict=True))
        return f"{drift:.3f} ({similarity:.3f})"

    return _by_sparsity(
        found, f"latent drift, relative L2 (and similarity, CKA), {ARMS[refit]}", refit, cell, dense="0.000 (1.000)"
    )


def cost_table(found: Reproduction, *, refit: bool) -> Table:
    """Candidates measured, and time for all of it."""

    def cell(records: Sequence[Record]) -> str:
        seconds = statistics.mean(r.seconds for r in records)
        return f"{statistics.mean(r.evaluations for r in records):.0f} in {seconds:.{1 if seconds < 10 else 0}f} s"

    return _by_sparsity(found, f"candidates measured, {ARMS[refit]}", refit, cell, dense="")


def coefficients_table(found: Reproduction, target: float, *, refit: bool) -> Table:
    """Pruning coefficient per group, mean over the seeds."""
    there = list(_methods(found, target, refit))
    groups = list(there[0][1][0].coefficients) if there else []
    rows = []
    for method, records in there:
        means = [statistics.mean(r.coefficients[group] for r in records) for group in groups]
        rows.append([METHODS[method].label, *(f"{mean:.2f}" for mean in means)])
    return Table(f"pruning coefficients at {percent(target)}, {ARMS[refit]}", ["method", *groups], rows)


def smallest_table(found: Reproduction) -> Table:
    """The smallest model that keeps the PSNR."""
    rows = []
    for method in found.settings.methods:
        records = found.of(method=method, refit=True, target=None)
        if records:
            rows.append(_smallest_row(found, METHODS[method].label, records, [r.psnr for r in records]))
        elif found.missed(method=method, refit=True, target=None):
            rows.append([METHODS[method].label, NOT_REACHABLE, "", ""])
    for method, is_tuned in FINISHES:
        finished = [f for f in found.smallest if (f.record.method, f.is_tuned) == (method, is_tuned)]
        if finished:
            label = f"{METHODS[method].label}, {_epochs(found) if is_tuned else 'judged when finished'}"
            rows.append(_smallest_row(found, label, [f.record for f in finished], [f.psnr for f in finished]))
    title = f"smallest model with PSNR within {found.settings.drop:g} dB of dense on held-out training images"
    return Table(title, ["method", "parameters removed", "PSNR, dB", "below dense, dB"], rows)


def _smallest_row(found: Reproduction, label: str, records: Sequence[Record], psnrs: Sequence[float]) -> list[str]:
    drops = [found.dense[r.seed] - psnr for r, psnr in zip(records, psnrs, strict=True)]
    return [label, _range([100 * r.sparsity for r in records], " %"), _range(psnrs), _range(drops)]


def _epochs(found: Reproduction) -> str:
    epochs = found.settings.fine_tune
    return f"{epochs} {'epoch' if epochs == 1 else 'epochs'} of fine-tuning"


def _by_sparsity(
    found: Reproduction, title: str, refit: bool, cell: Callable[[Sequence[Record]], str], *, dense: str | None = None
) -> Table:
    targets = found.settings.sparsities
    first = _range(list(found.dense.values())) if dense is None else dense
    rows = [["dense", *(first for _ in targets)]] if first else []
    for method in found.settings.methods:
        cells = [_cell(found, method, refit, target, cell) for target in targets]
        if any(cells):
            rows.append([METHODS[method].label, *cells])
    return Table(title, ["method", *map(percent, targets)], rows, _missed_note(found, refit))


def _cell(found: Reproduction, method: str, refit: bool, target: float, cell: Callable[[Sequence[Record]], str]) -> str:
    records = found.of(method=method, refit=refit, target=target)
    missed = found.missed(method=method, refit=refit, target=target)
    if not records:
        return NOT_REACHABLE if missed else ""
    shown = cell(records)
    return f"{shown}, {len(records)} of {len(records) + len(missed)} seeds" if shown and missed else shown


def _missed_note(found: Reproduction, refit: bool) -> str:
    asked = [(method, target) for method in found.settings.methods for target in found.settings.sparsities]
    missed = [
        (f"{METHODS[method].label} at {percent(target)}", each)
        for method, target in asked
        for each in found.missed(method=method, refit=refit, target=target)
    ]
    return reasons(missed).strip()


def percent(fraction: float) -> str:
    """A fraction in three digits at most."""
    return f"{100 * fraction:.3g}%"


def _methods(found: Reproduction, target: float, refit: bool) -> Iterator[tuple[str, list[Record]]]:
    for method in found.settings.methods:
        records = found.of(method=method, refit=refit, target=target)
        if records:
            yield method, records


def _range(values: Sequence[float], unit: str = "") -> str:
    """Mean, and the range if there are several."""
    mean = f"{statistics.mean(values):.2f}{unit}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f} to {max(values):.2f})"

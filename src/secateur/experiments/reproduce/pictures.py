"""The papers' figures: PSNR and latent drift against sparsity, coefficients, cost, and reconstructions."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.experiments.reproduce.methods import METHODS
from secateur.experiments.reproduce.records import Record
from secateur.experiments.reproduce.reproduction import Reproduction
from secateur.experiments.reproduce.tables import ARMS
from secateur.report.figures import Curve, bars, curves, image_rows

SHOWN = ("torch-random", "torch-l2", "random", "norm", "grid", "gradient")
"""The methods whose reconstructions the papers show."""


def all_pictures(found: Reproduction) -> Iterator[tuple[str, bytes]]:
    """File name and PNG of every figure."""
    reached = {(record.refit, record.target) for record in found.records}
    for refit, arm in ARMS.items():
        at = [target for target in found.settings.sparsities if (refit, target) in reached]
        if not at:
            continue
        name, lowest = arm.replace(" ", "-"), at[0]
        yield f"psnr-{name}.png", _psnr(found, arm, refit, lambda r: r.psnr)
        yield f"drift-{name}.png", _drift(found, arm, refit)
        yield f"coefficients-{name}.png", _coefficients(found, arm, refit, lowest)
        yield f"reconstructions-{name}.png", _reconstructions(found, arm, refit, lowest)
    if found.is_fine_tuned:
        yield "psnr-fine-tuned.png", _psnr(found, "with refit, then fine-tuned", True, lambda r: r.tuned)
    in_both = [t for t in found.settings.sparsities if {(False, t), (True, t)} <= reached]
    if in_both:
        yield "cost.png", _cost(found, in_both[0])


def _psnr(found: Reproduction, arm: str, refit: bool, value: Callable[[Record], float | None]) -> bytes:
    return curves(
        _lines(found, refit, value),
        x="parameters removed",
        y="PSNR, dB",
        title=f"{found.name}, {arm}: mean and range of {found.settings.seeds} seeds",
        levels={"dense": statistics.mean(found.dense.values())},
        percent=True,
    )


def _drift(found: Reproduction, arm: str, refit: bool) -> bytes:
    return curves(
        _lines(found, refit, lambda r: r.drift),
        x="parameters removed",
        y="latent drift, relative L2",
        title=f"{found.name}, {arm}: how far the latent vectors move",
        percent=True,
    )


def _lines(found: Reproduction, refit: bool, value: Callable[[Record], float | None]) -> list[Curve]:
    lines = []
    for method in found.settings.methods:
        records = [found.of(method=method, refit=refit, target=target) for target in found.settings.sparsities]
        found_values = [[value(r) for r in at] for at in records]
        values = [[v for v in at if v is not None] for at in found_values]
        there = {x: at for x, at in zip(found.settings.sparsities, values, strict=True) if at}
        if there:
            middle = [statistics.mean(v) for v in there.values()]
            low, high = [min(v) for v in there.values()], [max(v) for v in there.values()]
            lines.append(Curve(METHODS[method].label, list(there), middle, low, high))
    return lines


def _coefficients(found: Reproduction, arm: str, refit: bool, target: float) -> bytes:
    groups = list(found.records[0].coefficients)
    series = {
        METHODS[method].label: [statistics.mean(r.coefficients[group] for r in records) for group in groups]
        for method, records in _found(found, refit, target)
    }
    title = f"{found.name}, {target:.0%} removed, {arm}: coefficient of each group, mean of the seeds"
    return bars(groups, series, y="pruning coefficient", title=title)


def _cost(found: Reproduction, target: float) -> bytes:
    times = {refit: dict(_found(found, refit, target)) for refit in ARMS}
    methods = [method for method in found.settings.methods if all(method in times[refit] for refit in ARMS)]
    series = {
        arm: [statistics.mean(r.seconds for r in times[refit][m]) for m in methods] for refit, arm in ARMS.items()
    }
    title = f"{found.name}, {target:.0%} removed: time of scoring, search, surgery, proof and refit"
    return bars([METHODS[m].label for m in methods], series, y="seconds", title=title, logarithmic=True)


def _found(found: Reproduction, refit: bool, target: float) -> Iterator[tuple[str, Sequence[Record]]]:
    for method in found.settings.methods:
        records = found.of(method=method, refit=refit, target=target)
        if records:
            yield method, records


def _reconstructions(found: Reproduction, arm: str, refit: bool, target: float) -> bytes:
    rows = [("original", _pixels(found, found.originals))]
    rows.append((f"dense\n{found.dense[0]:.2f} dB", _pixels(found, found.reconstructed)))
    for method, records in _found(found, refit, target):
        if method in SHOWN:
            label = f"{METHODS[method].label}\n{records[0].psnr:.2f} dB"
            rows.append((label, _pixels(found, records[0].drawn)))
    return image_rows(rows, title=f"{found.name}: {target:.0%} of the parameters removed, {arm}")


def _pixels(found: Reproduction, digits: str) -> NDArray[np.floating]:
    return np.frombuffer(bytes.fromhex(digits), dtype=np.uint8).reshape(-1, *found.shape) / 255

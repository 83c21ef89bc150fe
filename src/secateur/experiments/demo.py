"""The demo: train an autoencoder, prune it, verify it, repair it, and compare the three on the test set."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import secateur
from secateur.experiments.autoencoder import EPOCHS, Autoencoder, psnr, train
from secateur.experiments.images import Images
from secateur.latency import Latency, measure_latency
from secateur.report.comparison import TOTAL, Stage
from secateur.report.figures import image_rows

CALIBRATION_ROWS = 6_000
LATENCY_BATCH = 256
_SHOWN = 10
_HALF = secateur.Sparsity(0.5)

OnStep = Callable[[str, int, int], object]
"""Called with the name of a step, how much of it is done, and out of how much."""


@dataclass(frozen=True, eq=False)
class Pruned:
    """An autoencoder pruned and repaired.

    Attributes:
        graph: of the dense model.
        plan: what was kept.
        allocation: the coefficients, with the sparsity that they reach.
        pruned: after surgery, before any repair.
        refitted: after the repair.
        verification: the surgery's proof.
        seconds: wall-clock time of all of it.
    """

    graph: secateur.DependencyGraph
    plan: secateur.PruningPlan
    allocation: secateur.AllocationResult
    pruned: Autoencoder
    refitted: Autoencoder
    verification: secateur.VerificationReport
    seconds: float


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found.

    Attributes:
        images: the data.
        seed: of the training.
        work: the pruned models, the plan and the proof.
        stages: dense, pruned, refitted; the objective is the test set's PSNR in dB.
        figure: PNG of originals and reconstructions.
        batch: images per call while the latency is measured.
    """

    images: Images
    seed: int
    work: Pruned
    stages: tuple[Stage, Stage, Stage]
    figure: bytes
    batch: int

    @property
    def drop(self) -> float:
        """How far the refitted model's PSNR is below the dense one's, in dB."""
        dense, _, refitted = (stage.objective for stage in self.stages)
        assert dense is not None
        assert refitted is not None
        return dense - refitted

    def as_data(self) -> dict[str, Any]:
        """The result as JSON can hold it; PSNR in dB, times in seconds."""
        return {
            "dataset": self.images.name,
            "seed": self.seed,
            "sparsity": self.work.allocation.sparsity,
            "coefficients": dict(self.work.plan.coefficients),
            "stages": [stage.as_data() for stage in self.stages],
            "prune_refit_verify_seconds": self.work.seconds,
            "torch": torch.__version__,
        }


def run(
    images: Images,
    *,
    target: secateur.Sparsity = _HALF,
    seed: int = 0,
    epochs: int | None = None,
    threads: int = 1,
    on_step: OnStep = lambda _name, _done, _total: None,
) -> DemoResult:
    """Train, prune, verify, repair and compare.

    Args:
        images: the data; its training images calibrate the repair, its test images are what PSNR is taken over.
        target: how much to remove.
        seed: of the training.
        epochs: of the training; the data set's usual number if not given.
        threads: torch's intra-op threads while the latency is measured.
        on_step: told of the progress.

    Raises:
        TargetError: the target can't be met.
        VerificationError: the surgery went wrong.
    """
    total = epochs or EPOCHS[images.name]
    dense = train(images, epochs=total, seed=seed, on_epoch=lambda epoch, _loss: on_step("train", epoch, total))
    work = prune_autoencoder(dense, images, target=target, on_step=on_step)
    models = {"dense": dense, "pruned": work.pruned, "refitted": work.refitted}
    on_step("measure", 0, 1)
    stages = _stages(models, work, images, threads)
    on_step("measure", 1, 1)
    return DemoResult(images, seed, work, stages, _figure(models, stages, images), len(images.test[:LATENCY_BATCH]))


def prune_autoencoder(
    dense: Autoencoder,
    images: Images,
    *,
    target: secateur.Sparsity = _HALF,
    criterion: secateur.importance.Criterion | None = None,
    on_step: OnStep = lambda _name, _done, _total: None,
) -> Pruned:
    """Prune to a target with uniform coefficients, verify, and refit; no training."""
    started = time.perf_counter()
    calibration = list(images.train[:CALIBRATION_ROWS].split(500))
    criterion = criterion or secateur.importance.Reconstruction(calibration)
    on_step("prune", 0, 4)
    graph = secateur.trace(dense, images.train[:1])
    scores = criterion(graph, dense)
    on_step("prune", 1, 4)
    allocation = secateur.allocate(graph, scores, target)
    plan = secateur.plan(graph, scores, allocation.coefficients)
    pruned = secateur.apply(dense, plan)
    on_step("prune", 2, 4)
    verification = secateur.verify(dense, pruned, plan)
    on_step("prune", 3, 4)
    refitted = copy.deepcopy(pruned)
    secateur.refit(refitted, dense, plan, calibration)
    on_step("prune", 4, 4)
    return Pruned(graph, plan, allocation, pruned, refitted, verification, time.perf_counter() - started)


def _stages(
    models: Mapping[str, Autoencoder], work: Pruned, images: Images, threads: int
) -> tuple[Stage, Stage, Stage]:
    latency = _latency(models, images.test[:LATENCY_BATCH], threads)
    small = {name: len(kept) for name, kept in work.plan.groups.items()}
    costs = {"dense": work.graph.cost(), "pruned": work.graph.cost(small), "refitted": work.graph.cost(small)}
    dense, pruned, refitted = (
        Stage(name, costs[name], psnr(model, images.test), {part: latency[name, part] for part in _PARTS})
        for name, model in models.items()
    )
    return dense, pruned, refitted


_PARTS = ("encoder", "decoder", TOTAL)


def _latency(models: Mapping[str, Autoencoder], batch: torch.Tensor, threads: int) -> dict[tuple[str, str], Latency]:
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for name, model in models.items():
        calls[name, "encoder"] = partial(model.encoder, batch)
        calls[name, "decoder"] = partial(model.decoder, model.encoder(batch).detach())
        calls[name, TOTAL] = partial(model, batch)
    return measure_latency(calls, threads=threads)


@torch.no_grad()
def _figure(models: Mapping[str, Autoencoder], stages: tuple[Stage, ...], images: Images) -> bytes:
    shown = images.test[:_SHOWN]
    rows = [("original", shown)]
    for stage in stages:
        rows.append((f"{stage.name}, {stage.objective:.2f} dB", models[stage.name](shown)))
    shape = (len(shown), *images.shape)
    dense, *_, last = stages
    title = f"{images.name}: {1 - last.parameters / dense.parameters:.1%} of the parameters removed, no fine-tuning"
    return image_rows([(label, row.reshape(shape).numpy()) for label, row in rows], title=title)

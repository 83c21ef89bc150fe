"""One autoencoder pruned by one method, and measured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import secateur
from secateur.allocation import Progress, Smallest
from secateur.experiments.autoencoder import Autoencoder, fine_tune
from secateur.experiments.reproduce.methods import FINE_TUNED, METHODS, Pruned, Task
from secateur.experiments.reproduce.records import Record
from secateur.experiments.reproduce.settings import Settings, Split
from secateur.metrics import LatentDrift, Psnr, Similarity

_INTERFACE = "encoder"
"""The module whose outputs are the latent vectors."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A trained autoencoder, and what it is compared by.

    Attributes:
        seed: of its training.
        model: itself.
        split: the images.
        graph: what was traced.
    """

    seed: int
    model: Autoencoder
    split: Split
    graph: secateur.DependencyGraph

    @classmethod
    def of(cls, seed: int, model: Autoencoder, split: Split) -> Dense:
        """Trace the model."""
        return cls(seed, model, split, secateur.trace(model, split.images.train[:1]))

    def psnr(self, model: nn.Module | None = None) -> float:
        """PSNR of a model, itself if none is given, over the test images in dB."""
        return Psnr(self.split.images.test)(model or self.model)

    def held_out_psnr(self, model: nn.Module | None = None) -> float:
        """PSNR of a model, itself if none is given, over the held-out training images in dB."""
        return Psnr(self.split.held_out)(model or self.model)


def run(
    dense: Dense,
    method: str,
    rho: float | None,
    settings: Settings,
    *,
    refit: bool,
    on_progress: Callable[[Progress], None] | None = None,
) -> Record:
    """Prune by one method and measure what comes out.

    Args:
        dense: the trained autoencoder.
        method: a name in ``METHODS``.
        rho: fraction of the parameters to remove; None for the smallest model that keeps the PSNR.
        settings: of the reproduction.
        refit: whether to refit.
        on_progress: told of the search's progress.
    """
    task = Task(
        model=dense.model,
        graph=dense.graph,
        split=dense.split,
        target=Smallest() if rho is None else secateur.Sparsity(rho),
        least=dense.held_out_psnr() - settings.drop,
        seed=dense.seed,
        evaluations=settings.evaluations,
        refit_steps=settings.refit_steps,
        refit=refit,
        on_progress=on_progress,
    )
    return _record(dense, method, rho, METHODS[method].run(task), settings, refit=refit)


def _record(dense: Dense, method: str, rho: float | None, pruned: Pruned, settings: Settings, *, refit: bool) -> Record:
    is_tuned = refit and settings.fine_tune > 0 and method in FINE_TUNED
    tuned = _tuned(dense, pruned.model, settings.fine_tune) if is_tuned else None
    kept = {name: len(channels) for name, channels in pruned.plan.groups.items()}
    drift, similarity = _latent(dense, pruned)
    return Record(
        method=method,
        seed=dense.seed,
        refit=refit,
        target=rho,
        sparsity=1 - dense.graph.cost(kept).parameters / dense.graph.cost().parameters,
        psnr=dense.psnr(pruned.model),
        held_out=dense.held_out_psnr(pruned.model),
        tuned=None if tuned is None else dense.psnr(tuned),
        tuned_held_out=None if tuned is None else dense.held_out_psnr(tuned),
        drift=drift,
        similarity=similarity,
        coefficients=pruned.plan.coefficients,
        evaluations=pruned.evaluations,
        seconds=pruned.seconds,
        drawn=drawn(dense.split, pruned.model),
    )


def _tuned(dense: Dense, model: nn.Module, epochs: int) -> nn.Module:
    trained = copy.deepcopy(model)
    fine_tune(trained, dense.split.images, epochs=epochs, seed=dense.seed)
    return trained


def _latent(dense: Dense, pruned: Pruned) -> tuple[float, float]:
    """Relative distance and similarity of the latent vectors, on the test images."""
    (interface,) = dense.graph.interfaces
    batches = list(dense.split.images.test.split(500))
    drift = LatentDrift(dense.model, _INTERFACE, batches, group=interface.name)
    return drift.measure(pruned.model, pruned.plan), Similarity(dense.model, _INTERFACE, batches)(pruned.model)


@torch.no_grad()
def drawn(split: Split, model: nn.Module) -> str:
    """Reconstructions of the images to draw, one byte per pixel, as hexadecimal digits."""
    pixels: torch.Tensor = model(split.drawn)
    return (pixels * 255).round().to(torch.uint8).numpy().tobytes().hex()

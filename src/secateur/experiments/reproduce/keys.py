"""What results depend on: by it they are found again, and never taken for those of other settings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

import secateur
from secateur.experiments.autoencoder import BATCH, LEARNING_RATE
from secateur.experiments.fingerprint import fingerprint, with_fingerprint
from secateur.experiments.images import Images
from secateur.experiments.reproduce.methods import FINE_TUNED, METHODS, Task
from secateur.experiments.reproduce.settings import ROWS, ROWS_IN_BATCH, Settings, Split

FIRST = frozenset(
    {
        "e5de46b7fbf7018c",  # torch-random
        "c4f0bf5996606c28",  # torch-l2
        "1b92661921d7f326",  # uniform
        "6b7888742c012085",  # random
        "7969d63d95f3c3e6",  # norm
        "3c94e72e837acb70",  # norm-all
        "bcb7620a7324dff9",  # grid
        "f44eb2e2aa9c7ab8",  # gradient
        "4dfccbd352b57638",  # gradient-weights
        "e104c9ebf528a72f",  # tpe
        "525d0c0815109bcc",  # sensitivity
    }
)
"""Of the settings with which runs were made before their keys held a fingerprint: these runs still count."""


@dataclass(frozen=True)
class Run:
    """One run of one method.

    Attributes:
        method: its name.
        refit: whether to refit.
        target: the sparsity; None for the smallest model.
    """

    method: str
    refit: bool
    target: float | None


def key_of(run: Run, seed: int, images: str, settings: Settings) -> dict[str, Any]:
    """All that a run's result depends on.

    Args:
        run: which.
        seed: of the dense model.
        images: name of the data set.
        settings: what was asked.
    """
    key = {
        **asdict(run),
        "seed": seed,
        "images": images,
        "linear_latent": settings.linear_latent,
        "epochs": settings.epochs,
        "fine_tune": settings.fine_tune if run.refit and run.method in FINE_TUNED else 0,
        "evaluations": settings.evaluations,
        "refit_steps": settings.refit_steps if run.refit else None,
        "drop": settings.drop if run.target is None else None,
        "secateur": secateur.__version__,
    }
    return with_fingerprint(key, _fingerprint(run.method), FIRST)


def _fingerprint(method: str) -> str:
    """Of a method's own settings, whatever it is asked, and of how the images are divided."""
    training = (BATCH, LEARNING_RATE) if method in FINE_TUNED else ()
    settings = [METHODS[method].settings(_some_task(refit)) for refit in (False, True)]
    return fingerprint(settings, ROWS, ROWS_IN_BATCH, *training)


@cache
def _some_task(refit: bool) -> Task:
    """Of a model that does nothing, on images of one pixel: a method's settings are looked at with it."""
    model = nn.Linear(1, 1)
    split = Split.of(Images("digits", torch.zeros(2, 1), torch.zeros(1, 1), (1, 1)))
    return Task(
        model=model,
        graph=secateur.trace(model, split.images.train),
        split=split,
        target=secateur.Sparsity(0.5),
        least=0.0,
        seed=0,
        evaluations=40,
        refit_steps=0,
        refit=refit,
    )

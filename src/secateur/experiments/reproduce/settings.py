"""What a reproduction is asked for, and how the images are divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from secateur.experiments.images import Images

SPARSITIES = (0.2, 0.5, 0.7, 0.85)
"""The sparsities of the papers' tables and two beyond them."""

DRAWN = 10
"""Test images whose reconstructions are drawn."""

ROWS = {"mnist": (20_000, 6_000, 4_000), "digits": (900, 600, 400)}
"""By data set: training images for the refit, those of them for scores and candidates, and others for the objective."""

ROWS_IN_BATCH = 500
"""Of the training images, wherever they are given in batches."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to reproduce.

    Attributes:
        seeds: models to train, with the seeds 0, 1, ...
        sparsities: fractions of the parameters to remove, each in (0, 1).
        methods: names of the methods; see ``methods.METHODS``.
        linear_latent: train without the ReLU after the latent layer.
        epochs: of training; the data set's usual number if None.
        fine_tune: epochs of fine-tuning after the refit, of some methods, measured apart; 0 for none.
        evaluations: candidates that a search may measure, but for the grid.
        refit_steps: of the refit of candidates; the result's takes as many as the library's own.
        drop: how far below the dense model's the PSNR of the smallest model may be, in dB.
    """

    seeds: int = 3
    sparsities: Sequence[float] = SPARSITIES
    methods: Sequence[str]
    linear_latent: bool = False
    epochs: int | None = None
    fine_tune: int = 1
    evaluations: int = 40
    refit_steps: int = 0
    drop: float = 1.0


@dataclass(frozen=True, eq=False)
class Split:
    """The images, by what they are used for. No search sees a test image.

    Attributes:
        images: all of them.
        calibration: training images for the refit of results, in batches.
        searched: those of them for scores, losses, and the refit of candidates.
        held_out: other training images, whose PSNR is the objective of every search.
    """

    images: Images
    calibration: list[torch.Tensor]
    searched: list[torch.Tensor]
    held_out: torch.Tensor

    @classmethod
    def of(cls, images: Images) -> Split:
        """Divide the training images."""
        calibration, searched, held_out = ROWS[images.name]
        refit, search = (list(images.train[:rows].split(ROWS_IN_BATCH)) for rows in (calibration, searched))
        return cls(images, refit, search, images.train[-held_out:])

    @property
    def drawn(self) -> torch.Tensor:
        """The test images whose reconstructions are drawn, shape (images, pixels)."""
        return self.images.test[:DRAWN]

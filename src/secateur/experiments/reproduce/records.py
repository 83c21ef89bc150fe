"""Results of single runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """One pruned autoencoder.

    Attributes:
        method: its name.
        seed: of the dense model.
        refit: whether it was refitted (and its candidates scored after refit).
        target: the sparsity asked for; None for the smallest model that keeps the PSNR.
        sparsity: the sparsity achieved, as a fraction of the parameters.
        psnr: over the test images, in dB.
        held_out: over the training images that the search looked at, in dB.
        tuned: over the test images after fine-tuning, in dB; None if there was none.
        tuned_held_out: likewise over the held-out images.
        drift: relative L2 distance of the latent vectors, on the test images.
        similarity: centred kernel alignment of the latent vectors, on the test images.
        coefficients: group name to pruning coefficient.
        evaluations: candidates that were measured.
        seconds: wall-clock time of scoring, search, surgery, proof and refit.
        drawn: reconstructions of a few test images, one byte per pixel, as hexadecimal digits.
    """

    method: str
    seed: int
    refit: bool
    target: float | None
    sparsity: float
    psnr: float
    held_out: float
    tuned: float | None
    tuned_held_out: float | None
    drift: float
    similarity: float
    coefficients: Mapping[str, float]
    evaluations: int
    seconds: float
    drawn: str

    def as_data(self) -> dict[str, Any]:
        """The record as JSON can hold it, without the reconstructions."""
        data = asdict(self)
        del data["drawn"]
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Record:
        """The record whose fields these are.

        Raises:
            TypeError: there are others, or some are missing.
        """
        return cls(**data)

"""Results of single runs, and the folder that keeps them so that a run that is asked for again isn't made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secateur.errors import StorageError
from secateur.report.files import write_whole


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


@dataclass(frozen=True)
class Cache:
    """A folder of records, one file for each combination of settings; others are never taken for it.

    Attributes:
        folder: made with the first record.
    """

    folder: Path

    def get(self, name: str, settings: Mapping[str, Any], make: Callable[[], Record]) -> Record:
        """The record of a run with these settings: read if it is there, made and written if not.

        Args:
            name: what the file's name begins with.
            settings: all that the result depends on, as JSON can hold it.
            make: runs.

        Raises:
            StorageError: a file can't be read or written.
        """
        text = json.dumps(settings, sort_keys=True)
        file = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"
        if file.exists():
            return _read(file)
        record = make()
        data = {"settings": settings, "record": asdict(record)}
        write_whole(file, (json.dumps(data, indent=1) + "\n").encode())
        return record


def _read(file: Path) -> Record:
    try:
        return Record(**json.loads(file.read_text(encoding="utf-8"))["record"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{file} can't be read: {error}; delete it to run again") from error

"""PSNR of the autoencoder against the fraction of parameters removed: uniform coefficients, no fine-tuning.

    python benchmarks/bench_autoencoder.py --data FOLDER_WITH_MNIST --json autoencoder.json

Trains one autoencoder per seed (a minute each on one core for MNIST), then prunes and refits it with every criterion at
every sparsity. Without ``--data`` and SECATEUR_DATA it takes scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from secateur.allocation import Sparsity
from secateur.experiments.autoencoder import Autoencoder, psnr, train
from secateur.experiments.demo import CALIBRATION_ROWS, prune_autoencoder
from secateur.experiments.images import DATA_VARIABLE, Images, load_digits, load_mnist
from secateur.graph.describe import plain_table, to_text
from secateur.importance import Criterion, Magnitude, Reconstruction
from secateur.report.files import write_whole

SPARSITIES = (0.2, 0.5, 0.7, 0.85)
CRITERIA: dict[str, Callable[[Images], Criterion]] = {
    "magnitude": lambda _images: Magnitude(p=2),
    "reconstruction": lambda images: Reconstruction(list(images.train[:CALIBRATION_ROWS].split(500))),
}


def rows_of(dense: Autoencoder, images: Images, seed: int) -> list[dict[str, Any]]:
    """One result per criterion and sparsity."""
    rows = []
    for name, make in CRITERIA.items():
        for sparsity in SPARSITIES:
            work = prune_autoencoder(dense, images, target=Sparsity(sparsity), criterion=make(images))
            rows.append(
                {
                    "seed": seed,
                    "criterion": name,
                    "sparsity": work.allocation.sparsity,
                    "target": sparsity,
                    "dense": psnr(dense, images.test),
                    "pruned": psnr(work.pruned, images.test),
                    "refitted": psnr(work.refitted, images.test),
                    "seconds": work.seconds,
                }
            )
    return rows


def table(rows: list[dict[str, Any]], title: str) -> str:
    """Mean over seeds, with the worst drop."""
    alike: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[row["criterion"], row["target"]].append(row)
    columns = ["dense", "pruned", "refitted", "worst drop", "seconds"]
    shown = plain_table(title, "criterion", "removed", *columns, numeric=["removed", *columns])
    for (criterion, _), found in alike.items():
        mean = {key: statistics.mean(row[key] for row in found) for key in ("sparsity", "dense", "pruned", "refitted")}
        worst = max(row["dense"] - row["refitted"] for row in found)
        slowest = max(row["seconds"] for row in found)
        psnrs = [f"{mean[key]:.2f}" for key in ("dense", "pruned", "refitted")]
        shown.add_row(criterion, f"{mean['sparsity']:.1%}", *psnrs, f"{worst:.2f}", f"{slowest:.2f}")
    return to_text([shown])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    images = load_mnist(Path(arguments.data)) if arguments.data else load_digits()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        rows += rows_of(train(images, seed=seed, epochs=arguments.epochs), images, seed)
    title = f"{images.name}: PSNR in dB, mean of {arguments.seeds} seeds; torch threads: {torch.get_num_threads()}"
    print(table(rows, title))
    if arguments.json is not None:
        write_whole(arguments.json, (json.dumps(rows, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()

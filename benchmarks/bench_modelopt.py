"""Secateur beside NVIDIA ModelOpt's FastNAS on the MNIST autoencoder: PSNR at equal size, no fine-tuning.

ModelOpt isn't needed by Secateur and wants versions of its own, so make an environment for this benchmark:

    python -m venv modelopt && modelopt/bin/pip install '.[demo,metrics,search]' \
        nvidia-modelopt==0.47.0 torchprofile==0.0.4 requests huggingface_hub datasets
    OMP_NUM_THREADS=1 modelopt/bin/python benchmarks/bench_modelopt.py --data FOLDER_WITH_MNIST --out FOLDER

(the last four are imported by ModelOpt 0.47 but not named by it). Both get the same trained models, the same number of
threads and the same objective: PSNR over training images that calibrate nothing; what is reported is PSNR over the test
images. FastNAS measures the sensitivity of every layer at every width that its divisor allows, 32 channels by default,
and repairs nothing. Its constraint is an upper bound, so that it may remove more than was asked.

Without ``--data`` and SECATEUR_DATA it takes scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.experiments.images import DATA_VARIABLE, Images, load_digits, load_mnist
from secateur.experiments.reproduce.checkpoints import trained
from secateur.experiments.reproduce.methods import METHODS
from secateur.experiments.reproduce.runs import Dense, run
from secateur.experiments.reproduce.settings import SPARSITIES, Settings, Split
from secateur.graph.describe import plain_table, to_text
from secateur.report.files import write_whole

DIVISORS = {"mnist": (32, 8), "digits": (8, 4)}
"""FastNAS keeps multiples of this many channels: ModelOpt's default first, and a finer one."""

RATIOS = tuple(0.05 * i for i in range(1, 21))
"""Fractions of the channels that FastNAS may keep: ModelOpt's own."""


def fastnas(dense: Dense, rho: float, divisor: int) -> dict[str, Any]:
    """One search by ModelOpt."""
    modelopt: Any = importlib.import_module("modelopt.torch.prune")
    calls = 0

    def score(model: nn.Module) -> float:
        nonlocal calls
        calls += 1
        return dense.held_out_psnr(model)

    model = copy.deepcopy(dense.model)
    torch.manual_seed(dense.seed)
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        small, _ = modelopt.prune(
            model,
            mode=[("fastnas", {"nn.Linear": {"*": {"features_ratio": RATIOS, "feature_divisor": divisor}}})],
            constraints={"params": f"{100 * (1 - rho):g}%"},
            dummy_input=dense.split.images.train[:1],
            config={
                "score_func": score,
                "data_loader": [(batch,) for batch in dense.split.calibration],
                "collect_func": lambda batch: batch[0],
            },
        )
    seconds = time.perf_counter() - started
    sizes = [sum(p.numel() for p in each.parameters()) for each in (dense.model, small)]
    return {"sparsity": 1 - sizes[1] / sizes[0], "psnr": dense.psnr(small), "evaluations": calls, "seconds": seconds}


def secateurs(dense: Dense, rho: float, method: str, settings: Settings, *, refit: bool) -> dict[str, Any]:
    """One run of Secateur."""
    record = run(dense, method, rho, settings, refit=refit)
    return {name: getattr(record, name) for name in ("sparsity", "psnr", "evaluations", "seconds")}


def rows_of(dense: Dense, settings: Settings) -> list[dict[str, Any]]:
    """One result per contestant and sparsity."""
    rows = []
    for rho in settings.sparsities:
        found = {f"FastNAS, multiples of {d}": fastnas(dense, rho, d) for d in DIVISORS[dense.split.images.name]}
        for method in settings.methods:
            for refit in (False, True):
                label = f"Secateur, {METHODS[method].label}, {'refitted' if refit else 'not refitted'}"
                found[label] = secateurs(dense, rho, method, settings, refit=refit)
        rows += [{"seed": dense.seed, "who": who, "target": rho, **result} for who, result in found.items()]
    return rows


def table(rows: list[dict[str, Any]], title: str, dense: Mapping[int, float]) -> str:
    """Mean over seeds, with the range of the PSNR."""
    alike: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[row["who"], row["target"]].append(row)
    columns = ["asked", "removed", "PSNR, dB", "worst loss, dB", "measured", "seconds"]
    shown = plain_table(title, "", *columns, numeric=columns)
    for (who, target), found in sorted(alike.items(), key=lambda item: item[0][1]):
        mean = {
            key: statistics.mean(row[key] for row in found) for key in ("sparsity", "psnr", "evaluations", "seconds")
        }
        worst = max(dense[row["seed"]] - row["psnr"] for row in found)
        cells = [f"{target:.0%}", f"{mean['sparsity']:.1%}", f"{mean['psnr']:.2f}", f"{worst:.2f}"]
        shown.add_row(who, *cells, f"{mean['evaluations']:.0f}", f"{mean['seconds']:.1f}")
    return to_text([shown])


def load(data: Path | None) -> Images:
    return load_mnist(data) if data else load_digits()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get(DATA_VARIABLE))
    parser.add_argument("--out", type=Path, default=Path("secateur-reproduce"), help="keeps the trained models")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--linear-latent", action="store_true")
    parser.add_argument("--methods", nargs="*", default=["sensitivity"], choices=list(METHODS))
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    images = load(None if given.data is None else Path(given.data))
    settings = Settings(methods=given.methods, fine_tune=0, sparsities=SPARSITIES)
    rows: list[dict[str, Any]] = []
    psnrs: dict[int, float] = {}
    for seed in range(given.seeds):
        model = trained(
            images, given.out / "checkpoints", seed=seed, epochs=given.epochs, linear_latent=given.linear_latent
        )
        dense = Dense.of(seed, model, Split.of(images))
        psnrs[seed] = dense.psnr()
        rows += rows_of(dense, settings)
    mean = statistics.mean(psnrs.values())
    title = (
        f"{images.name}: PSNR over the test images, mean of {given.seeds} seeds; dense {mean:.2f} dB; "
        f"torch threads: {torch.get_num_threads()}"
    )
    print(table(rows, title, psnrs))
    if given.json is not None:
        write_whole(given.json, (json.dumps({"dense": psnrs, "rows": rows}, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()

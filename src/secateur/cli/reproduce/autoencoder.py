"""``secateur reproduce mnist-autoencoder``: the papers' first experiment."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from secateur.cli.options import Json, write_json
from secateur.cli.progress import steps
from secateur.cli.reproduce.output import check_finite, check_fractions, check_methods, write_and_show
from secateur.extras import needs

if TYPE_CHECKING:
    from secateur.experiments.images import Images
    from secateur.experiments.reproduce.reproduction import Reproduction
    from secateur.experiments.reproduce.settings import Settings


class Latent(str, Enum):
    """What follows the latent layer."""

    RELU = "relu"
    LINEAR = "linear"


def mnist_autoencoder(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="MNIST's four .gz files; or SECATEUR_DATA. Without: small digits."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Keeps models and results; tables and figures go here.")
    ] = Path("secateur-reproduce"),
    seeds: Annotated[int, typer.Option(min=1, help="Models to train and prune.")] = 3,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(help="Fraction of the parameters to remove; 0.2, 0.5, 0.7 and 0.85. May be repeated."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One method; all if not given. May be repeated.")
    ] = None,
    latent: Annotated[Latent, typer.Option(help="What follows the latent layer: nothing if linear.")] = Latent.RELU,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of training; 12 for MNIST, 100 for digits.")] = None,
    fine_tune: Annotated[int, typer.Option(min=0, help="Epochs after the refit, measured apart; 0 for none.")] = 1,
    evaluations: Annotated[int, typer.Option(min=8, help="Candidates that other searches may measure.")] = 40,
    drop: Annotated[float, typer.Option(help="The smallest model may be so many dB below dense.")] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="Torch's threads.")] = 1,
    json_path: Json = None,
) -> None:
    """Reproduce the papers' first experiment, and go past it.

    Trains an autoencoder per seed (784-512-256-64-256-512-784 for MNIST, as
    in arXiv 2507.14882), prunes it by every strategy and by PyTorch's own
    structured pruning to every sparsity, without and with refit, and with
    fine-tuning after it; and looks for the smallest model that keeps the
    PSNR. Searches see training images only; tables are of test images.

    Writes results.md, results.json and figures, and shows the main tables.
    What was trained and run is kept in --out and not run again, so that a run
    that was stopped goes on where it was; other settings are kept apart.

    Examples:
      secateur reproduce mnist-autoencoder
      secateur reproduce mnist-autoencoder --data mnist --seeds 3
      secateur reproduce mnist-autoencoder --data mnist --seeds 1 --sparsity 0.2 --method gradient --method grid
    """
    check_fractions("--sparsity", sparsity)
    check_finite("--drop", drop, "dB")
    torch.set_num_threads(threads)
    settings = _settings(
        method,
        sparsity,
        seeds=seeds,
        linear_latent=latent is Latent.LINEAR,
        epochs=epochs,
        fine_tune=fine_tune,
        evaluations=evaluations,
        drop=drop,
    )
    found = _run(_images(data), settings, out)
    write_json(json_path, found.as_data())
    _write_and_show(found, out)


def _settings(methods: list[str] | None, sparsities: list[float] | None, **others: Any) -> Settings:
    with _extras():
        from secateur.experiments.reproduce.methods import METHODS
        from secateur.experiments.reproduce.settings import SPARSITIES, Settings
    chosen = check_methods(METHODS, methods, METHODS)
    return Settings(methods=chosen, sparsities=tuple(sorted(set(sparsities or SPARSITIES))), **others)


def _extras() -> AbstractContextManager[None]:
    return needs(
        "matplotlib", "sklearn", "optuna", "cmaes", "sqlalchemy", "cooper", "torchmetrics", extra="demo,metrics,search"
    )


def _images(data: Path | None) -> Images:
    with _extras():
        from secateur.experiments import images

        if data is None and images.DATA_VARIABLE not in os.environ:
            return images.load_digits()
    return images.load_mnist(images.data_directory(data))


def _run(images: Images, settings: Settings, out: Path) -> Reproduction:
    with _extras():
        from secateur.experiments.reproduce.reproduction import reproduce as run

        with steps() as on_step:
            return run(images, settings, out, on_step)


def _write_and_show(found: Reproduction, out: Path) -> None:
    with _extras():
        from secateur.experiments.reproduce.pictures import all_pictures
    from secateur.experiments.reproduce.tables import all_tables, main_tables

    write_and_show(found, out, tables=all_tables(found), shown=main_tables(found), pictures=all_pictures(found))

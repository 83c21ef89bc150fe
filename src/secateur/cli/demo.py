"""``secateur demo``: train, prune, prove and repair a small autoencoder."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

import secateur
from secateur.cli.options import Json, write_json
from secateur.cli.progress import bars, steps
from secateur.cli.status import BoundNotMetError
from secateur.extras import needs
from secateur.graph.describe import to_text
from secateur.report.comparison import comparison
from secateur.report.files import write_whole

if TYPE_CHECKING:
    from secateur.experiments.demo import DemoResult
    from secateur.experiments.images import Images


class Dataset(str, Enum):
    """What the demo trains on."""

    DIGITS = "digits"
    MNIST = "mnist"


def demo(
    dataset: Annotated[Dataset, typer.Option(help="digits comes with scikit-learn.")] = Dataset.DIGITS,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="MNIST's four .gz files; or SECATEUR_DATA.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch MNIST into that folder first.")] = False,
    sparsity: Annotated[float, typer.Option(help="Fraction of the parameters to remove, in (0, 1).")] = 0.5,
    tolerance: Annotated[float, typer.Option(help="How far from that the result may be.")] = 0.01,
    max_drop: Annotated[
        float | None, typer.Option(metavar="DB", help="Exit status 1 if the repaired PSNR is further below dense.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of training; 100 for digits, 12 for mnist.")] = None,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Torch's threads, while timing too.")] = 1,
    out: Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Where the picture goes.")] = Path(
        "secateur-demo"
    ),
    json_path: Json = None,
) -> None:
    """Train a small autoencoder, prune it, verify it, repair it, and compare.

    Shows PSNR, parameters, multiply-adds and latency of the dense, the
    pruned and the refitted model, per component and in total, and writes a
    picture with their reconstructions side by side. No fine-tuning.

    Examples:
      secateur demo
      secateur demo --sparsity 0.7 --json result.json
      secateur demo --dataset mnist --data mnist --download
      secateur demo --dataset mnist --data mnist --sparsity 0.5 --max-drop 0.4
    """
    if not 0 < sparsity < 1:
        raise typer.BadParameter(f"--sparsity must lie between 0 and 1; it is {sparsity}")
    if not 0 <= tolerance < 1:
        raise typer.BadParameter(f"--tolerance must be at least 0 and below 1; it is {tolerance}")
    torch.set_num_threads(threads)
    images = _load(dataset, data, download=download, seed=seed)
    target = secateur.Sparsity(sparsity, tolerance=tolerance)
    result = _run(images, target=target, epochs=epochs, seed=seed, threads=threads)
    picture = out / "reconstructions.png"
    write_whole(picture, result.figure)
    write_json(json_path, {**result.as_data(), "figure": str(picture)})
    _show(result, picture)
    if max_drop is not None and result.drop > max_drop:
        raise BoundNotMetError(f"the refitted PSNR is {result.drop:.2f} dB below dense; --max-drop is {max_drop:g}")


def _load(dataset: Dataset, data: Path | None, *, download: bool, seed: int) -> Images:
    with needs("matplotlib", "sklearn", extra="demo"):
        from secateur.experiments import images
    if dataset is Dataset.DIGITS:
        with needs("matplotlib", "sklearn", extra="demo"):
            return images.load_digits(seed=seed)
    directory = images.data_directory(data)
    if download:
        with bars() as progress:
            task = progress.add_task("download MNIST", total=len(images.MNIST_FILES))
            images.download_mnist(directory, on_file=lambda _name: progress.advance(task))
    return images.load_mnist(directory)


def _run(images: Images, **settings: Any) -> DemoResult:
    with needs("matplotlib", "sklearn", extra="demo"):
        from secateur.experiments import demo as experiment
    with steps() as on_step:
        return experiment.run(images, on_step=on_step, **settings)


def _show(result: DemoResult, picture: Path) -> None:
    images = result.images
    height, width = images.shape
    print(f"{images.name}: {len(images.train):,} training and {len(images.test):,} test images of {height}x{width}\n")
    table = comparison(
        result.stages, title="Autoencoder", objective="PSNR, dB", latency=f"latency, ms, {result.batch} images"
    )
    print(to_text([table]))
    print(f"\nproof: {result.work.verification}")
    print(f"prune, verify and refit: {result.work.seconds:.2f} s, without any training")
    print(f"reconstructions: {picture}")

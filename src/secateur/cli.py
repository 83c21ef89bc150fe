"""The command line. Exit status: 0, 1 (a bound was not met) or 2 (bad input, one clear line on stderr)."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import nn

import secateur
from secateur.errors import SecateurError, TargetError, TraceError, VerificationError
from secateur.graph.describe import as_data, describe, to_text
from secateur.report.comparison import comparison
from secateur.report.files import write_whole

if TYPE_CHECKING:
    from secateur.experiments.demo import DemoResult
    from secateur.experiments.images import Images

_BOUND_NOT_MET = 1
_BAD_INPUT = 2

app = typer.Typer(
    name="secateur",
    help="Make multi-component PyTorch networks smaller: prune, prove, repair.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Json = Annotated[
    Path | None, typer.Option("--json", metavar="PATH", dir_okay=False, help="Write the result as JSON as well.")
]


class Dataset(str, Enum):
    """What the demo trains on."""

    DIGITS = "digits"
    MNIST = "mnist"


class BoundNotMetError(SecateurError):
    """The result is there, but outside a bound that the user set."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit status."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.TyperException as error:
        return _fail(error.format_message(), _BAD_INPUT)
    except (BoundNotMetError, TargetError, VerificationError) as error:
        return _fail(str(error), _BOUND_NOT_MET)
    except SecateurError as error:
        return _fail(str(error), _BAD_INPUT)


def _fail(message: str, status: int) -> int:
    print(f"secateur: error: {_one_line(message)}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, *_details: Any, **_more: Any) -> None:
    print(f"secateur: warning: {_one_line(str(message))}", file=sys.stderr)


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secateur {secateur.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
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
    json_path: _Json = None,
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
    result = _run_demo(images, target=target, epochs=epochs, seed=seed, threads=threads)
    picture = out / "reconstructions.png"
    write_whole(picture, result.figure)
    _write_json(json_path, {**result.as_data(), "figure": str(picture)})
    _show_demo(result, picture)
    if max_drop is not None and result.drop > max_drop:
        raise BoundNotMetError(f"the refitted PSNR is {result.drop:.2f} dB below dense; --max-drop is {max_drop:g}")


def _load(dataset: Dataset, data: Path | None, *, download: bool, seed: int) -> Images:
    with _demo_extra():
        from secateur.experiments import images
    if dataset is Dataset.DIGITS:
        with _demo_extra():
            return images.load_digits(seed=seed)
    directory = images.data_directory(data)
    if download:
        with _progress() as progress:
            task = progress.add_task("download MNIST", total=len(images.MNIST_FILES))
            images.download_mnist(directory, on_file=lambda _name: progress.advance(task))
    return images.load_mnist(directory)


def _run_demo(images: Images, **settings: Any) -> DemoResult:
    with _demo_extra():
        from secateur.experiments import demo as experiment
    tasks: dict[str, TaskID] = {}
    with _progress() as progress:

        def on_step(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done)

        return experiment.run(images, on_step=on_step, **settings)


def _show_demo(result: DemoResult, picture: Path) -> None:
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


@contextmanager
def _demo_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("matplotlib", "sklearn"):
            raise
        raise SecateurError(f"the demo needs {error.name}: pip install 'secateur[demo]'") from error


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


@app.command()
def inspect(
    factory: Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="What makes the model.")],
    input_shape: Annotated[
        list[str] | None,
        typer.Option(metavar="SHAPE", help='Shape of an input, "1,784", or "1,16:int" for token ids; once per input.'),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Takes the model and exercises it; in place of inputs."),
    ] = None,
    component: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MODULE,...", help="A component and its modules; may be repeated.")
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A module or parameter whose outputs stay; may be repeated."),
    ] = None,
    json_path: _Json = None,
) -> None:
    """Print a model's components, channel groups, and what can't be pruned.

    MODULE:FACTORY names a function without arguments, or a class, in a module
    that Python can import from here. It returns the model; or the model and
    its example inputs (a tensor, tuple or mapping); or the model and a
    function that takes it and exercises it.

    Examples:
      secateur inspect my_package.models:make_autoencoder --input-shape 1,784
      secateur inspect agent:make --run agent:rollout --component latent=encoder,dynamics
      secateur inspect my_package.models:model_and_inputs --json graph.json
    """
    model, inputs, entry = _model_and_inputs(factory, input_shape or [], run)
    parts = dict(_component(text) for text in component) if component else None
    graph = secateur.trace(model, inputs, run=entry, components=parts, protect=protect or ())
    print(describe(graph))
    _write_json(json_path, as_data(graph))


def _model_and_inputs(factory: str, shapes: Sequence[str], run: str | None) -> tuple[nn.Module, Any, Any]:
    """The model, its example inputs and its entry point; one of the last two is None."""
    made = _made(factory)
    model, exercise = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise TraceError(f"{factory} must return a torch.nn.Module, or one and its inputs; it made a {_type(model)}")
    given = [what for what in (exercise, shapes or None, run) if what is not None]
    if len(given) != 1:
        raise TraceError(
            f"{len(given)} ways to exercise the model are given and one is needed: "
            f"--input-shape, --run, or inputs that {factory} returns with the model"
        )
    if run is not None:
        return model, None, _named(run)
    if shapes:
        return model, tuple(_input(shape) for shape in shapes), None
    return (model, None, exercise) if callable(exercise) else (model, exercise, None)


def _made(name: str) -> Any:
    factory = _named(name)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise TraceError(f"{name} is a {_type(factory)}, neither a model nor a function that makes one")
    with _users_code(f"{name} failed"):
        return factory()


def _named(name: str) -> Any:
    """The object that ``package.module:name`` stands for."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise TraceError(f"{name!r} is not of the form package.module:name")
    if "" not in sys.path:
        sys.path.insert(0, "")  # the installed script starts without the current folder, `python -m` with it
    with _users_code(f"{module} can't be imported"):
        imported = importlib.import_module(module)
    try:
        return attrgetter(attribute)(imported)
    except AttributeError as error:
        raise TraceError(f"{module} has no {attribute}") from error


@contextmanager
def _users_code(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the user's own code raises is the user's to read, in one line
        raise TraceError(f"{what}: {_type(error)}: {error}") from error


def _input(text: str) -> torch.Tensor:
    shape, _, kind = text.partition(":")
    try:
        lengths = [int(length) for length in shape.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--input-shape {text!r} is not a list of lengths such as 1,784") from error
    if kind not in ("", "int") or min(lengths) < 1:
        raise typer.BadParameter(f"--input-shape {text!r}: lengths are at least 1, and only :int may follow them")
    return torch.zeros(lengths, dtype=torch.int64) if kind else torch.randn(lengths)


def _component(text: str) -> tuple[str, list[str]]:
    name, _, modules = text.partition("=")
    if not name or not modules:
        raise typer.BadParameter(f"--component {text!r} is not of the form name=module,module")
    return name, modules.split(",")


def _type(value: object) -> str:
    return type(value).__name__


def _write_json(path: Path | None, data: object) -> None:
    if path is not None:
        write_whole(path, (json.dumps(data, indent=2) + "\n").encode())

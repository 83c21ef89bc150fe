"""``secateur prune``: make a user's model smaller, and save it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from secateur.allocation import Search
from secateur.api import PruningResult
from secateur.cli.choices import CriterionName, StrategyName
from secateur.cli.job import Job
from secateur.cli.options import Factory, InputShape, Json, Run, check_writable, write_json
from secateur.cli.progress import search_bar
from secateur.cli.results import as_data, show
from secateur.errors import StorageError
from secateur.io.layout import PLAN, foreign_files
from secateur.recovery.refit import STEPS


class Cost(str, Enum):
    """What a target is of."""

    PARAMS = "params"
    MACS = "macs"
    LATENCY = "latency"


_WHAT, _HOW, _WHERE = "What to remove", "How to find it", "Where it goes"


def prune(
    factory: Factory,
    input_shape: InputShape = None,
    run: Run = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTION", help="To remove, in (0, 1); 0.5 if not given. Or: smallest.", rich_help_panel=_WHAT
        ),
    ] = None,
    of: Annotated[
        Cost, typer.Option(help="Parameters, multiply-adds or measured time.", rich_help_panel=_WHAT)
    ] = Cost.PARAMS,
    tolerance: Annotated[
        float | None,
        typer.Option(help="How far from the target the result may be; 0.01 if not given.", rich_help_panel=_WHAT),
    ] = None,
    component: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODULE,...|FRACTION",
            help="A component and its modules; or, with a decimal point, its own target. May be repeated.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    interface: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP=FRACTION", help="Of a channel group's channels to remove.", rich_help_panel=_WHAT),
    ] = None,
    cap: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FRACTION", help="The most a component or group may lose.", rich_help_panel=_WHAT),
    ] = None,
    whole: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A component or channel group that stays whole.", rich_help_panel=_WHAT),
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A module or parameter whose outputs stay.", rich_help_panel=_WHAT),
    ] = None,
    round_to: Annotated[int, typer.Option(min=1, help="A group keeps a multiple of this.", rich_help_panel=_WHAT)] = 1,
    minimum_width: Annotated[
        int, typer.Option(min=1, help="Channels that every group keeps.", rich_help_panel=_WHAT)
    ] = 1,
    strategy: Annotated[
        StrategyName,
        typer.Option(
            help="How the coefficients are found; gradient-weights trains the weights along, once over --batches.",
            rich_help_panel=_HOW,
        ),
    ] = StrategyName.UNIFORM,
    maximize: Annotated[str | None, typer.Option(metavar="METRIC", help="To keep high.", rich_help_panel=_HOW)] = None,
    minimize: Annotated[str | None, typer.Option(metavar="METRIC", help="To keep low.", rich_help_panel=_HOW)] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'METRIC>=NUMBER'",
            help="A bound, >= or <=, that the result keeps. May be repeated.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Inputs to refit on; channels are ranked by it too.", rich_help_panel=_HOW),
    ] = None,
    criterion: Annotated[
        CriterionName | None,
        typer.Option(
            help="Ranks channels; reconstruction with calibration data, else magnitude.", rich_help_panel=_HOW
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="FUNCTION", help="Takes the model and a batch; for gradients.", rich_help_panel=_HOW),
    ] = None,
    batches: Annotated[
        str | None, typer.Option(metavar="DATA", help="What --loss is given.", rich_help_panel=_HOW)
    ] = None,
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="Candidates to measure, at most.", rich_help_panel=_HOW)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Candidates that black-box proposes at a time; as many as --jobs.", rich_help_panel=_HOW
        ),
    ] = None,
    refit_steps: Annotated[
        int,
        typer.Option(min=0, help="Of a candidate's refit; 0 is faster, and ranks nearly alike.", rich_help_panel=_HOW),
    ] = STEPS,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of whatever is drawn.", rich_help_panel=_HOW)] = 0,
    jobs: Annotated[
        int, typer.Option(min=1, help="Candidates measured at once, in processes.", rich_help_panel=_HOW)
    ] = 1,
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Gets the smaller model.", rich_help_panel=_WHERE)
    ] = Path("pruned"),
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL", help="Keeps what was measured; search.db in --out if not given.", rich_help_panel=_WHERE
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the search in the storage; made of the options.", rich_help_panel=_WHERE),
    ] = None,
    json_path: Json = None,
) -> None:
    """Make a model smaller, prove it, repair it, and save it.

    MODULE:FACTORY names a function without arguments, or a class, in a module
    that Python can import from here. It returns the model; or the model and
    its example inputs (a tensor, tuple or mapping); or the model and a
    function that takes it and exercises it.

    METRIC, FUNCTION and DATA are module:name, or just the name of something
    in the factory's module. A METRIC takes the model and returns a number.
    DATA is an iterable of inputs; or a function that takes the model and
    exercises it; or one without arguments that makes either. Given
    calibration data, the model is refitted, and every candidate too before it
    is measured.

    --component latent=encoder,dynamics names the modules of a component;
    --component encoder=0.5, with a decimal point, gives one a target of its
    own, met inside it (a module whose path is 0.5 is written with a comma:
    --component part=0.5,). --target is then for all that is left.

    Two questions: the best metric at a size (--target 0.7 --maximize METRIC),
    and the smallest model within bounds (--target smallest --constraint).
    A search that was stopped goes on where it was when run again, and
    `secateur search worker` helps with it from another process.

    Examples:
      secateur prune my_package.models:make --input-shape 1,784 --target 0.7
      secateur prune models:make --calibration inputs --maximize psnr --strategy black-box --evaluations 80
      secateur prune models:make --calibration inputs --target smallest --constraint 'psnr>=21' --strategy sensitivity
      secateur prune models:make --target 0.85 --strategy gradient-weights --loss loss --batches training_batches
      secateur prune agent:make --run agent:rollout --component encoder=0.5 --component dynamics=0.8 --whole reward
      secateur prune agent:make --target 0.4 --of latency --minimize loss --constraint 'drift<=0.1' --json result.json
    """
    job = Job(
        factory=factory,
        input_shape=input_shape or [],
        run=run,
        component=component or [],
        protect=protect or [],
        target=target,
        of=of.value,
        tolerance=tolerance,
        interface=interface or [],
        cap=cap or [],
        whole=whole or [],
        round_to=round_to,
        minimum_width=minimum_width,
        maximize=maximize,
        minimize=minimize,
        constraint=constraint or [],
        calibration=calibration,
        strategy=strategy.value,
        evaluations=evaluations,
        batch=batch or jobs,
        refit_steps=refit_steps,
        seed=seed,
        loss=loss,
        batches=batches,
        criterion=None if criterion is None else criterion.value,
    )
    search = Search(jobs=jobs)
    if job.is_measured:
        beside = str(out / "search.db")
        search = replace(search, storage=storage or beside, study=study or _study(job), job=job.as_data())
    with _made(out):
        _check_destinations(out)
        _save(search_for(job, search), job, out, json_path, search)


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """The folder is there inside; one that was made for it goes again if what is inside fails and leaves it empty."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out} can't be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it isn't empty
            for folder in missing:
                folder.rmdir()
        raise


def _check_destinations(out: Path) -> None:
    """Check that what will be written can be, before anything is searched.

    Raises:
        BadParameter: something is in the way.
    """
    model = out / "model"
    if model.exists() and not model.is_dir():
        raise typer.BadParameter(f"--out: {model} is a file, where the folder of the smaller model goes")
    others = foreign_files(model)
    if others:
        raise typer.BadParameter(f"--out: {model} holds other files ({others[0]}, ...); choose another folder")
    for file in (model / PLAN, out / "result.json"):
        check_writable(file)


def search_for(job: Job, search: Search) -> PruningResult:
    """Do the job, and show how far it is."""
    with search_bar() as on_progress:
        return job.prune(replace(search, on_progress=on_progress))


def _study(job: Job) -> str:
    """A name that another job doesn't have."""
    digest = hashlib.sha256(json.dumps(job.as_data(), sort_keys=True).encode()).hexdigest()[:8]
    return f"{job.factory.rpartition(':')[2]}-{digest}"


def _save(result: PruningResult, job: Job, out: Path, json_path: Path | None, search: Search) -> None:
    result.save(out / "model")
    data = {**as_data(result, job), "storage": search.storage, "study": search.study}
    for path in (out / "result.json", json_path):
        write_json(path, data)
    show(result, job)
    print(
        f"\nmodel: {out / 'model'}, which secateur.load({str(out / 'model')!r}, {job.factory.partition(':')[2]}) reads"
    )
    print(f"result: {out / 'result.json'}")
    if search.storage is not None:
        print(f"search: study {search.study} in {search.storage}")

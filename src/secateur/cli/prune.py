"""``secateur prune``: make a user's model smaller, and save it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import typer

from secateur.allocation import Search
from secateur.api import PruningResult
from secateur.cli import prune_options as given
from secateur.cli.choices import StrategyName
from secateur.cli.job import Job
from secateur.cli.options import Blocks, Factory, InputShape, Json, Run, check_writable, write_json
from secateur.cli.progress import search_bar
from secateur.cli.results import as_data, show
from secateur.errors import StorageError
from secateur.io.layout import PLAN, foreign_files
from secateur.recovery.refit import STEPS


def prune(
    factory: Factory,
    input_shape: InputShape = None,
    run: Run = None,
    target: given.Target = None,
    of: given.Of = given.Cost.PARAMS,
    tolerance: given.Tolerance = None,
    component: given.Component = None,
    interface: given.Interface = None,
    cap: given.Cap = None,
    whole: given.Whole = None,
    protect: given.Protect = None,
    granularity: given.Granularity = Blocks.AUTO,
    round_to: given.RoundTo = 1,
    minimum_width: given.MinimumWidth = 1,
    strategy: given.Strategy = StrategyName.UNIFORM,
    maximize: given.Maximize = None,
    minimize: given.Minimize = None,
    constraint: given.Constraint = None,
    calibration: given.Calibration = None,
    criterion: given.Criterion = None,
    loss: given.Loss = None,
    batches: given.Batches = None,
    evaluations: given.Evaluations = None,
    batch: given.Batch = None,
    refit_steps: given.RefitSteps = STEPS,
    seed: given.Seed = 0,
    jobs: given.Jobs = 1,
    out: given.Out = Path("pruned"),
    storage: given.Storage = None,
    study: given.Study = None,
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
        granularity=granularity.value,
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

"""``secateur search``: take part in searches that ``secateur prune`` started, and list them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from secateur.allocation import Search
from secateur.allocation.search import stored_job, stored_searches
from secateur.cli.job import Job
from secateur.cli.options import Json, write_json
from secateur.cli.prune import search_for
from secateur.errors import StorageError
from secateur.graph.describe import plain_table, to_text

if TYPE_CHECKING:
    from secateur.allocation.studies import StudyStatus

app = typer.Typer(help="Take part in searches that `secateur prune` started, and list them.")

Storage: TypeAlias = Annotated[
    str, typer.Option(metavar="PATH|URL", help="An SQLite file, or a database as SQLAlchemy names it.")
]


@app.callback(invoke_without_command=True)
def _search(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def worker(
    storage: Storage,
    study: Annotated[str, typer.Option(metavar="NAME", help="Of the search; `secateur search status` lists them.")],
    jobs: Annotated[int, typer.Option(min=1, help="Candidates measured at once, in processes.")] = 1,
) -> None:
    """Measure candidates for a search until it is complete.

    Reads from the study what `secateur prune` was asked, makes the model by
    the same factory (so start it where that can be imported, with the same
    data in place), and runs the same search. What has been measured is taken
    from the study, what another worker is measuring is waited for, and the
    rest is measured here. Any worker may stop at any time; what it had begun
    is taken over by the others.

    Examples:
      secateur prune models:make --calibration inputs --maximize psnr --strategy black-box --storage s.db --study a
      secateur search worker --storage s.db --study a
      secateur search worker --storage postgresql+psycopg://user@host/searches --study a --jobs 4
    """
    job = Job.from_data(stored_job(storage, study))
    result = search_for(job, Search(storage=storage, study=study, jobs=jobs))
    best = result.allocation.best
    value = "" if best is None or best.objective is None else f", best {best.objective:.5g}"
    print(f"study {study} is complete: {len(result.allocation.history)} candidates{value}")


@app.command()
def status(
    storage: Storage,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="One search; all if not given.")] = None,
    json_path: Json = None,
) -> None:
    """List the searches in a storage: candidates measured, the best, and who is at work.

    Examples:
      secateur search status --storage pruned/search.db
      secateur search status --storage postgresql+psycopg://user@host/searches --study a --json status.json
    """
    found = [each for each in stored_searches(storage) if study in (None, each.name)]
    if study is not None and not found:
        raise StorageError(f"no search is called {study!r} in {storage}; leave --study out to list them")
    write_json(json_path, [asdict(each) for each in found])
    _show(found, storage)


def _show(found: list[StudyStatus], storage: str) -> None:
    if not found:
        print(f"no searches in {storage}")
        return
    numeric = ["measured", "failed", "best"]
    table = plain_table(f"Searches in {storage}", "study", *numeric, "at work", "model", numeric=numeric)
    for each in found:
        best = "" if each.best is None else f"{each.best:.5g}"
        model = "" if each.job is None else str(each.job.get("factory", ""))
        table.add_row(each.name, str(each.measured), str(each.failed), best, ", ".join(each.workers), model)
    print(to_text([table]))

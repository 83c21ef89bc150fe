"""``secateur reproduce tdmpc``: the papers' control experiment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from secateur.cli.options import Json, write_json
from secateur.cli.progress import steps
from secateur.cli.reproduce.output import check_finite, check_fractions, check_methods, write_and_show
from secateur.errors import SecateurError
from secateur.extras import needs

if TYPE_CHECKING:
    from secateur.experiments.tdmpc.checkpoints import Agent
    from secateur.experiments.tdmpc.reproduction.reproduction import Reproduction
    from secateur.experiments.tdmpc.reproduction.settings import Settings

_INTERRUPTED = 130


class Part(str, Enum):
    """Parts of the experiment that can be left out."""

    SENSITIVITY = "sensitivity"
    MASKED = "masked"


def tdmpc(
    task: Annotated[str, typer.Option(metavar="TASK", help="Of the DeepMind Control Suite.")] = "cartpole-swingup",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="A trained agent; the one that comes with Secateur if none."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Keeps results; secateur-reproduce-TASK if not given."),
    ] = None,
    episodes: Annotated[int, typer.Option(min=2, help="By which every agent is judged, on common seeds.")] = 10,
    sparsity: Annotated[
        list[float] | None,
        typer.Option(help="Fraction of the parameters to remove; several if not given. May be repeated."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One method; one setting of each if none. May be repeated.")
    ] = None,
    distill: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Of distillation after the refit; 0 for none.")
    ] = 30.0,
    sensitivity_episodes: Annotated[
        int, typer.Option(min=2, metavar="EPISODES", help="By which the pruning of single parts is judged.")
    ] = 5,
    evaluations: Annotated[int, typer.Option(min=40, help="Candidates that a search may measure.")] = 80,
    finalists: Annotated[int, typer.Option(min=1, help="Of a search, that are compared by their return.")] = 3,
    skip: Annotated[list[Part] | None, typer.Option(help="Leave a part out. May be repeated.")] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Runs made at once, each in a process of its own. More than there are idle cores make fewer steps of "
            "distillation, which goes by the clock.",
        ),
    ] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Torch's threads, of each process.")] = 1,
    json_path: Json = None,
) -> None:
    """Prune a TD-MPC agent in every way, and judge it by its return.

    Prunes a trained agent (arXiv 2203.04955) to every sparsity by PyTorch's
    ln_structured, by Torch-Pruning and by Secateur's strategies, without
    refit, with refit, and with refit and distillation. Reports the return
    with its interval, the worst episode and the failures; the policy alone;
    single components and the latent state pruned alone; groups; the cost of
    the analysis and of planning; and how far latent states drift. Searches
    compare candidates by the error of what they predict and plan, and the
    last few by their return; one of them (by-return) all by their return.
    These are other episodes than those that are reported.

    Writes results.md, results.json and figures, and shows the main tables.
    What was run is kept in --out and not run again, so that a run that was
    stopped (Ctrl-C) goes on where it was; other settings are kept apart.

    Ten episodes of a dense agent take a minute or two of one core, so all of
    it takes hours; name --method, --sparsity and --skip for less, or use more
    cores with --jobs.

    Examples:
      secateur reproduce tdmpc --jobs 8
      secateur reproduce tdmpc --method uniform --sparsity 0.92 --skip sensitivity --skip masked
      secateur reproduce tdmpc --task walker-walk --sparsity 0.5 --sparsity 0.75 --distill 120
      secateur reproduce tdmpc --task walker-walk --checkpoint secateur-tdmpc-walker-walk
    """
    check_fractions("--sparsity", sparsity)
    check_finite("--distill", distill, "seconds")
    torch.set_num_threads(threads)
    settings = _settings(
        _known(task),
        method,
        sparsity,
        skip or (),
        episodes=episodes,
        distill=distill,
        sensitivity_episodes=sensitivity_episodes,
        evaluations=evaluations,
        finalists=finalists,
    )
    agent = _agent(task, checkpoint)
    folder = out or Path(f"secateur-reproduce-{task}")
    found = _run(agent, settings, folder, jobs)
    write_json(json_path, found.as_data())
    _write_and_show(found, folder)


def _known(task: str) -> str:
    from secateur.experiments.tdmpc.environments import find_task

    return find_task(task).name


def _agent(task: str, checkpoint: Path | None) -> Agent:
    from secateur.experiments.tdmpc.checkpoints import load_agent, pretrained

    return pretrained(task) if checkpoint is None else load_agent(checkpoint, task)


def _settings(
    task: str, methods: list[str] | None, sparsities: list[float] | None, skip: Sequence[Part], **others: Any
) -> Settings:
    with _extras():
        from secateur.experiments.tdmpc.reproduction.methods import METHODS, USUAL
    from secateur.experiments.tdmpc.reproduction.settings import LEVELS, MASKED, OTHER_SPARSITIES, SPARSITIES, Settings

    chosen = check_methods(METHODS, methods, USUAL)
    for name in chosen:
        if methods is not None and METHODS[name].missing:
            raise SecateurError(f"--method {name} needs {METHODS[name].missing}: pip install 'secateur[peers]'")
    return Settings(
        methods=chosen,
        sparsities=tuple(sorted(set(sparsities or SPARSITIES.get(task, OTHER_SPARSITIES)))),
        levels=() if Part.SENSITIVITY in skip else LEVELS,
        masked=() if Part.MASKED in skip else MASKED,
        **others,
    )


def _extras() -> AbstractContextManager[None]:
    return needs("matplotlib", "optuna", "cmaes", "sqlalchemy", "cooper", extra="control,demo,search")


def _run(agent: Agent, settings: Settings, folder: Path, jobs: int) -> Reproduction:
    with _extras():
        from secateur.experiments.tdmpc.reproduction.reproduction import reproduce

        try:
            with steps() as on_step:
                return reproduce(agent, settings, folder, on_step=on_step, jobs=jobs)
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on after the last finished run ({folder})", file=sys.stderr)
            raise typer.Exit(_INTERRUPTED) from None


def _write_and_show(found: Reproduction, folder: Path) -> None:
    with _extras():
        from secateur.experiments.tdmpc.reproduction.pictures import all_pictures
    from secateur.experiments.tdmpc.reproduction.tables import all_tables, main_tables

    write_and_show(found, folder, tables=all_tables(found), shown=main_tables(found), pictures=all_pictures(found))

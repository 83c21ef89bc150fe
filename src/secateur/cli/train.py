"""``secateur train``: agents to prune."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from secateur.cli.options import Json, write_json
from secateur.cli.progress import bars

if TYPE_CHECKING:
    from secateur.experiments.tdmpc.checkpoints import Agent
    from secateur.experiments.tdmpc.config import TdMpcConfig
    from secateur.experiments.tdmpc.training import OnProgress, TrainingProgress

app = typer.Typer(help="Train agents to prune.")

_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@app.callback(invoke_without_command=True)
def _train_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


class Preset(str, Enum):
    """Sizes and schedules of the training."""

    CPU = "cpu"
    QUICK = "quick"
    PAPER = "paper"


@app.command()
def tdmpc(
    task: Annotated[str, typer.Option(metavar="TASK", help="Of the DeepMind Control Suite, such as walker-walk.")] = (
        "cartpole-swingup"
    ),
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="For the agent and the state; secateur-tdmpc-TASK if not given."
        ),
    ] = None,
    preset: Annotated[
        Preset, typer.Option(help="Sizes, schedules and steps; paper's take a day or two on a CPU.")
    ] = Preset.CPU,
    steps: Annotated[int | None, typer.Option(min=1, help="Agent steps; the preset's if not given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, starts and noise.")] = 0,
    episodes: Annotated[int, typer.Option(min=2, help="By which the finished agent is measured.")] = 10,
    evaluate_every: Annotated[int, typer.Option(min=1, metavar="EPISODES", help="The best agent is kept.")] = 5,
    restart: Annotated[bool, typer.Option("--restart", help="Begin again, even if DIR holds a training.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Torch's threads.")] = 1,
    json_path: Json = None,
) -> None:
    """Train a TD-MPC agent from nothing (arXiv 2203.04955).

    An episode with the planner, as many updates as it had steps, and again.
    DIR gets TASK.safetensors and TASK.json, the best agent by evaluation
    episodes; DIR/latest the one that was evaluated last. The same command
    goes on after a stop (Ctrl-C, too), as if it had never stopped; and a
    finished training goes on if it is given more --steps.

    On one thread --preset cpu takes about a tenth of a second per step of the
    agent, --preset quick half of that. cartpole-swingup needs 5,000 to 10,000
    steps, walker-walk 20,000. A step of the agent is several of the
    simulation, as usual for the task: 4 and 2 for these two.

    Examples:
      secateur train tdmpc --preset quick
      secateur train tdmpc --task walker-walk --out walker
      secateur train tdmpc --task walker-walk --out walker --steps 60000
      secateur reproduce tdmpc --task walker-walk --checkpoint walker
    """
    torch.set_num_threads(threads)
    config = _config(preset, task, steps, seed)
    folder = out or Path(f"secateur-tdmpc-{task}")
    agent = _train(config, folder, evaluate_every, restart=restart)
    agent = _measured(agent, folder, episodes, _command(agent, preset, evaluate_every, threads))
    write_json(json_path, {**agent.notes, "config": agent.config.as_data(), "parameters": agent.parameters})
    _show(agent, folder)


def _config(preset: Preset, task: str, steps: int | None, seed: int) -> TdMpcConfig:
    from secateur.experiments.tdmpc.config import TdMpcConfig

    make = {Preset.CPU: TdMpcConfig.cpu, Preset.QUICK: TdMpcConfig.quick, Preset.PAPER: TdMpcConfig.paper}[preset]
    return make(task, seed=seed) if steps is None else make(task, seed=seed, steps=steps)


def _command(agent: Agent, preset: Preset, evaluate_every: int, threads: int) -> str:
    """What makes just this agent from nothing; it may be an earlier one than the last."""
    options = {
        "task": agent.config.task,
        "preset": preset.value,
        "steps": agent.notes["training"]["steps"],
        "seed": agent.config.seed,
        "evaluate-every": evaluate_every,
        "threads": threads,  # other sums are rounded differently, and a training goes another way
    }
    return " ".join(["secateur train tdmpc", *(f"--{name} {value}" for name, value in options.items())])


def _train(config: TdMpcConfig, folder: Path, evaluate_every: int, *, restart: bool) -> Agent:
    from secateur.experiments.tdmpc.training import train

    try:
        with _bar() as on_progress:
            return train(config, folder, on_progress=on_progress, resume=not restart, evaluate_every=evaluate_every)
    except KeyboardInterrupt:
        command = "the same command, without --restart," if restart else "the same command"
        print(f"stopped; {command} goes on after the last whole episode ({folder})", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None


@contextmanager
def _bar() -> Iterator[OnProgress]:
    """A bar of agent steps, with the last return and the time left, and a line for every evaluation."""
    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[state]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Steps come in bursts, an episode at a time: the time left is worked out from long averages.
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task("begin", total=1, state="")
        shown: int | None = None  # episodes that evaluations were told of; what an earlier run did isn't told again

        def on_progress(progress: TrainingProgress) -> None:
            nonlocal shown
            done = progress.journal.episodes
            for episode in done[len(done) if shown is None else shown :]:
                if episode.evaluation is not None:
                    bar.console.print(
                        f"{episode.steps:,} agent steps: return {episode.evaluation:.1f}", highlight=False
                    )
            shown = len(done)
            state = f"return {done[-1].episode_return:.0f}" if done else ""
            bar.update(task, description=progress.phase, completed=progress.steps, total=progress.total, state=state)

        yield on_progress


def _measured(agent: Agent, folder: Path, episodes: int, command: str) -> Agent:
    """The agent with its return and how it was made in its notes, written; one that has both isn't measured again."""
    from secateur.experiments.tdmpc.checkpoints import save_agent
    from secateur.experiments.tdmpc.training import measured

    is_measured = len(agent.notes.get("return", {}).get("episodes", ())) == episodes
    if is_measured and agent.notes.get("command") == command:
        return agent
    with bars() as progress:
        task = progress.add_task(f"measure, {episodes} episodes", total=None)
        done = measured(agent, episodes, on_step=lambda step, total: progress.update(task, completed=step, total=total))
    done = replace(done, notes={**done.notes, "command": command})
    save_agent(done, folder)
    return done


def _show(agent: Agent, folder: Path) -> None:
    found, training = agent.notes["return"], agent.notes["training"]
    low, high = found["interval"]
    print(f"{agent.config.task}: {agent.parameters:,} parameters, {training['steps']:,} agent steps")
    print(
        f"return {found['mean']:.1f} over {len(found['seeds'])} episodes "
        f"(95 % interval {low:.1f} to {high:.1f}, worst {found['worst']:.1f})"
    )
    print(f"agent: {folder / agent.config.task}.safetensors and .json")

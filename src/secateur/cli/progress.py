"""Progress on stderr, so that stdout holds the result alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from secateur.allocation import Evaluation
from secateur.allocation import Progress as SearchProgress


def bars() -> Progress:
    """Bars with what is done out of how much, and the time."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


@contextmanager
def steps() -> Iterator[Callable[[str, int, int], None]]:
    """Bars for named steps: a function to be told the name of a step, how much of it is done, and out of how much."""
    tasks: dict[str, TaskID] = {}
    with bars() as progress:

        def on_step(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield on_step


@contextmanager
def search_bar() -> Iterator[Callable[[SearchProgress], None]]:
    """A bar for a search: candidates measured, the best so far and the time left; shown from the first candidate on."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
    progress = Progress(*columns, console=Console(stderr=True))
    with ExitStack() as shown:
        tasks: list[TaskID] = []

        def on_progress(search: SearchProgress) -> None:
            if not tasks:
                shown.enter_context(progress)
                tasks.append(progress.add_task("candidates", total=search.total, state=""))
            progress.update(tasks[0], completed=search.done, total=search.total, state=_state(search))

        yield on_progress


def _state(search: SearchProgress) -> str:
    none = f"{search.done} measured, none meets the target yet" if search.done else "none measured yet"
    parts = [none if search.best is None else f"best {_value(search.best)}"]
    if search.failed:
        parts.append(f"{search.failed} failed")
    if search.seconds_left is not None:
        parts.append(f"{_duration(search.seconds_left)} left")
    return ", ".join(parts)


def _value(best: Evaluation) -> str:
    """What there is to say of the best candidate: its objective, or its constraints, and its size."""
    values = [] if best.objective is None else [f"{best.objective:.5g}"]
    values += [f"{name} = {value:.5g}" for name, value in best.constraints.items()]
    return f"{' '.join(values)} at {best.sparsity:.1%}{'' if best.satisfied else ', misses a constraint'}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"

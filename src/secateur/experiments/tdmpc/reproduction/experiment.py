"""The runs of a reproduction: how each is made once, here or in processes beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from secateur.allocation import Progress
from secateur.errors import ControlError
from secateur.experiments.run_cache import OnStep, RunCache
from secateur.experiments.tdmpc.checkpoints import Agent
from secateur.experiments.tdmpc.environments import Maker
from secateur.experiments.tdmpc.reproduction.keys import Keys
from secateur.experiments.tdmpc.reproduction.recordings import Setting, ignore_step
from secateur.experiments.tdmpc.reproduction.records import Record
from secateur.experiments.tdmpc.reproduction.run_list import Run
from secateur.experiments.tdmpc.reproduction.runs import run_masked, run_method, run_part
from secateur.experiments.tdmpc.reproduction.settings import Settings
from secateur.experiments.tdmpc.reproduction.subject import Subject
from secateur.experiments.unreachable import Unreachable, attempted, or_unreachable


class Experiment:
    """Runs whose results are kept on disk.

    Args:
        subject: the dense agent.
        settings: what was asked.
        folder: keeps the results.
        on_step: told of a search's progress.

    Attributes:
        keys: by which results are found.
    """

    def __init__(self, subject: Subject, settings: Settings, folder: Path, on_step: OnStep) -> None:
        self.subject, self._settings, self._on_step = subject, settings, on_step
        self._cache = RunCache(folder, or_unreachable(Record.from_data))
        self.keys = Keys.of(subject, settings)

    def outcome(self, run: Run) -> Record | Unreachable:
        """The result of a run, read if it is there; or why its method doesn't reach the sparsity.

        Raises:
            SecateurError: it fails for another reason, or its file can't be read or written.
        """

        def make() -> Record | Unreachable:
            return attempted(lambda: self._make(run), method=run.name, target=run.value, refit=run.refit)

        return self._cache.get(run.file, self.keys.of_run(run), make)

    def _make(self, run: Run) -> Record:
        subject, settings = self.subject, self._settings
        if run.kind == "masked":
            return run_masked(subject, run.value)
        if run.kind == "part":
            return run_part(subject, run.name, run.value, settings, refit=run.refit)

        def on_progress(progress: Progress) -> None:
            self._on_step("search", progress.done, progress.total)

        return run_method(subject, run.name, run.value, settings, refit=run.refit, on_progress=on_progress)


@dataclass(frozen=True, kw_only=True, eq=False)
class Workplace:
    """What a process needs to make runs.

    Attributes:
        agent: the dense agent.
        settings: what was asked.
        out: keeps recordings and results; the recordings are there already.
        make: makes the environments; picklable.
        threads: torch's, of every process.
    """

    agent: Agent
    settings: Settings
    out: Path
    make: Maker
    threads: int

    def experiment(self, on_step: OnStep = ignore_step) -> Experiment:
        """The runs, of a subject that is read from disk; episodes are run where there are none.

        Raises:
            SecateurError: an episode fails, or a file can't be read or written.
        """
        setting = Setting(make=self.make, on_step=on_step)
        subject = Subject.of(self.agent, self.settings.seeds, self.out / "recordings", setting)
        return Experiment(subject, self.settings, self.out / "runs", on_step)


def make_beside(place: Workplace, runs: Sequence[Run], jobs: int, on_step: OnStep) -> None:
    """Make runs in several processes; their results are on disk then.

    Args:
        place: what every process needs.
        runs: what to make.
        jobs: how many at once.
        on_step: told of the runs that are done.

    Raises:
        SecateurError: a run fails. Those that are under way are finished, and the others not begun.
        ControlError: a process has died.
    """
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=(place,)) as pool:
        pending = [pool.submit(_make, run) for run in runs]
        try:
            for done, future in enumerate(as_completed(pending), start=1):
                future.result()
                on_step("runs", done, len(runs))
        except BrokenProcessPool as error:
            raise ControlError(
                "a process that makes runs has died, perhaps for lack of memory; what it was making is lost, the rest "
                "is kept: run the same command again with fewer --jobs"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_experiment: Experiment | None = None
"""Of a process that makes runs for another one."""


def _begin(place: Workplace) -> None:
    global _experiment
    torch.set_num_threads(place.threads)
    _experiment = place.experiment()


def _make(run: Run) -> None:
    assert _experiment is not None
    _experiment.outcome(run)

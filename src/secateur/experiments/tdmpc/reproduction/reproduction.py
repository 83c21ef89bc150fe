"""The whole experiment: run the dense agent, prune it in every way asked for, and gather what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import secateur
from secateur.allocation import Progress
from secateur.experiments.run_cache import OnStep, RunCache
from secateur.experiments.tdmpc.checkpoints import Agent
from secateur.experiments.tdmpc.environments import Maker, make
from secateur.experiments.tdmpc.reproduction.analysis import AnalysisRecord, analysis_cost
from secateur.experiments.tdmpc.reproduction.grouping import Grouping, groupings
from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.planning import PlanningRecord, planning_costs
from secateur.experiments.tdmpc.reproduction.recordings import Setting, digest, ignore_step
from secateur.experiments.tdmpc.reproduction.records import Arm, Measured, Record
from secateur.experiments.tdmpc.reproduction.runs import PARTS, run_masked, run_method, run_part
from secateur.experiments.tdmpc.reproduction.score import Score
from secateur.experiments.tdmpc.reproduction.settings import FAILED, Settings
from secateur.experiments.tdmpc.reproduction.subject import Subject

TIMED = ("uniform", "sensitivity", "gradient", "tpe", "norm")
"""The methods whose models' planning is timed, two of those that were asked for at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reproduction:
    """What was found.

    Attributes:
        task: its name.
        parameters: of the dense model.
        latent: the latent state's channels in the dense model.
        horizon: of the planner, in steps.
        settings: what was asked.
        missing: methods left out because a package isn't installed, to its name.
        dense: the dense agent; its drift is that from the states that it encodes on the way.
        records: one for every method, sparsity and arm; the arm after distillation is part of that with refit.
        parts: one for every single part, level and arm, without distillation; judged by fewer episodes.
        masked: PyTorch's masks of a fraction of all hidden rows.
        groupings: ways to group the parameters.
        analysis: what the analysis costs.
        planning: what planning costs.
    """

    task: str
    parameters: int
    latent: int
    horizon: int
    settings: Settings
    missing: Mapping[str, str]
    dense: Measured
    records: tuple[Record, ...]
    parts: tuple[Record, ...]
    masked: tuple[Record, ...]
    groupings: tuple[Grouping, ...]
    analysis: AnalysisRecord
    planning: PlanningRecord

    @property
    def title(self) -> str:
        """What tables are of."""
        return f"TD-MPC on {self.task}: {self.settings.episodes} episodes on common seeds, no fine-tuning"

    @property
    def threshold(self) -> float:
        """Episodes that return less have failed."""
        return FAILED * sum(self.dense.returns) / len(self.dense.returns)

    def score(self, returns: Sequence[float]) -> Score:
        """Returns in few numbers."""
        return Score.of(returns, self.threshold)

    def of(self, method: str, target: float, arm: Arm) -> tuple[Record, Measured] | None:
        """One method's run at one sparsity, and what was measured in an arm."""
        for record in self.records:
            measured = record.in_arm(arm)
            if (record.method, record.target) == (method, target) and measured is not None:
                return record, measured
        return None

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        data = {name: value for name, value in asdict(self).items() if name != "settings"}
        return {**data, "settings": asdict(self.settings), "failed_below": self.threshold}


def reproduce(
    agent: Agent, settings: Settings, out: Path, *, on_step: OnStep = ignore_step, make: Maker = make
) -> Reproduction:
    """Run all that is asked and isn't in ``out`` yet.

    Args:
        agent: the dense agent.
        settings: what to run.
        out: keeps the results of single runs.
        on_step: told of the progress: of the whole, of a search, and of episodes.
        make: makes the environments.

    Raises:
        SecateurError: an episode or a pruning fails, or a file in ``out`` can't be read or written.
    """
    subject = Subject.of(agent, settings.seeds, out / "recordings", Setting(make=make, on_step=on_step))
    experiment = _Experiment(subject, settings, out / "runs", on_step)
    records = tuple(experiment.all_methods())
    return Reproduction(
        task=agent.config.task,
        parameters=agent.parameters,
        latent=subject.latent.size,
        horizon=agent.config.horizon,
        settings=settings,
        missing=_missing(settings),
        dense=subject.dense,
        records=records,
        parts=tuple(experiment.all_parts()),
        masked=tuple(experiment.all_masked()),
        groupings=tuple(groupings(subject)),
        analysis=experiment.analysis(),
        planning=experiment.planning(records),
    )


def _missing(settings: Settings) -> dict[str, str]:
    return {name: METHODS[name].missing for name in settings.methods if METHODS[name].missing}


class _Experiment:
    """Runs that are cached on disk, and their progress."""

    def __init__(self, subject: Subject, settings: Settings, folder: Path, on_step: OnStep) -> None:
        self._subject, self._settings, self._on_step = subject, settings, on_step
        self._folder = folder
        self._cache = RunCache(folder, Record.from_data)
        self._methods = [name for name in settings.methods if not METHODS[name].missing]
        self._done = 0
        self._total = 2 * len(self._methods) * len(settings.sparsities)
        self._total += 2 * len(PARTS) * len(settings.levels) + len(settings.masked)

    def all_methods(self) -> Iterator[Record]:
        settings = self._settings
        for refit in (False, True):
            for target in settings.sparsities:
                for name in self._methods:
                    yield self._counted(self._method(name, target, refit))

    def all_parts(self) -> Iterator[Record]:
        for refit in (False, True):
            for part in PARTS:
                for level in self._settings.levels:
                    yield self._counted(self._part(part, level, refit))

    def all_masked(self) -> Iterator[Record]:
        for fraction in self._settings.masked:
            key = {"masked": fraction}
            made = self._cache.get(
                f"masked-{fraction:g}",
                self._key(key),
                lambda f=fraction: run_masked(self._subject, f),  # type: ignore[misc]
            )
            yield self._counted(made)

    def analysis(self) -> AnalysisRecord:
        cache = RunCache(self._folder, AnalysisRecord.from_data)
        return cache.get("analysis", self._key({"analysis": True}), lambda: analysis_cost(self._subject))

    def planning(self, records: Sequence[Record]) -> PlanningRecord:
        timed, repeats = self._timed(records), self._settings.repeats
        cache = RunCache(self._folder, PlanningRecord.from_data)
        models = [[r.method, r.target, dict(r.kept)] for r in timed]
        key = self._key({"planning": models, "repeats": repeats})
        return cache.get("planning", key, lambda: planning_costs(self._subject, timed, repeats))

    def _timed(self, records: Sequence[Record]) -> list[Record]:
        chosen = [name for name in TIMED if name in self._methods][:2]
        return [r for name in chosen for r in records if r.refit and r.method == name]

    def _method(self, name: str, target: float, refit: bool) -> Record:
        method, settings = METHODS[name], self._settings
        key = {
            "method": name,
            "target": target,
            "refit": refit,
            "evaluations": settings.evaluations,
            "finalists": settings.finalists,
            "distill": settings.distill if refit and method.is_distilled else 0,
        }

        def on_progress(progress: Progress) -> None:
            self._on_step("search", progress.done, progress.total)

        def make() -> Record:
            return run_method(self._subject, name, target, settings, refit=refit, on_progress=on_progress)

        return self._cache.get(f"{name}-{target:g}-{_arm(refit)}", self._key(key), make)

    def _part(self, part: str, level: float, refit: bool) -> Record:
        settings = self._settings
        key = {"part": part, "level": level, "refit": refit, "episodes": settings.sensitivity_episodes}

        def make() -> Record:
            return run_part(self._subject, part, level, settings, refit=refit)

        return self._cache.get(f"only-{part}-{level:g}-{_arm(refit)}", self._key(key), make)

    def _key(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """All that a run's result depends on."""
        return {
            "episodes": self._settings.episodes,
            **asked,
            "agent": digest(self._subject.agent),
            "secateur": secateur.__version__,
        }

    def _counted(self, record: Record) -> Record:
        self._done += 1
        self._on_step("runs", self._done, self._total)
        return record


def _arm(refit: bool) -> str:
    return "refit" if refit else "plain"

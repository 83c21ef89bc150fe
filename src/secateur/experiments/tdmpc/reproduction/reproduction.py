"""The whole experiment: run the dense agent, prune it in every way asked for, and gather what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.experiments.run_cache import OnStep, RunCache
from secateur.experiments.tdmpc.checkpoints import Agent
from secateur.experiments.tdmpc.environments import Maker, make
from secateur.experiments.tdmpc.reproduction.analysis import AnalysisRecord, analysis_cost
from secateur.experiments.tdmpc.reproduction.experiment import Experiment, Workplace, make_beside
from secateur.experiments.tdmpc.reproduction.grouping import Grouping, groupings
from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.planning import PlanningRecord, planning_costs
from secateur.experiments.tdmpc.reproduction.recordings import ignore_step
from secateur.experiments.tdmpc.reproduction.records import Arm, Measured, Record
from secateur.experiments.tdmpc.reproduction.run_list import Run, runs_of
from secateur.experiments.tdmpc.reproduction.score import Score
from secateur.experiments.tdmpc.reproduction.settings import FAILED, Settings
from secateur.experiments.unreachable import Unreachable

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
        records: one for every method, sparsity and arm that was reached; the arm after distillation is part of that
            with refit.
        unreachable: one for every method, sparsity and arm that wasn't.
        unseen_episodes: whether errors of predictions are measured on episodes that pruning doesn't see, or on other
            states of the same ones.
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
    unreachable: tuple[Unreachable, ...]
    unseen_episodes: bool
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

    def missed(self, method: str, target: float, arm: Arm) -> Unreachable | None:
        """Why one method doesn't reach one sparsity in an arm; None if it does, or has no such arm."""
        for each in self.unreachable:
            same = (each.method, each.target, each.refit) == (method, target, arm.refit)
            if same and (METHODS[method].is_distilled or not arm.distilled):
                return each
        return None

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        data = {name: value for name, value in asdict(self).items() if name != "settings"}
        return {**data, "settings": asdict(self.settings), "failed_below": self.threshold}


def reproduce(
    agent: Agent, settings: Settings, out: Path, *, on_step: OnStep = ignore_step, make: Maker = make, jobs: int = 1
) -> Reproduction:
    """Run all that is asked and isn't in ``out`` yet.

    Args:
        agent: the dense agent.
        settings: what to run.
        out: keeps the results of single runs.
        on_step: told of the progress: of the whole, of a search, and of episodes.
        make: makes the environments; picklable if there are several jobs.
        jobs: runs that are made at once, each in a process of its own. The time that their searches take is measured
            all the same; the costs of analysis and planning are measured alone.

    Raises:
        SecateurError: an episode or a pruning fails, or a file in ``out`` can't be read or written.
    """
    place = Workplace(agent=agent, settings=settings, out=out, make=make, threads=torch.get_num_threads())
    experiment, runs = place.experiment(on_step), list(runs_of(settings))
    if jobs > 1:
        make_beside(place, runs, jobs, on_step)
    outcomes = _outcomes(experiment, runs, on_step)
    subject, costs = experiment.subject, _Costs(experiment, settings, out / "runs")
    methods = _reached(outcomes, "method")
    return Reproduction(
        task=agent.config.task,
        parameters=agent.parameters,
        latent=subject.latent.size,
        horizon=agent.config.horizon,
        settings=settings,
        missing={name: METHODS[name].missing for name in settings.methods if METHODS[name].missing},
        dense=subject.dense,
        records=methods,
        unreachable=tuple(each for each in outcomes.values() if isinstance(each, Unreachable)),
        unseen_episodes=subject.visits.seeds is not None,
        parts=_reached(outcomes, "part"),
        masked=_reached(outcomes, "masked"),
        groupings=tuple(groupings(subject)),
        analysis=costs.analysis(),
        planning=costs.planning(methods),
    )


def _outcomes(experiment: Experiment, runs: Sequence[Run], on_step: OnStep) -> dict[Run, Record | Unreachable]:
    outcomes = {}
    for done, run in enumerate(runs, start=1):
        outcomes[run] = experiment.outcome(run)
        on_step("runs", done, len(runs))
    return outcomes


def _reached(outcomes: Mapping[Run, Record | Unreachable], kind: str) -> tuple[Record, ...]:
    return tuple(each for run, each in outcomes.items() if run.kind == kind and isinstance(each, Record))


@dataclass(frozen=True, eq=False)
class _Costs:
    """What analysis and planning cost, measured once and kept."""

    experiment: Experiment
    settings: Settings
    folder: Path

    def analysis(self) -> AnalysisRecord:
        cache = RunCache(self.folder, AnalysisRecord.from_data)
        key = self.experiment.keys.of_analysis()
        return cache.get("analysis", key, lambda: analysis_cost(self.experiment.subject))

    def planning(self, records: Sequence[Record]) -> PlanningRecord:
        there = {record.method for record in records}
        chosen = [name for name in TIMED if name in there][:2]
        timed = [r for name in chosen for r in records if r.refit and r.method == name]
        repeats = self.settings.repeats
        key = self.experiment.keys.of_planning(timed)
        cache = RunCache(self.folder, PlanningRecord.from_data)
        return cache.get("planning", key, lambda: planning_costs(self.experiment.subject, timed, repeats))

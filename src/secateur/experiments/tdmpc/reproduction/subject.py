"""The dense agent that is pruned, and all that pruning and judging need of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

import secateur
from secateur.experiments.tdmpc.agent_graph import trace_agent
from secateur.experiments.tdmpc.checkpoints import Agent
from secateur.experiments.tdmpc.recording import CALIBRATION_SEEDS
from secateur.experiments.tdmpc.reproduction.open_loop import OpenLoop
from secateur.experiments.tdmpc.reproduction.recordings import Recordings, Setting
from secateur.experiments.tdmpc.reproduction.records import Measured
from secateur.experiments.tdmpc.reproduction.settings import DRIFT_HORIZONS
from secateur.experiments.tdmpc.surrogate import PredictionError
from secateur.experiments.tdmpc.visits import Visits
from secateur.graph import Group
from secateur.importance import Magnitude, Reconstruction, Scores

UNSEEN = 0.1
"""Fraction of the visits that pruning doesn't see; on them the errors that are reported are measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A dense agent.

    Attributes:
        agent: its model is untouched by all that follows.
        setting: where it acts.
        visits: what pruning is based on: calibration, search and distillation.
        graph: what was traced.
        error: the predictions' error on other visits.
        open_loop: stretches of the dense agent's own episodes.
        seeds: of these episodes.
        dense: how the dense agent was measured on them; its drift is that from the states that it encodes on the way.
    """

    agent: Agent
    setting: Setting
    visits: Visits
    graph: secateur.DependencyGraph
    error: PredictionError
    open_loop: OpenLoop
    seeds: tuple[int, ...]
    dense: Measured

    @classmethod
    def of(cls, agent: Agent, seeds: Sequence[int], folder: Path, setting: Setting) -> Subject:
        """Run the dense agent, to record what its planner visits and to judge it; or read that, if it is there.

        Args:
            agent: the dense agent.
            seeds: of the episodes by which agents are judged.
            folder: keeps what was run.
            setting: where agents act.

        Raises:
            ControlError: an episode fails, or is shorter than the stretches that are predicted open loop.
            StorageError: a file can't be read or written.
        """
        found = Recordings.of(agent, seeds, folder, setting)
        visits, unseen = found.visits.split(UNSEEN)
        open_loop = OpenLoop.of(found.episodes, DRIFT_HORIZONS * agent.config.horizon)
        own = open_loop.own_error(agent.model)
        dense = Measured(
            returns=tuple(found.episodes.returns.tolist()),
            policy=found.policy,
            error=0.0,
            drift=own.mean,
            drift_high=own.high,
        )
        return cls(
            agent=agent,
            setting=setting,
            visits=visits,
            graph=trace_agent(agent.model, visits),
            error=PredictionError(agent.model, unseen),
            open_loop=open_loop,
            seeds=tuple(seeds),
            dense=dense,
        )

    @property
    def model(self) -> nn.Module:
        """The dense model."""
        return self.agent.model

    @property
    def latent(self) -> Group:
        """The group of the latent state's channels."""
        (group,) = self.graph.interfaces
        return group

    @property
    def hidden(self) -> tuple[Group, ...]:
        """The groups inside single components."""
        return tuple(group for group in self.graph.groups if not group.is_interface)

    @cached_property
    def scores(self) -> Scores:
        """What the loss of a channel costs after the refit."""
        return Reconstruction(self.visits.run)(self.graph, self.model)

    @cached_property
    def plain_scores(self) -> Scores:
        """The norm of a channel's weights."""
        return Magnitude()(self.graph, self.model)

    def measure(self, model: nn.Module, plan: secateur.PruningPlan, seeds: Sequence[int] | None = None) -> Measured:
        """Judge a pruned agent.

        Args:
            model: pruned, or masked and of the dense model's sizes.
            plan: what is kept.
            seeds: of the episodes; the subject's own if not given.

        Raises:
            ControlError: an episode fails.
        """
        chosen = self.seeds if seeds is None else seeds
        drift = self.open_loop.drift(model, self.model, self._kept(model, plan))
        return Measured(
            returns=tuple(self.setting.run(self.agent, model, chosen).returns.tolist()),
            policy=tuple(self.setting.run(self.agent, model, chosen, "policy").returns.tolist()),
            error=self.error(model),
            drift=drift.mean,
            drift_high=drift.high,
        )

    def revisited(self, model: nn.Module) -> Visits:
        """What a smaller model's planner visits, in episodes that begin as those do which pruning is based on.

        Raises:
            ControlError: an episode fails.
        """
        seeds = self.visits.seeds
        begun = CALIBRATION_SEEDS if seeds is None else tuple(seeds.unique().tolist())
        return self.setting.record(self.agent, model, begun)

    def _kept(self, model: nn.Module, plan: secateur.PruningPlan) -> NDArray[np.int64]:
        """The latent state's channels that a model has."""
        name, size = self.latent.name, self.latent.size
        is_whole = len(model.get_parameter(f"{name}.weight")) == size
        return np.arange(size) if is_whole else np.asarray(plan.groups[name])

"""Training of a TD-MPC agent: an episode with the planner, as many updates as it had steps, and again.

Hansen et al., arXiv 2203.04955, Algorithms 1 and 2. Every random number of an episode, and of the updates after it,
comes from the seed of the training and the number of the episode: so one that was stopped goes on as if it never was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import secateur
from secateur.errors import ControlError
from secateur.experiments.tdmpc.checkpoints import Agent, load_agent, save_agent
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.environments import Maker, make
from secateur.experiments.tdmpc.episodes import EVALUATION_SEEDS, run_episodes
from secateur.experiments.tdmpc.journal import EpisodeRecord, Journal, discard_state, read_state, write_state
from secateur.experiments.tdmpc.learner import Learner, UpdateLosses
from secateur.experiments.tdmpc.replay import Episode, Replay
from secateur.experiments.tdmpc.tensor_names import prefixed, subset

LATEST = "latest"
"""The folder, beside the best agent by evaluation, of the one that was evaluated last."""

_EVALUATION_SEEDS = 20_000
"""The first seed of the episodes that choose the best agent: not those by which agents are compared afterwards."""

_UPDATES_PER_REPORT = 25

_COLLECT, _LEARN = 0, 1


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        phase: what is done now: ``"collect"``, ``"learn"`` or ``"evaluate"``.
        steps: agent steps that were collected, and learnt from once seeding is over.
        total: agent steps in all.
        journal: the episodes so far.
    """

    phase: str
    steps: int
    total: int
    journal: Journal


OnProgress = Callable[[TrainingProgress], object]


def train(
    config: TdMpcConfig,
    out: Path,
    *,
    on_progress: OnProgress = lambda _progress: None,
    resume: bool = True,
    evaluate_every: int = 5,
    evaluations: int = 5,
    make: Maker = make,
) -> Agent:
    """Train an agent, or go on with a training that was stopped.

    After every episode ``out`` holds the whole state of the training; after every evaluation also the best agent by
    its evaluations, and ``out/latest`` the agent that was evaluated last.

    Args:
        config: task, sizes, rates, agent steps and seed.
        out: the folder; made if it isn't there.
        on_progress: told of the progress several times per episode.
        resume: go on with the training in ``out``, if there is one, to ``config.steps``; False to begin again: then
            its state is deleted, and its agents are replaced at the first evaluation.
        evaluate_every: episodes between evaluations.
        evaluations: episodes of an evaluation.
        make: makes the environments, one per episode.

    Returns:
        The best agent by its evaluations; ``steps`` of its config says how many it was trained for. A training of
        just as many steps gives the same agent.

    Raises:
        StorageError: the training in ``out`` is of another config, or a file can't be read or written.
        ControlError: the task is unknown, the training ends before its first update, or it diverged.
    """
    if config.steps < config.seed_steps:
        raise ControlError(
            f"steps is {config.steps}, and seed_steps {config.seed_steps}: nothing would be learnt from the random "
            "actions; ask for more steps"
        )
    seeds = range(_EVALUATION_SEEDS, _EVALUATION_SEEDS + evaluations)
    training = _Training(config, out, on_progress, seeds, make)
    if resume:
        training.take_up()
    else:
        discard_state(out)  # so that it isn't taken up when this training is stopped before it has written its own
    while training.journal.steps < config.steps:
        training.episode(evaluate_every)
    return load_agent(out, config.task)


def measured(
    agent: Agent,
    episodes: int,
    *,
    on_step: Callable[[int, int], object] = lambda _step, _total: None,
    make: Maker = make,
) -> Agent:
    """The agent with its return, on seeds from the first of ``EVALUATION_SEEDS`` on, in its notes under ``"return"``.

    Args:
        agent: what to measure.
        episodes: how many, at least 2.
        on_step: called after every agent step with its number and their total; all episodes run side by side.
        make: makes the environments, one per episode.

    Raises:
        ControlError: an episode gives something that is no finite number.
    """
    first = EVALUATION_SEEDS[0]
    total = make(agent.config.task, first, action_repeat=agent.config.action_repeat).steps
    found = run_episodes(
        agent.model,
        agent.config,
        range(first, first + episodes),
        on_step=lambda step: on_step(step, total),
        make=make,
    )
    values = {
        "mean": found.mean,
        "interval": list(found.interval),
        "worst": found.worst,
        "episodes": found.returns.tolist(),
        "seeds": list(found.seeds),
    }
    return replace(agent, notes={**agent.notes, "return": values})


class _Training:
    """The parts of a training, and one episode of it."""

    def __init__(
        self,
        config: TdMpcConfig,
        out: Path,
        on_progress: OnProgress,
        seeds: Sequence[int],
        make: Maker,
    ) -> None:
        self.config, self.out, self.on_progress = config, out, on_progress
        self.seeds, self.make = seeds, make
        environment = make(config.task, 0, action_repeat=config.action_repeat)
        self.learner = Learner(config, environment.observations, environment.actions)
        self.replay = Replay(
            config,
            observations=environment.observations,
            actions=environment.actions,
            capacity=config.steps + environment.steps,
        )
        self.journal = Journal()

    def take_up(self) -> None:
        """Go on where the training in the folder is, if there is one."""
        found = read_state(self.out, self.config)
        if found is not None:
            self.journal, tensors = found
            self.learner.load_tensors(subset("learner.", tensors))
            self.replay.load_state_dict(subset("replay.", tensors))

    def episode(self, evaluate_every: int) -> None:
        """Collect, learn, evaluate if it is time, and write everything."""
        began = time.perf_counter()
        number = len(self.journal.episodes)
        self._report("collect", self.journal.steps)
        episode = self._collected(number)
        self.replay.add(episode)
        steps = self.journal.steps + len(episode.rewards)
        losses = self._learn(number, steps)
        is_last = steps >= self.config.steps
        is_time = is_last or (losses is not None and (number + 1) % evaluate_every == 0)
        evaluation = self._evaluate(steps) if is_time else None
        record = EpisodeRecord(
            steps=steps,
            episode_return=float(episode.rewards.sum(dtype=np.float64)),
            losses=losses,
            evaluation=evaluation,
            seconds=time.perf_counter() - began,
        )
        self._keep(record)
        self._report("collect", steps)

    def _collected(self, number: int) -> Episode:
        """An episode of random actions while seeding, with the planner and exploration noise after that."""
        steps = self.journal.steps
        collected = run_episodes(
            self.learner.model,
            self.config,
            [_seed(self.config.seed, number, _COLLECT)],
            controller="random" if steps < self.config.seed_steps else "planner",
            horizon=self.config.horizon_at(steps),
            std=self.config.std(steps),
            make=self.make,
        )
        return Episode(
            observations=collected.observations[:, 0],
            actions=collected.actions[:, 0],
            rewards=collected.rewards[:, 0],
        )

    def _learn(self, number: int, steps: int) -> UpdateLosses | None:
        """As many updates as there are steps collected and not learnt from; none while seeding."""
        if steps < self.config.seed_steps:
            return None
        generator = torch.Generator().manual_seed(_seed(self.config.seed, number, _LEARN))
        losses = []
        try:
            while self.learner.updates < steps:
                losses.append(self.learner.update(self.replay, generator))
                if self.learner.updates % _UPDATES_PER_REPORT == 0:
                    self._report("learn", self.learner.updates)
        except ControlError as error:
            where = f"{self.config.task}, seed {self.config.seed}, update {self.learner.updates + 1}"
            raise ControlError(f"{where}: {error}; use a smaller learning_rate or another seed") from error
        return UpdateLosses.mean(losses)

    def _evaluate(self, steps: int) -> float:
        self._report("evaluate", steps)
        return run_episodes(self.learner.model, self.config, self.seeds, make=self.make).mean

    def _keep(self, record: EpisodeRecord) -> None:
        """Write agents, then the state: stopped in between, the episode is repeated and they are written again."""
        self.journal = self.journal.plus(record)
        if record.evaluation is not None:
            agent = self._agent()
            save_agent(agent, self.out / LATEST)
            if self.journal.best is record:
                save_agent(agent, self.out)
        tensors = prefixed("learner.", self.learner.tensors()) | prefixed("replay.", self.replay.state_dict())
        write_state(self.out, self.config, self.journal, tensors)

    def _agent(self) -> Agent:
        """The agent as it is now: its config has the steps that it was trained for, whatever is still to come."""
        evaluated = [each for each in self.journal.episodes if each.evaluation is not None]
        training = {
            "steps": self.journal.steps,
            "updates": self.learner.updates,
            "seconds": round(self.journal.seconds, 1),
            "evaluations": [{"steps": each.steps, "return": each.evaluation} for each in evaluated],
            "secateur": secateur.__version__,
            "torch": torch.__version__,
        }
        config = replace(self.config, steps=self.journal.steps)
        return Agent(model=self.learner.model, config=config, notes={"training": training})

    def _report(self, phase: str, steps: int) -> None:
        self.on_progress(TrainingProgress(phase=phase, steps=steps, total=self.config.steps, journal=self.journal))


def _seed(seed: int, number: int, purpose: int) -> int:
    """For one purpose in one episode of a training; independent of all others."""
    return int(np.random.SeedSequence((seed, number, purpose)).generate_state(1)[0])

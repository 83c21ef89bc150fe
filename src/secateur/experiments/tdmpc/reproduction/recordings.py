"""Episodes of the dense agent, run once and kept on disk: what pruning learns from, and what it is judged against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from secateur.errors import StorageError
from secateur.experiments.run_cache import OnStep
from secateur.experiments.tdmpc.checkpoints import Agent
from secateur.experiments.tdmpc.environments import Maker, make
from secateur.experiments.tdmpc.episodes import Controller, Episodes, run_episodes
from secateur.experiments.tdmpc.planner import WorldModel
from secateur.experiments.tdmpc.recording import CALIBRATION_SEEDS, record_visits
from secateur.experiments.tdmpc.visits import Visits
from secateur.report.files import write_whole


def ignore_step(_name: str, _done: int, _total: int) -> None:
    """For those who don't want to be told of the progress."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """Where agents act, and who is told.

    Attributes:
        make: makes the environments.
        on_step: told of the progress.
    """

    make: Maker = make
    on_step: OnStep = ignore_step

    def run(self, agent: Agent, model: nn.Module, seeds: Sequence[int], controller: Controller = "planner") -> Episodes:
        """Episodes of a model with the agent's planner, or by its policy alone.

        Raises:
            ControlError: an episode fails.
        """
        on_step = self._counted(agent, "episodes") if controller == "planner" else None
        world = cast(WorldModel, model)  # also pruned, it has the methods that a planner needs
        return run_episodes(world, agent.config, seeds, controller=controller, on_step=on_step, make=self.make)

    def record(self, agent: Agent, model: nn.Module | None = None, seeds: Sequence[int] = CALIBRATION_SEEDS) -> Visits:
        """What the agent's planner visits, with its own model or a smaller one.

        Raises:
            ControlError: an episode fails.
        """
        on_step = self._counted(agent, "record visits")
        world = cast(WorldModel, agent.model if model is None else model)
        return record_visits(world, agent.config, seeds=seeds, on_step=on_step, make=self.make)

    def _counted(self, agent: Agent, name: str) -> Callable[[int], object]:
        config = agent.config
        steps = self.make(config.task, 0, action_repeat=config.action_repeat).steps
        return lambda done: self.on_step(name, done, steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recordings:
    """Episodes of the dense agent.

    Attributes:
        visits: of episodes on other seeds than the next.
        episodes: with the planner.
        policy: returns of the policy alone on the same seeds.
    """

    visits: Visits
    episodes: Episodes
    policy: tuple[float, ...]

    @classmethod
    def of(cls, agent: Agent, seeds: Sequence[int], folder: Path, setting: Setting) -> Recordings:
        """Run them, or read them if they are there.

        Args:
            agent: the dense agent.
            seeds: of the episodes by which agents are judged.
            folder: where they are kept, under names that no other agent's have.
            setting: where the agent acts.

        Raises:
            ControlError: an episode fails.
            StorageError: a file can't be read or written.
        """
        name = digest(agent)
        visited = folder / f"visits-{name}.safetensors"
        if not visited.exists():
            setting.record(agent).save(visited)
        judged = folder / f"episodes-{name}-{seeds[0]}-to-{seeds[-1]}.safetensors"
        if not judged.exists():
            episodes = setting.run(agent, agent.model, seeds)
            policy = setting.run(agent, agent.model, seeds, "policy")
            write_whole(judged, save(_tensors(episodes, policy)))
        episodes, returns = _read(judged, tuple(seeds))
        return cls(visits=Visits.load(visited), episodes=episodes, policy=returns)


def digest(agent: Agent) -> str:
    """Names an agent by its weights and its configuration."""
    found = hashlib.sha256(json.dumps(agent.config.as_data(), sort_keys=True).encode())
    for tensor in agent.model.state_dict().values():
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:10]


def _tensors(episodes: Episodes, policy: Episodes) -> dict[str, torch.Tensor]:
    return {
        "returns": torch.from_numpy(episodes.returns),
        "observations": torch.from_numpy(episodes.observations),
        "actions": torch.from_numpy(episodes.actions),
        "rewards": torch.from_numpy(episodes.rewards),
        "policy": torch.from_numpy(policy.returns),
    }


def _read(file: Path, seeds: tuple[int, ...]) -> tuple[Episodes, tuple[float, ...]]:
    try:
        arrays = {name: tensor.numpy() for name, tensor in load(file.read_bytes()).items()}
        policy = tuple(float(value) for value in arrays.pop("policy"))
        episodes = Episodes(**arrays, seeds=seeds)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise StorageError(f"{file} can't be read: {error}; delete it to run again") from error
    return episodes, policy

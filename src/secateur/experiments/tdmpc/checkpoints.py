"""Trained agents on disk: the weights as safetensors, and beside them the config and how they were made as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from secateur.errors import SecateurError, StorageError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.told import Told
from secateur.report.files import write_whole

FORMAT = "secateur-tdmpc-agent"
"""The value of ``format`` in the JSON file, by which Secateur knows its own agents."""

VERSION = 1
"""Of the format."""

_PRETRAINED = "pretrained"
"""The folder of this package that holds agents trained already."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Agent:
    """A trained model and what it was trained with.

    Attributes:
        model: in evaluation mode.
        config: what it was trained with, and what its planner needs.
        notes: how it was made and what it was measured to do, as JSON can hold it.
    """

    model: Told
    config: TdMpcConfig
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def observations(self) -> int:
        """Numbers in an observation."""
        return int(_first_weight(self.model.encoder).shape[1])

    @property
    def actions(self) -> int:
        """Numbers in an action."""
        return int(_first_weight(self.model.q1).shape[1] - _first_weight(self.model.pi).shape[1])

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return sum(parameter.numel() for parameter in self.model.parameters())


class _Readable(Protocol):
    """A file, on disk or inside a package."""

    def read_bytes(self) -> bytes: ...


def save_agent(agent: Agent, path: str | os.PathLike[str]) -> Path:
    """Write ``TASK.safetensors`` and ``TASK.json`` into the folder ``path``; earlier ones are replaced.

    Args:
        agent: its model has the sizes of its config (a pruned model is saved by :func:`secateur.save`).
        path: the folder, made if it isn't there.

    Returns:
        The JSON file.

    Raises:
        StorageError: the model doesn't have the sizes of its config, or a file can't be written.
    """
    folder, task = Path(path), agent.config.task
    tensors = {name: tensor.detach().contiguous() for name, tensor in agent.model.state_dict().items()}
    description = {
        "format": FORMAT,
        "version": VERSION,
        "config": agent.config.as_data(),
        "observations": agent.observations,
        "actions": agent.actions,
        "parameters": agent.parameters,
        "notes": dict(agent.notes),
    }
    _check_fit(f"the agent for {task}", _new_model(agent.config, agent.observations, agent.actions), tensors)
    write_whole(folder / f"{task}.safetensors", save(tensors, metadata={"format": FORMAT}))
    file = folder / f"{task}.json"
    write_whole(file, (json.dumps(description, indent=2) + "\n").encode())
    return file


def load_agent(path: str | os.PathLike[str], task: str | None = None) -> Agent:
    """The agent that :func:`save_agent` wrote.

    Args:
        path: the folder.
        task: which of several; not needed where the folder holds one agent.

    Raises:
        StorageError: there is no such agent, a file can't be read, or the config doesn't fit the weights.
    """
    folder = Path(path)
    stored = sorted(file.stem for file in folder.glob("*.json") if file.with_suffix(".safetensors").exists())
    if task is None and len(stored) != 1:
        what = f"several agents ({', '.join(stored)}); say for which task" if stored else "no agent"
        raise StorageError(f"{folder} holds {what}")
    if task is not None and task not in stored:
        raise StorageError(f"{folder} holds no agent for {task!r}; it has {', '.join(stored) or 'none'}")
    name = task or stored[0]
    agent = _read(str(folder / name), folder / f"{name}.json", folder / f"{name}.safetensors")
    if agent.config.task != name:
        raise StorageError(
            f"{folder / name}.json is the agent for {agent.config.task!r}; its files must have that name"
        )
    return agent


def pretrained(task: str) -> Agent:
    """An agent that comes with Secateur.

    Args:
        task: such as ``"cartpole-swingup"``.

    Raises:
        SecateurError: there is none for this task; the message lists those there are.
    """
    folder = resources.files(__package__) / _PRETRAINED
    names = pretrained_tasks()
    if task not in names:
        raise SecateurError(
            f"no trained agent for {task!r} comes with Secateur; there are {', '.join(names) or 'none'}. Train one "
            f"(secateur train tdmpc --task {task}) and name its folder: --checkpoint DIR, or load_agent(DIR)"
        )
    return _read(f"the trained agent for {task}", folder / f"{task}.json", folder / f"{task}.safetensors")


def pretrained_tasks() -> list[str]:
    """The tasks that :func:`pretrained` has an agent for."""
    folder = resources.files(__package__) / _PRETRAINED
    if not folder.is_dir():
        return []
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))


def _read(what: str, description: _Readable, weights: _Readable) -> Agent:
    try:
        data = json.loads(description.read_bytes())
        tensors = load(weights.read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise StorageError(f"{what} can't be read: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise StorageError(f"{what} is no agent of Secateur: its JSON has no format {FORMAT!r}")
    if data.get("version") != VERSION:
        raise StorageError(f"{what} has version {data.get('version')} of the format; this Secateur reads {VERSION}")
    observations, actions, notes = data.get("observations"), data.get("actions"), data.get("notes")
    if not (_is_size(observations) and _is_size(actions) and isinstance(notes, dict)):
        raise StorageError(f"{what} can't be read: its JSON lacks observations, actions or notes")
    try:
        config = TdMpcConfig.from_data(data.get("config"))
    except SecateurError as error:
        raise StorageError(f"{what} can't be read: {error}") from error
    model = _new_model(config, observations, actions)
    _check_fit(what, model, tensors)
    model.load_state_dict(tensors)
    return Agent(model=model.eval(), config=config, notes=notes)


def _new_model(config: TdMpcConfig, observations: int, actions: int) -> Told:
    """With weights that will be replaced: the global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        return Told.of(config, observations, actions)


def _check_fit(what: str, model: Told, tensors: Mapping[str, Tensor]) -> None:
    """One error for the first tensor that the config doesn't lead one to expect."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in (*expected, *found):
        if expected.get(name) != found.get(name):
            stored = f"is {found[name]}" if name in found else "is missing"
            wanted = f"asks for {expected[name]}" if name in expected else "asks for no such tensor"
            raise StorageError(f"{what}: the config doesn't fit the weights: {name} {stored}, and the config {wanted}")


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value > 0


def _first_weight(component: Any) -> Tensor:
    weight: Tensor = component[0].weight
    return weight

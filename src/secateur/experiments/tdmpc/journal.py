"""What a training has done so far, and the one file from which it goes on as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from secateur.errors import SecateurError, StorageError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.learner import UpdateLosses
from secateur.report.files import write_whole

CHECKPOINT = "training.safetensors"
"""The file's name. Once begun, a training is taken up from it."""

FORMAT = "secateur-tdmpc-training"
"""The value of ``format`` in its metadata."""

VERSION = "1"
"""Of the format."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """One training episode.

    Attributes:
        steps: agent steps of the whole training up to this episode's end.
        episode_return: the sum of its rewards; of random actions, or with exploration noise.
        losses: means over the updates after it; None if there were none.
        evaluation: mean return of the evaluation after it; None if there was none.
        seconds: wall-clock time of collecting, learning and evaluating.
    """

    steps: int
    episode_return: float
    losses: UpdateLosses | None
    evaluation: float | None
    seconds: float

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> EpisodeRecord:
        """The record from what JSON holds."""
        losses = data["losses"]
        return cls(**{**data, "losses": None if losses is None else UpdateLosses(**losses)})


@dataclass(frozen=True)
class Journal:
    """The episodes of a training, in order."""

    episodes: tuple[EpisodeRecord, ...] = ()

    @property
    def steps(self) -> int:
        """Agent steps so far."""
        return self.episodes[-1].steps if self.episodes else 0

    @property
    def seconds(self) -> float:
        """Wall-clock time so far."""
        return sum(episode.seconds for episode in self.episodes)

    @property
    def best(self) -> EpisodeRecord | None:
        """The episode with the best evaluation, the later of equals; None before the first evaluation."""
        evaluated = [episode for episode in self.episodes if episode.evaluation is not None]
        return max(evaluated, key=lambda episode: (episode.evaluation, episode.steps), default=None)

    def plus(self, episode: EpisodeRecord) -> Journal:
        """With one more episode."""
        return Journal((*self.episodes, episode))

    def as_data(self) -> list[dict[str, Any]]:
        """As JSON can hold it."""
        return [asdict(episode) for episode in self.episodes]


def write_state(folder: Path, config: TdMpcConfig, journal: Journal, tensors: Mapping[str, Tensor]) -> None:
    """Write all that a training needs to go on into one file, whole or not at all.

    Args:
        folder: where the training writes.
        config: of the training.
        journal: what it has done.
        tensors: the learner's and the replay's.

    Raises:
        StorageError: the file can't be written.
    """
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(config.as_data()),
        "journal": json.dumps(journal.as_data()),
    }
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_whole(folder / CHECKPOINT, save(plain, metadata=metadata))


def read_state(folder: Path, config: TdMpcConfig) -> tuple[Journal, dict[str, Tensor]] | None:
    """What :func:`write_state` wrote; None if the folder has no such file.

    A training may go on for more steps than it was begun with, but with nothing else changed.

    Raises:
        StorageError: the file can't be read, or is of a training with another config; the message names the value.
    """
    file = folder / CHECKPOINT
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            # Copies: what is read is a window into the file.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        if metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
            raise StorageError(f"{file} is no training of this version of Secateur; choose another folder")
        earlier = TdMpcConfig.from_data(json.loads(metadata["config"]))
        journal = Journal(tuple(map(EpisodeRecord.from_data, json.loads(metadata["journal"]))))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{file} can't be read: {error}; delete it to train from the start") from error
    except StorageError:
        raise
    except SecateurError as error:
        raise StorageError(f"{file} can't be read: {error}; delete it to train from the start") from error
    _check_same(file, earlier, config)
    return journal, tensors


def discard_state(folder: Path) -> None:
    """Forget the training in a folder, if there is one; its agents stay.

    Raises:
        StorageError: the file can't be deleted.
    """
    file = folder / CHECKPOINT
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{file} can't be deleted to begin again: {error.strerror}") from error


def _check_same(file: Path, earlier: TdMpcConfig, config: TdMpcConfig) -> None:
    wanted = config.as_data()
    for name, value in earlier.as_data().items():
        if name != "steps" and wanted[name] != value:
            raise StorageError(
                f"{file} was begun with {name} = {value}, and now it is {wanted[name]}; choose another folder, or "
                "train from the start"
            )

"""Calibration data of a controller: states that its planner visits, and sequences of actions it considers there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from secateur.calibration.runs import Run
from secateur.errors import CalibrationError, StorageError
from secateur.experiments.tdmpc.planner import WorldModel
from secateur.experiments.tdmpc.rollout import Rollout, rollout
from secateur.experiments.tdmpc.sizes import misfit
from secateur.report.files import write_whole

_FORMAT = "secateur-visits-1"


@dataclass(frozen=True, kw_only=True, eq=False)
class Visits:
    """States that a planner visited, each with a sequence of actions that it considered there, in random order.

    Attributes:
        task: the task on which they were recorded.
        observations: shape (B, observations).
        actions: shape (H, B, actions), in [-1, 1].
        seeds: of the episode that each row was visited in, whole numbers of shape (B,); None if that isn't known, and
            every row stands for itself.

    Raises:
        CalibrationError: the shapes don't fit each other, there are no rows, or a number isn't finite.
    """

    task: str
    observations: Tensor
    actions: Tensor
    seeds: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = tuple(self.observations.shape), tuple(self.actions.shape)
        if self.observations.ndim != 2 or self.actions.ndim != 3 or shapes[0][0] != shapes[1][1]:
            raise CalibrationError(
                f"visits need observations of shape (rows, n) and actions of shape (horizon, rows, m), not {shapes[0]} "
                f"and {shapes[1]}"
            )
        if self.observations.numel() == 0 or self.actions.numel() == 0:
            raise CalibrationError(f"there are no visits of task {self.task!r}; record some with record_visits")
        for name in ("observations", "actions"):
            if not bool(getattr(self, name).isfinite().all()):
                raise CalibrationError(f"the {name} visited on task {self.task!r} are not all finite; record them anew")
        if self.seeds is not None and (self.seeds.dtype != torch.int64 or self.seeds.shape != (self.rows,)):
            raise CalibrationError(f"the seeds of visits must be whole numbers, one for each of {self.rows} rows")

    @property
    def rows(self) -> int:
        """How many pairs of a state and a sequence there are."""
        return len(self.observations)

    @property
    def horizon(self) -> int:
        """Actions in every sequence."""
        return len(self.actions)

    def run(self, model: nn.Module) -> Rollout:
        """Roll the model out over all rows: a calibration function, and an entry point.

        Raises:
            CalibrationError: the model is no world model, or takes other observations or actions than were recorded.
        """
        return rollout(self.checked(model), self.observations, self.actions)

    def checked(self, model: nn.Module) -> WorldModel:
        """The model, if it can be rolled out over these rows.

        Raises:
            CalibrationError: the model is no world model, or takes other observations or actions than were recorded.
        """
        if not isinstance(model, WorldModel):
            kind = type(model).__name__
            raise CalibrationError(f"a {kind} can't be rolled out; it needs the methods encode, next, act and q")
        self.check_fits(model)
        return model

    def batches(self, size: int) -> list[Run]:
        """The same in pieces of at most ``size`` rows: one function of the model for every minibatch."""
        return [piece.run for piece in self.pieces(size)]

    def pieces(self, size: int) -> list[Visits]:
        """Consecutive pieces of at most ``size`` rows.

        Raises:
            CalibrationError: the size isn't positive.
        """
        if size < 1:
            raise CalibrationError(f"a piece of visits needs at least 1 row, not {size}")
        return [self.take(rows) for rows in torch.arange(self.rows).split(size)]

    def take(self, rows: Tensor) -> Visits:
        """Some of the rows, by their indices, shape (count,)."""
        seeds = None if self.seeds is None else self.seeds[rows]
        return Visits(task=self.task, observations=self.observations[rows], actions=self.actions[:, rows], seeds=seeds)

    def head(self, rows: int) -> Visits:
        """The first rows, or all if there are fewer."""
        return self.take(torch.arange(min(rows, self.rows)))

    def split(self, held_out: float) -> tuple[Visits, Visits]:
        """What is left, and about the fraction ``held_out``, each in the order it was in.

        Rows of one episode resemble each other, so that what was fitted to some of them also does well on the others.
        So whole episodes are held out, at least one, the same ones every time. Where the rows don't know their
        episodes, those at the end are held out.

        Raises:
            CalibrationError: the fraction leaves no row on one of the sides, or there is only one episode.
        """
        count = round(held_out * self.rows) if 0 < held_out < 1 else 0
        if not 0 < count < self.rows:
            raise CalibrationError(f"a fraction of {held_out!r} of {self.rows} visits leaves none on one side")
        if self.seeds is None:
            apart = torch.arange(self.rows) >= self.rows - count
        else:
            apart = torch.isin(self.seeds, _some(self.seeds.unique(), held_out))
        return self.take(apart.logical_not().nonzero()[:, 0]), self.take(apart.nonzero()[:, 0])

    def joined(self, other: Visits, *, seed: int = 0) -> Visits:
        """Both, shuffled: such as the dense planner's visits and those of a smaller one.

        Episodes of one seed are one episode from then on: they start alike, whoever acts.

        Raises:
            CalibrationError: they were recorded on other tasks, or with other horizons.
        """
        if self.task != other.task:
            raise CalibrationError(f"visits of task {other.task!r} can't be joined to those of {self.task!r}")
        if self.horizon != other.horizon:
            raise CalibrationError(f"visits with horizons {self.horizon} and {other.horizon} can't be joined")
        both = Visits(
            task=self.task,
            observations=torch.cat([self.observations, other.observations]),
            actions=torch.cat([self.actions, other.actions], dim=1),
            seeds=None if self.seeds is None or other.seeds is None else torch.cat([self.seeds, other.seeds]),
        )
        return both.take(torch.randperm(both.rows, generator=torch.Generator().manual_seed(seed)))

    def check_fits(self, model: nn.Module) -> None:
        """Check that a model takes these observations and actions.

        Raises:
            CalibrationError: it takes others; the message names the task, and both sizes.
        """
        wrong = misfit(model, observations=self.observations.shape[-1], actions=self.actions.shape[-1])
        if wrong is not None:
            raise CalibrationError(
                f"the visits were recorded on task {self.task!r}, whose {wrong}: record visits on the model's own task"
            )

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all.

        Raises:
            StorageError: it can't be written.
        """
        tensors = {"observations": self.observations.contiguous(), "actions": self.actions.contiguous()}
        if self.seeds is not None:
            tensors["seeds"] = self.seeds.contiguous()
        write_whole(path, save(tensors, metadata={"format": _FORMAT, "task": self.task}))

    @classmethod
    def load(cls, path: Path) -> Visits:
        """Read what :meth:`save` wrote.

        Raises:
            StorageError: the file is missing, damaged, or was not written by :meth:`save`.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata: Mapping[str, str] = file.metadata() or {}
                tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise StorageError(f"visits can't be read from {path}: {error}") from error
        needed = {"observations", "actions"}  # an earlier version didn't keep the seeds
        if metadata.get("format") != _FORMAT or not needed <= set(tensors) <= {*needed, "seeds"}:
            raise StorageError(f"{path} holds no visits; Visits.save writes them")
        return cls(task=metadata["task"], **tensors)


def _some(seeds: Tensor, fraction: float) -> Tensor:
    """About this fraction of the seeds, neither none nor all, drawn in the same way every time.

    Raises:
        CalibrationError: there is only one.
    """
    if len(seeds) < 2:
        raise CalibrationError(
            f"all visits are of one episode, seed {int(seeds[0])}, so that none can be held out of what is fitted: "
            "record_visits with more seeds"
        )
    count = min(max(1, round(fraction * len(seeds))), len(seeds) - 1)
    return seeds[torch.randperm(len(seeds), generator=torch.Generator().manual_seed(0))[:count]]

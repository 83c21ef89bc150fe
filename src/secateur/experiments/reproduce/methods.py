"""The methods that are compared: every strategy of the library, and PyTorch's own structured pruning."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

import secateur
from secateur.allocation import (
    BlackBox,
    Constraint,
    GradientDescent,
    GridSearch,
    NormBased,
    Progress,
    Random,
    Search,
    Sensitivity,
    Smallest,
    Strategy,
    Target,
    Uniform,
)
from secateur.experiments.autoencoder import BATCH
from secateur.experiments.reproduce.settings import Split
from secateur.experiments.torch_masks import RowNorms, mask_rows, random_rows, smallest_rows
from secateur.importance import Activation, Criterion, Magnitude, Reconstruction
from secateur.metrics import Psnr


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a method is asked to do.

    Attributes:
        model: the dense autoencoder; untouched.
        graph: what was traced.
        split: the images.
        target: how much to remove.
        least: the PSNR over the held-out images that the smallest model must have, in dB.
        seed: of whatever is drawn.
        evaluations: candidates that a search may measure, but for the grid.
        refit_steps: of the refit of candidates.
        refit: whether to refit, candidates as well as the result.
        on_progress: told of the search's progress.
    """

    model: nn.Module
    graph: secateur.DependencyGraph
    split: Split
    target: Target
    least: float
    seed: int
    evaluations: int
    refit_steps: int
    refit: bool
    on_progress: Callable[[Progress], None] | None = None

    @property
    def is_smallest(self) -> bool:
        """Whether the smallest model is asked for."""
        return isinstance(self.target, Smallest)


@dataclass(frozen=True, eq=False)
class Pruned:
    """What a method made.

    Attributes:
        model: refitted, if that was asked.
        plan: what was kept.
        evaluations: candidates that were measured.
        seconds: wall-clock time of all of it.
    """

    model: nn.Module
    plan: secateur.PruningPlan
    evaluations: int
    seconds: float


class Method(Protocol):
    """One way to prune."""

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        ...

    def settings(self, task: Task) -> tuple[Any, ...]:
        """What its results depend on besides what was asked: with others, its runs are other runs."""
        ...

    def run(self, task: Task) -> Pruned:
        """Prune."""
        ...


@dataclass(frozen=True)
class Searched:
    """A strategy of the library.

    Attributes:
        label: what tables and figures call it.
        strategy: makes it for a task.
        ranking: ranks the channels of a group without refit.
        refitted_ranking: ranks them with refit.
    """

    label: str
    strategy: Callable[[Task], Strategy]
    ranking: Callable[[Task], Criterion]
    refitted_ranking: Callable[[Task], Criterion]

    def settings(self, task: Task) -> tuple[Any, ...]:
        """The strategy's, and how channels are ranked."""
        return self.strategy(task), self.ranking(task), self.refitted_ranking(task)

    def run(self, task: Task) -> Pruned:
        """Trace, score, search, cut, prove and repair, in one call."""
        psnr = Psnr(task.split.held_out)
        started = time.perf_counter()
        result = secateur.prune(
            task.model,
            task.split.images.train[:1],
            target=task.target,
            criterion=(self.refitted_ranking if task.refit else self.ranking)(task),
            strategy=self.strategy(task),
            objective=psnr,
            constraints=[Constraint(psnr, at_least=task.least)] if task.is_smallest else (),
            calibration=task.split.calibration if task.refit else None,
            search=Search(
                on_progress=task.on_progress,
                refit_steps=task.refit_steps,
                calibration=task.split.searched if task.refit else None,
            ),
        )
        seconds = time.perf_counter() - started
        return Pruned(result.model, result.plan, result.allocation.measured, seconds)


_GRID_LEVELS = {False: 5, True: 3}
"""Coefficients per group on the grid, without and with refit, where a candidate takes several times as long."""


def reconstruction_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the reconstructions of a batch of shape (images, pixels)."""
    return F.mse_loss(model(batch), batch)


@dataclass(frozen=True)
class TorchPruned:
    """PyTorch's own structured pruning, ``torch.nn.utils.prune``.

    Without refit the model is left as PyTorch leaves it: rows of zeros in layers of full width. With it the rows are
    removed, and what reads them is refitted.

    Attributes:
        label: what tables and figures call it.
        zero: zeroes a fraction of a layer's rows.
    """

    label: str
    zero: Callable[[nn.Module, float], None]

    def settings(self, task: Task) -> tuple[Any, ...]:
        """How rows are zeroed."""
        return (self.zero,)

    def run(self, task: Task) -> Pruned:
        """Zero rows, and with refit remove them."""
        assert isinstance(task.target, secateur.Sparsity)
        assert task.target.rho is not None
        torch.manual_seed(task.seed)
        started = time.perf_counter()
        masked = mask_rows(task.model, task.graph, task.target.rho, self.zero)
        model = masked.model
        if task.refit:
            model = secateur.apply(task.model, masked.plan)
            secateur.refit(model, task.model, masked.plan, task.split.calibration)
        return Pruned(model, masked.plan, 0, time.perf_counter() - started)


def _by_norm(_task: Task) -> Criterion:
    """As PyTorch ranks, and the papers' baselines."""
    return RowNorms()


def _by_all_weights(_task: Task) -> Criterion:
    """The norm of all weights that leave, those that read the channel too."""
    return Magnitude()


def _by_activation(task: Task) -> Criterion:
    return Activation(task.split.searched)


def _by_reconstruction(task: Task) -> Criterion:
    """What is lost after the refit."""
    return Reconstruction(task.split.searched)


def _gradient(task: Task) -> Strategy:
    return GradientDescent(reconstruction_loss, task.split.searched, seed=task.seed)


def _gradient_and_weights(task: Task) -> Strategy:
    """An epoch over all training images, in an order drawn by the seed."""
    images = task.split.images
    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(task.seed))
    batches = images.train[order].split(BATCH[images.name])
    return GradientDescent(reconstruction_loss, batches, seed=task.seed, weights=True)


def _searched(label: str, strategy: Callable[[Task], Strategy]) -> Searched:
    return Searched(label, strategy, _by_activation, _by_reconstruction)


METHODS: Mapping[str, Method] = {
    "torch-random": TorchPruned("PyTorch, random", random_rows),
    "torch-l2": TorchPruned("PyTorch, L2", smallest_rows),
    "uniform": Searched("Uniform", lambda _: Uniform(), _by_norm, _by_reconstruction),
    "random": Searched("Random", lambda task: Random(seed=task.seed), _by_norm, _by_reconstruction),
    "norm": Searched("NormBased, row norms", lambda _: NormBased(normalization="none"), _by_norm, _by_norm),
    "norm-all": Searched("NormBased, all weights", lambda _: NormBased(), _by_all_weights, _by_all_weights),
    "grid": _searched("GridSearch", lambda task: GridSearch(levels=_GRID_LEVELS[task.refit])),
    "gradient": _searched("GradientDescent", _gradient),
    "gradient-weights": _searched("GradientDescent, with weights", _gradient_and_weights),
    "tpe": _searched("BlackBox, TPE", lambda task: BlackBox(evaluations=task.evaluations, seed=task.seed)),
    "sensitivity": _searched("Sensitivity", lambda task: Sensitivity(evaluations=task.evaluations, seed=task.seed)),
}
"""By name, in the order of the tables."""

FINE_TUNED = ("norm", "gradient-weights", "tpe", "sensitivity")
"""The methods whose results are fine-tuned too."""

SMALLEST = ("sensitivity", "tpe")
"""The methods that look for the smallest model too."""

FINISHES = (("sensitivity", False), ("sensitivity", True), ("gradient-weights", False))
"""The methods whose smallest finished model is looked for, and whether it is fine-tuned before it is judged."""

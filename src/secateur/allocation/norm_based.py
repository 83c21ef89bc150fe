"""NormBased: the classical global threshold, all groups' channels in one competition of their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from secateur.allocation.budget import Path
from secateur.allocation.mixture import meet_near
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.errors import SearchError
from secateur.graph.groups import Group
from secateur.plan import FloatArray

Normalization = Literal["mean", "none"]


@dataclass(frozen=True)
class NormBased:
    """The channels with the lowest scores leave, whichever group they are in, until the target is met exactly.

    Norms of different layers are not on one scale: a wide layer's weights are smaller because its sums have more
    terms, not because its channels matter less. So scores are divided by their group's mean before they compete, unless
    ``normalization`` is ``"none"``, for scores that mean the same in every group (a change of the loss, say). Channels
    that leave together in one step, a unit's or those of tied groups, compete with their mean score.

    Scores that are ranks, like those of ``Reconstruction``, say nothing across groups: every group then loses the same
    fraction. Where a threshold can't meet all targets, those of components among them, it gives way to uniform
    coefficients as little as is needed. Needs no objective; one that is given is measured once.

    Attributes:
        normalization: ``"mean"`` (of the absolute scores) or ``"none"``.

    Raises:
        SearchError: an unknown normalization.
    """

    normalization: Normalization = "mean"

    def __post_init__(self) -> None:
        if self.normalization not in get_args(Normalization):
            raise SearchError(f"normalization must be 'mean' or 'none', not {self.normalization!r}")

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
            ConstraintError: the one candidate misses a constraint.
        """
        return problem.settled(meet_near(problem, self.path(problem)))

    def path(self, problem: Problem) -> Path:
        """The path on which every step is taken when the threshold passes its mean score."""
        paths = []
        for fractions, tie in zip(problem.fractions, problem.graph.ties, strict=True):
            groups = [problem.graph.groups[i] for i in tie]
            sums = np.sum([self._lost(group, problem.scores[group.name], fractions) for group in groups], axis=0)
            channels = np.diff(fractions) * -sum(group.size for group in groups)
            # What leaves later scores higher, in every group; only rounding in the mean over a tie could say otherwise.
            paths.append(np.maximum.accumulate(sums / channels))
        return paths

    def _lost(self, group: Group, scores: FloatArray, fractions: FloatArray) -> FloatArray:
        """Sum of the scores that leave at each step, shape (levels - 1,)."""
        scale = np.abs(scores).mean() if self.normalization == "mean" else 1.0
        by_block = np.sort(scores[np.argsort(group.block_of, kind="stable")].reshape(group.blocks, -1), axis=1)
        removed = np.concatenate([[0.0], np.cumsum(by_block.sum(axis=0))]) / (scale or 1.0)
        per_block = np.rint((1 - fractions) * by_block.shape[1]).astype(np.int64)
        return np.diff(removed[per_block])

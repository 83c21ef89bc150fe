"""Random scores: the baseline every criterion has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from secateur.graph.graph import DependencyGraph
from secateur.importance.criterion import Scores, score_groups


@dataclass(frozen=True)
class Random:
    """Scores drawn uniformly from [0, 1).

    Attributes:
        seed: the same seed and graph give the same scores; the global random state isn't used.
    """

    seed: int = 0

    def __call__(self, graph: DependencyGraph, model: nn.Module) -> Scores:
        """Random scores for every channel group; the model isn't looked at."""
        generator = np.random.default_rng(self.seed)
        return score_groups(graph, lambda group: generator.random(group.size))

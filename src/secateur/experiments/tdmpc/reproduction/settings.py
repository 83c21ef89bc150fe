"""What a reproduction of the control experiment is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.experiments.tdmpc.episodes import EVALUATION_SEEDS

SPARSITIES: Mapping[str, Sequence[float]] = {"cartpole-swingup": (0.2, 0.46, 0.69, 0.86, 0.92, 0.95, 0.97)}
"""Fractions of the parameters to remove, by task, where a task bears more or less than others."""

OTHER_SPARSITIES = (0.2, 0.35, 0.5, 0.75, 0.9)
"""The same for all other tasks."""

LEVELS = (0.2, 0.4, 0.6, 0.8)
"""Fractions of one component's channels, or of the latent state's, that leave while all else stays."""

MASKED = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Fractions of the rows of every hidden layer that PyTorch masks, as in the papers' figure 4."""

CHOICE_SEEDS = tuple(range(11_000, 11_005))
"""Of the episodes by which the last candidates of a search are compared: none of those that are reported."""

SEARCH_SEEDS = (11_100, 11_101)
"""Of the episodes by which every candidate of a search by return is compared: none of those either."""

FAILED = 0.5
"""An episode has failed if its return is below this fraction of the dense agent's mean."""

DRIFT_HORIZONS = 4
"""Latent states are predicted so many horizons ahead."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to reproduce.

    Attributes:
        sparsities: fractions of the parameters to remove, each in (0, 1), ascending.
        methods: names of the methods; see ``methods.METHODS``.
        episodes: by which every pruned agent is judged, on common seeds; at least 2.
        levels: of the sensitivity of single components, each in (0, 1); none to leave it out.
        sensitivity_episodes: by which these are judged; at least 2.
        masked: fractions of rows for PyTorch's masks, each in (0, 1); none to leave them out.
        distill: seconds of distillation after the refit, measured apart; 0 for none.
        evaluations: candidates that a search may measure.
        finalists: candidates of a search that are compared by their return at the end.
        repeats: of every measurement of time.
    """

    sparsities: Sequence[float] = OTHER_SPARSITIES
    methods: Sequence[str]
    episodes: int = len(EVALUATION_SEEDS)
    levels: Sequence[float] = LEVELS
    sensitivity_episodes: int = 5
    masked: Sequence[float] = MASKED
    distill: float = 30.0
    evaluations: int = 80
    finalists: int = 3
    repeats: int = 30

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the episodes by which agents are judged."""
        return _first_seeds(self.episodes)

    @property
    def sensitivity_seeds(self) -> tuple[int, ...]:
        """The first of them, for the sensitivity."""
        return _first_seeds(self.sensitivity_episodes)


def _first_seeds(count: int) -> tuple[int, ...]:
    return tuple(range(EVALUATION_SEEDS[0], EVALUATION_SEEDS[0] + count))

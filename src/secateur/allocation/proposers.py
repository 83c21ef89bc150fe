"""Where to look next, from the values of the points looked at so far: what ``BlackBox`` searches by.

Both ways only compare values: how much better a point is doesn't matter to them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import optuna
from cmaes import CMA  # type: ignore[import-untyped]
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from secateur.allocation.quiet import quiet
from secateur.plan import FloatArray

REACH = 3.0
"""Points lie within this distance of the origin in every coordinate."""


class Proposer(Protocol):
    """Proposes points, shape (dimensions,), to maximise their value; deterministic under its seed."""

    def ask(self) -> FloatArray:
        """A point to look at."""
        ...

    def tell(self, point: FloatArray, value: float) -> None:
        """The value of a point, whether it was asked for or not."""
        ...


class TreeParzen:
    """Optuna's tree-structured Parzen estimator (arXiv 2304.11127), with all coordinates in one density."""

    def __init__(self, dimensions: int, *, seed: int, together: bool) -> None:
        """Start without points.

        Args:
            dimensions: of the points.
            seed: of the proposals.
            together: whether several points are asked for before the first is told.
        """
        with quiet():
            sampler = optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=together, n_startup_trials=0
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._space: dict[str, BaseDistribution] = {str(i): FloatDistribution(-REACH, REACH) for i in range(dimensions)}
        self._asked: dict[bytes, optuna.Trial] = {}

    def ask(self) -> FloatArray:
        """Draw from where the best points are denser than the others."""
        trial = self._study.ask(self._space)
        point = np.array([trial.params[name] for name in self._space])
        self._asked[point.tobytes()] = trial
        return point

    def tell(self, point: FloatArray, value: float) -> None:
        """Add a point to the densities."""
        trial = self._asked.pop(point.tobytes(), None)
        if trial is not None:
            self._study.tell(trial, value)
            return
        params = dict(zip(self._space, np.clip(point, -REACH, REACH).tolist(), strict=True))
        self._study.add_trial(create_trial(params=params, distributions=self._space, value=value))


class CovarianceMatrixAdaptation:
    """CMA-ES (arXiv 1604.00772), by the library that Optuna uses.

    Optuna's own sampler copies the optimiser for every parameter: 107 ms per proposal of 100, against 10 ms.
    """

    def __init__(self, start: FloatArray, *, spread: float, seed: int) -> None:
        """Start around a point.

        Args:
            start: the first mean, shape (dimensions,), two dimensions or more.
            spread: standard deviation of the first points around it.
            seed: of the proposals.
        """
        bounds = np.tile([-REACH, REACH], (len(start), 1))
        self._optimizer = CMA(mean=np.clip(start, -REACH, REACH), sigma=spread, bounds=bounds, seed=seed)
        self._told: list[tuple[FloatArray, float]] = []

    def ask(self) -> FloatArray:
        """Draw from the normal distribution of this generation."""
        return np.asarray(self._optimizer.ask())

    def tell(self, point: FloatArray, value: float) -> None:
        """Keep the point; a full generation moves the distribution."""
        self._told.append((point, -value))
        if len(self._told) == self._optimizer.population_size:
            self._optimizer.tell(self._told)
            self._told = []

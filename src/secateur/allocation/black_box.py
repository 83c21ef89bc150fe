"""BlackBox: a search by the application's metric alone, whatever that is: an episode's return, a simulator, a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from secateur.allocation.budget import Path, meet, nearby_path, uniform_path
from secateur.allocation.norm_based import NormBased
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult, Evaluation
from secateur.allocation.strategy import check_seed
from secateur.errors import InfeasibleError, SearchError
from secateur.extras import needs
from secateur.graph.cost import IntArray
from secateur.metrics.checks import is_whole
from secateur.plan import FloatArray

if TYPE_CHECKING:
    from secateur.allocation.proposers import Proposer

Sampler = Literal["auto", "tpe", "cmaes"]

_FEW_VARIABLES = 12
"""Up to here TPE finds more in 80 evaluations than CMA-ES; with 22 variables it finds half as much."""

_STARTS = 10
"""Candidates before TPE's first proposal; those that aren't known to be sensible are drawn around uniform's."""

_SPREAD = 0.7
"""Standard deviation of logits, of the candidates drawn to start with."""

_FIRST_SPREAD = 0.5
"""The same of CMA-ES's first generation."""

_REPEATS = 8
"""Proposals in a row that are known already, before points are drawn around the best one instead."""

_ATTEMPTS = 64
"""Proposals without a new candidate after which there is none left."""

_LEAST_SPREAD, _MOST_SPREAD = 0.05, 2.0
"""Standard deviations of points drawn around the best one, one wider than the other until there is a new candidate."""

_EDGE = 0.02
"""Coefficients nearer to 0 or 1 than this are taken to be this far from it, so that their offsets stay finite."""

_MISSED = -1e300
"""Value of candidates that miss a constraint: below every one that doesn't, ordered by their margin."""

_FAILED = -1e307


@dataclass(frozen=True)
class BlackBox:
    """Optuna's TPE, or CMA-ES, over the coefficients, with every candidate moved onto the target before it is measured.

    A candidate is a point of offsets, one for every group's coefficient (groups that are tied share one), added to the
    logit of uniform's; all are then shifted by the same amount until the target is met. So no evaluation is spent
    beside the target, and none on a candidate that was measured before. Starts from uniform's candidate, the classical
    global threshold's, and those of neighbouring targets if there are any.

    Attributes:
        evaluations: candidates measured, at most; fewer if the target leaves fewer.
        sampler: ``"tpe"``, ``"cmaes"``, or ``"auto"``: TPE up to 12 variables and CMA-ES above.
        batch: proposals made at a time, so that as many can be measured at once; more than 1 finds a little less with
            the same number of evaluations.
        seed: of the proposals; the same seed gives the same search.

    Raises:
        SearchError: a value outside its range.
    """

    evaluations: int = 80
    sampler: Sampler = "auto"
    batch: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("evaluations", "batch"):
            value = getattr(self, name)
            if not is_whole(value, 1):
                raise SearchError(f"{name} must be a whole number of candidates, at least 1; it is {value!r}")
        if self.sampler not in get_args(Sampler):
            raise SearchError(f"sampler must be 'auto', 'tpe' or 'cmaes', not {self.sampler!r}")
        check_seed(self.seed)

    def __call__(self, problem: Problem) -> AllocationResult:
        """Solve the problem.

        Raises:
            InfeasibleError: the target can't be met; the message names the nearest that can.
            ConstraintError: no candidate satisfies every constraint; the message names the nearest miss.
            ObjectiveError: there is no objective and no constraint, or measuring failed for every candidate.
        """
        problem.expect(self.evaluations)
        run = _Run(problem, self)
        run.start()
        run.search()
        return problem.result(problem.best(run.history), run.history)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Levels, shape (variables,), and the point that the sampler knows them by, shape (dimensions,)."""

    point: FloatArray
    levels: IntArray


class _Run:
    """One search: what it has measured, and where it looks next."""

    def __init__(self, problem: Problem, settings: BlackBox) -> None:
        self.history: list[Evaluation] = []
        self._problem, self._settings = problem, settings
        self._offsets = _Offsets(problem)
        few = self._offsets.dimensions <= (_FEW_VARIABLES if settings.sampler == "auto" else 1)
        self._uses_tpe = few or settings.sampler == "tpe"
        self._rng = np.random.default_rng(settings.seed)
        self._values: dict[bytes, float | None] = {}
        self._told: list[tuple[FloatArray, float]] = []

    def start(self) -> None:
        """Measure the sensible candidates, and as many around them as TPE wants before it proposes anything.

        Raises:
            InfeasibleError: none of them can be brought onto the target.
        """
        found = list(self._sensible())
        around = found[0].point if found else np.zeros(self._offsets.dimensions)
        wanted = _STARTS if self._uses_tpe or not found else len(found)
        for _ in range(_ATTEMPTS):
            if len(found) < wanted:
                candidate = self._new(self._rng.normal(around, _SPREAD))
                found.extend([] if candidate is None else [candidate])
        if not found:
            meet(self._problem, uniform_path(self._problem))  # an error that names the nearest that can be met
        self._measure(found[: self._settings.evaluations])

    def search(self) -> None:
        """Measure what is proposed until the evaluations are spent, or every candidate there is has been measured."""
        if self._offsets.dimensions == 0:
            return
        proposer = self._proposer()
        while (left := self._settings.evaluations - len(self.history)) > 0:
            proposals = [self._proposal(proposer) for _ in range(min(left, self._settings.batch))]
            found = [candidate for candidate in proposals if candidate is not None]
            if not found:
                return
            for point, value in self._measure(found):
                proposer.tell(point, value)

    def _sensible(self) -> Iterator[_Candidate]:
        """Uniform's candidate, those of neighbouring targets, and the classical threshold's."""
        problem = self._problem
        hints = [problem.coefficients(problem.levels_of(e)) for e in problem.hints]
        paths = [uniform_path(problem), *(nearby_path(problem, c) for c in hints), NormBased().path(problem)]
        for path in paths:
            with suppress(InfeasibleError):
                levels = meet(problem, path)
                if self._is_new(levels):
                    yield _Candidate(self._offsets.point(problem.coefficients(levels)), levels)

    def _proposer(self) -> Proposer:
        with needs("optuna", "cmaes", extra="search"):
            from secateur.allocation.proposers import CovarianceMatrixAdaptation, TreeParzen
        if not self._uses_tpe:
            return CovarianceMatrixAdaptation(self._best_point(), spread=_FIRST_SPREAD, seed=self._settings.seed)
        together = self._settings.batch > 1
        proposer = TreeParzen(self._offsets.dimensions, seed=self._settings.seed, together=together)
        for point, value in self._told:
            proposer.tell(point, value)
        return proposer

    def _proposal(self, proposer: Proposer) -> _Candidate | None:
        """A new candidate, if one can be found; the proposer is told at once what is known of the others."""
        for _ in range(_REPEATS):
            point = proposer.ask()
            levels = self._offsets.levels(point)
            if levels is not None and self._is_new(levels):
                return _Candidate(point, levels)
            value = _FAILED if levels is None else self._values[levels.tobytes()]
            if value is not None:
                proposer.tell(point, value)
        for spread in np.geomspace(_LEAST_SPREAD, _MOST_SPREAD, _ATTEMPTS):
            candidate = self._new(self._rng.normal(self._best_point(), spread))
            if candidate is not None:
                return candidate
        return None

    def _new(self, point: FloatArray) -> _Candidate | None:
        """The candidate at a point, unless it was taken before or can't be brought onto the target."""
        levels = self._offsets.levels(point)
        return _Candidate(point, levels) if levels is not None and self._is_new(levels) else None

    def _is_new(self, levels: IntArray) -> bool:
        """Whether a candidate is seen for the first time; the next time it isn't."""
        key = levels.tobytes()
        if key in self._values:
            return False
        self._values[key] = None
        return True

    def _measure(self, candidates: Sequence[_Candidate]) -> list[tuple[FloatArray, float]]:
        """Measure candidates; their points with what the sampler is to make of them."""
        measured = self._problem.evaluate([c.levels for c in candidates])
        self.history.extend(measured)
        told = [(c.point, _value(self._problem, e)) for c, e in zip(candidates, measured, strict=True)]
        self._values.update({c.levels.tobytes(): value for c, (_, value) in zip(candidates, told, strict=True)})
        self._told.extend(told)
        return told

    def _best_point(self) -> FloatArray:
        return max(self._told, key=lambda told: told[1])[0]


class _Offsets:
    """The map from points, shape (dimensions,), to levels, shape (variables,), that meet the target.

    A dimension for every variable that has a choice; the origin is uniform's candidate.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._free = np.flatnonzero(problem.last_levels > 0)
        self.dimensions = len(self._free)
        self._centre = np.zeros(self.dimensions)
        with suppress(InfeasibleError):
            self._centre = self.point(problem.coefficients(meet(problem, uniform_path(problem))))

    def point(self, coefficients: FloatArray) -> FloatArray:
        """The point of coefficients, shape (variables,)."""
        inside = np.clip(coefficients[self._free], _EDGE, 1 - _EDGE)
        return np.asarray(np.log(inside / (1 - inside)) - self._centre)

    def levels(self, point: FloatArray) -> IntArray | None:
        """The levels at a point, or half way to the origin if there are none; None if there are none either."""
        for offset in (point, point / 2):
            with suppress(InfeasibleError):
                return meet(self._problem, self._path(offset))
        return None

    def _path(self, point: FloatArray) -> Path:
        coefficients = np.zeros(len(self._problem.fractions))
        coefficients[self._free] = 1 / (1 + np.exp(-self._centre - point))
        return nearby_path(self._problem, coefficients)


def _value(problem: Problem, evaluation: Evaluation) -> float:
    """One number, for samplers that compare no more than that: the order is that of ``problem.rank``."""
    if evaluation.error is not None:
        return _FAILED
    if evaluation.satisfied:
        return problem.value(evaluation)
    missed = -problem.margin(evaluation)
    return _MISSED * (1 + missed / (1 + missed))

"""The choices an allocation has, their exact cost, and how to measure them: what every strategy searches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import dropwhile
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.allocation.evaluator import Evaluator
from secateur.allocation.merit import Merit
from secateur.allocation.objective import Constraint, Objective
from secateur.allocation.result import AllocationResult, Evaluation
from secateur.allocation.targets import Limits, Sparsity
from secateur.calibration import CalibrationData
from secateur.errors import ConstraintError, ObjectiveError, TargetError
from secateur.graph.cost import IntArray
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Group
from secateur.plan import FloatArray

# Sparsities are quotients of whole numbers: what differs by less than this is equal.
ROUNDING = 1e-12

# Candidates whose cost is computed at once; each takes a few numbers for every matrix product of the run.
_BATCH = 256


class Measurements(Protocol):
    """Measures candidates on the application, each once."""

    @property
    def model(self) -> nn.Module:
        """The dense model."""
        ...

    @property
    def objective(self) -> Objective | None:
        """The metric to keep high, or low."""
        ...

    @property
    def constraints(self) -> Sequence[Constraint]:
        """The bounds on other metrics."""
        ...

    @property
    def calibration(self) -> CalibrationData | None:
        """The data candidates are refitted on before they are measured; None if they aren't refitted."""
        ...

    def beside(self, name: str, evaluator: Evaluator, *, counted: bool = False) -> Measurements:
        """What measures candidates in another way, in a table of its own: ``counted`` if users see its progress."""
        ...

    def expect(self, evaluations: int) -> None:
        """Announce that so many more candidates will be measured, for the progress that users see."""
        ...

    def evaluate(self, candidates: Sequence[Evaluation]) -> list[Evaluation]:
        """The same candidates with their objective and constraints, in order; known ones aren't measured again."""
        ...


@dataclass(frozen=True, eq=False)
class Goal:
    """One sparsity to meet.

    Attributes:
        component: whose sparsity; None for the whole model's.
        rho: the aim.
        low: the smallest sparsity that meets the goal.
        high: the largest.
        variables: indices of the variables that serve it, ascending.
    """

    component: str | None
    rho: float
    low: float
    high: float
    variables: IntArray

    def is_met_by(self, sparsity: float) -> bool:
        """Whether this sparsity meets the goal."""
        return self.low - ROUNDING <= sparsity <= self.high + ROUNDING


@dataclass(frozen=True, eq=False)
class Problem:
    """A target for a graph, with one integer variable for all groups that are tied together.

    A variable's value is a *level*: 0 keeps as much as the target's limits allow, which is everything unless the group
    has a coefficient of its own, and each further level the next smaller width that they and the groups' units allow.

    Attributes:
        graph: what was traced.
        scores: group name to importance, shape (group size,).
        target: what to remove; of parameters or multiply-adds.
        measurements: how candidates are measured; None if there is no model to measure.
        hints: candidates that are good for neighbouring targets; a strategy that searches may start near them.
    """

    graph: DependencyGraph
    scores: Mapping[str, FloatArray]
    target: Sparsity
    measurements: Measurements | None = None
    hints: tuple[Evaluation, ...] = ()

    # --- the choices ------------------------------------------------------------------------------------------------

    @cached_property
    def fractions(self) -> tuple[FloatArray, ...]:
        """For every variable, the fraction of its channels kept at each level, shape (levels,), descending."""
        _check_names(self.graph, self.target)
        return tuple(_fractions([self.graph.groups[i] for i in tie], self.target) for tie in self.graph.ties)

    @cached_property
    def last_levels(self) -> IntArray:
        """The highest level of every variable, shape (variables,)."""
        return np.array([len(f) - 1 for f in self.fractions], dtype=np.int64)

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """The sparsities to meet: the components', then the whole model's.

        Raises:
            TargetError: a component is unknown.
        """
        _check_names(self.graph, self.target)
        return tuple(_goals(self.graph, self.target))

    @cached_property
    def caps(self) -> tuple[Goal, ...]:
        """The most that components may lose, as goals that any smaller sparsity meets; those without cost lose none."""
        owners, tolerance, everything = _owners(self.graph), self.target.tolerance, self.graph.kept_vector()
        names = [c.name for c in self.graph.components if c.name in self.target.caps]
        capped = [(name, self.target.caps[name]) for name in names if self._cost(everything, name) > 0]
        return tuple(
            Goal(name, max(cap - tolerance, 0.0), -math.inf, cap, _internal(owners, name)) for name, cap in capped
        )

    def kept(self, levels: IntArray) -> IntArray:
        """Kept channels, shape (..., groups), for levels of shape (..., variables)."""
        counts, starts, variable_of = self._table
        kept: IntArray = counts[starts + levels[..., variable_of]]
        return kept

    def coefficients(self, levels: IntArray) -> FloatArray:
        """Pruning coefficients, shape (..., variables), for levels of shape (..., variables)."""
        columns = [1 - f[levels[..., v]] for v, f in enumerate(self.fractions)]
        return np.stack(columns, axis=-1) if columns else np.zeros(levels.shape)

    def nearest_levels(self, coefficients: FloatArray) -> IntArray:
        """The levels whose coefficients are nearest to these, both of shape (variables,)."""
        nearest = [np.abs(1 - f - c).argmin() for f, c in zip(self.fractions, coefficients, strict=True)]
        return np.array(nearest, dtype=np.int64)

    # --- their cost -------------------------------------------------------------------------------------------------

    def sparsity(self, levels: IntArray, component: str | None = None) -> FloatArray:
        """Sparsity of the whole model or of one component, shape (...), for levels of shape (..., variables).

        Linear in the number of candidates and in the size of the model.

        Raises:
            TargetError: there is no such cost to begin with.
        """
        dense = self._cost(self.graph.kept_vector(), component)
        if dense == 0:
            whose = "the model" if component is None else f"component {component!r}"
            raise TargetError(f"{whose} has no {self.target.of} to remove")
        flat = levels.reshape(math.prod(levels.shape[:-1]), levels.shape[-1])
        pieces = [flat[i : i + _BATCH] for i in range(0, len(flat), _BATCH)]
        costs = np.concatenate([np.zeros(0), *(self._cost(self.kept(piece), component) for piece in pieces)])
        return np.asarray(1 - costs.reshape(levels.shape[:-1]) / dense)

    def is_met_by(self, levels: IntArray) -> NDArray[np.bool_]:
        """Whether all goals are met and all caps kept, shape (...), for levels of shape (..., variables)."""
        met = np.ones(levels.shape[:-1], dtype=bool)
        for goal in (*self.goals, *self.caps):
            sparsity = self.sparsity(levels, goal.component)
            met &= (sparsity >= goal.low - ROUNDING) & (sparsity <= goal.high + ROUNDING)
        return met

    # --- what they are worth ----------------------------------------------------------------------------------------

    @property
    def is_measured(self) -> bool:
        """Whether there is an objective or a constraint to measure candidates with."""
        return self.measurements is not None and (
            self.measurements.objective is not None or len(self.measurements.constraints) > 0
        )

    @property
    def model(self) -> nn.Module:
        """The dense model.

        Raises:
            ObjectiveError: none was given.
        """
        return self._measurements("a strategy that looks at the model needs it").model

    @property
    def calibration(self) -> CalibrationData | None:
        """The data candidates are refitted on before they are measured; None if they aren't refitted."""
        return None if self.measurements is None else self.measurements.calibration

    @property
    def objective(self) -> Objective | None:
        """The metric to keep high, or low."""
        return None if self.measurements is None else self.measurements.objective

    def expect(self, evaluations: int) -> None:
        """Announce that so many more candidates will be measured, for the progress that users see."""
        if self.measurements is not None:
            self.measurements.expect(evaluations)

    def evaluate(self, candidates: Sequence[IntArray]) -> list[Evaluation]:
        """Measure candidates, levels of shape (variables,), on the application; each at most once, whoever asks.

        Raises:
            ObjectiveError: there is neither objective nor constraint, or no model.
        """
        complaint = "this strategy compares candidates by the application's metric"
        measurements = self._measurements(complaint)
        if not self.is_measured:
            raise ObjectiveError(f"{complaint}: give objective=, or constraints=")
        return measurements.evaluate([self.evaluation(levels) for levels in candidates])

    def measured_by(self, name: str, evaluator: Evaluator, *, counted: bool = False) -> Problem:
        """The same choices, measured in another way; what is measured is kept as these measurements are.

        Args:
            name: of what is measured.
            evaluator: measures a candidate.
            counted: whether the progress that users see is of this, too.

        Raises:
            ObjectiveError: there is no model.
            StorageError: the storage fails.
        """
        measurements = self._measurements("a strategy that looks at the model needs it")
        return Problem(self.graph, self.scores, self.target, measurements.beside(name, evaluator, counted=counted))

    def value(self, evaluation: Evaluation) -> float:
        """What to maximise; see :class:`secateur.allocation.merit.Merit`."""
        return self._merit.value(evaluation)

    def margin(self, evaluation: Evaluation) -> float:
        """The least margin of the constraints, negative if one isn't satisfied; infinite if there are none."""
        return self._merit.margin(evaluation)

    def rank(self, evaluation: Evaluation) -> tuple[int, float]:
        """A key that orders candidates: failed ones, those that miss a constraint by least margin, then by value."""
        return self._merit.rank(evaluation)

    @cached_property
    def _merit(self) -> Merit:
        return Merit(self.objective, () if self.measurements is None else tuple(self.measurements.constraints))

    def best(self, evaluations: Sequence[Evaluation]) -> Evaluation:
        """The best of the candidates that satisfy every constraint; of equals the first.

        Raises:
            ObjectiveError: all of them failed.
            ConstraintError: none of them satisfies; the message names the nearest miss.
        """
        best = max(evaluations, key=self.rank)
        if best.error is not None:
            count, what = len(evaluations), _raised(best.error)
            raise ObjectiveError(f"measuring failed for every one of {count} candidates; the first: {what}")
        if not best.satisfied:
            raise ConstraintError(
                f"no candidate satisfies every constraint; {self._miss(best)}; loosen the bound, or remove less"
            )
        return best

    def _miss(self, evaluation: Evaluation) -> str:
        assert self.measurements is not None
        missed = [c for c in self.measurements.constraints if c.margin(evaluation.constraints[c.name]) < 0]
        values = ", ".join(f"{c.name} = {evaluation.constraints[c.name]:.6g} where {c} is asked" for c in missed)
        return f"the nearest miss, at sparsity {evaluation.sparsity:.4f}, has {values}"

    def _measurements(self, why: str) -> Measurements:
        if self.measurements is None:
            raise ObjectiveError(f"{why}: give model= to allocate, and objective= or constraints=")
        return self.measurements

    # --- records ----------------------------------------------------------------------------------------------------

    def evaluation(self, levels: IntArray) -> Evaluation:
        """A record of one candidate that isn't measured, levels of shape (variables,)."""
        kept = self.kept(levels)
        on_target = bool(self.is_met_by(levels))
        return Evaluation(
            self._coefficients(kept), float(self.sparsity(levels)), self._counts(kept), on_target=on_target
        )

    def levels_of(self, evaluation: Evaluation) -> IntArray:
        """The levels, shape (variables,), that an evaluation is of."""
        first = [self.graph.groups[tie[0]] for tie in self.graph.ties]
        return self.nearest_levels(np.array([1 - evaluation.kept[g.name] / g.size for g in first], dtype=np.float64))

    def result(self, chosen: Evaluation, history: Sequence[Evaluation] = ()) -> AllocationResult:
        """The result for the chosen candidate."""
        dense, small = (
            self.graph.cost_model.by_component(k, of=self.target.of)
            for k in (self.graph.kept_vector(), self.graph.kept_vector(chosen.kept))
        )
        shares = np.divide(dense - small, dense, out=np.zeros(len(dense)), where=dense > 0)
        return AllocationResult(
            coefficients=chosen.coefficients,
            kept=chosen.kept,
            sparsity=chosen.sparsity,
            component_sparsities=dict(zip(self.graph.cost_model.component_names, shares.tolist(), strict=True)),
            target=self.target,
            history=tuple(history) or (chosen,),
            best=chosen if self.is_measured else None,
        )

    def settled(self, levels: IntArray) -> AllocationResult:
        """The result of a strategy that has only one candidate: measured, if there is something to measure it with.

        Raises:
            ConstraintError: it misses a constraint.
            ObjectiveError: measuring it failed.
        """
        if not self.is_measured:
            return self.result(self.evaluation(levels))
        self.expect(1)
        return self.result(self.best(self.evaluate([levels])))

    def at(self, target: Sparsity) -> Problem:
        """The same problem with another target."""
        return replace(self, target=target)

    @cached_property
    def _table(self) -> tuple[IntArray, IntArray, IntArray]:
        """Channels kept at every level of every group, end to end; where each group starts; each group's variable."""
        full = self.graph.cost_model.full
        variable_of = np.empty(len(full), dtype=np.int64)
        for variable, tie in enumerate(self.graph.ties):
            variable_of[tie] = variable
        per_group = [np.rint(self.fractions[v] * n).astype(np.int64) for v, n in zip(variable_of, full, strict=True)]
        starts = np.cumsum([0, *(len(counts) for counts in per_group)])[:-1]
        return np.concatenate([np.zeros(0, dtype=np.int64), *per_group]), starts, variable_of

    def _cost(self, kept: IntArray, component: str | None) -> IntArray:
        model = self.graph.cost_model
        if component is None:
            return model.parameters(kept) if self.target.of == "params" else model.macs(kept)
        return model.by_component(kept, of=self.target.of)[..., model.component_names.index(component)]

    def _coefficients(self, kept: IntArray) -> dict[str, float]:
        return {g.name: 1 - int(n) / g.size for g, n in zip(self.graph.groups, kept, strict=True)}

    def _counts(self, kept: IntArray) -> dict[str, int]:
        return {g.name: int(n) for g, n in zip(self.graph.groups, kept, strict=True)}


def _fractions(groups: list[Group], target: Sparsity) -> FloatArray:
    """The fractions that tied groups may keep, descending: of their units, those within the limits for all of them."""
    units = groups[0].units
    kept_units = np.arange(units, 0, -1, dtype=np.int64)
    allowed = np.ones(units, dtype=bool)
    for group in groups:
        allowed &= _allowed(group, group.size * kept_units // units, target)
    allowed[0] = True
    fractions = kept_units[allowed] / units
    given = [target.interfaces[g.name] for g in groups if g.name in target.interfaces]
    return _given_fraction(groups, fractions, given) if given else fractions


def _given_fraction(groups: list[Group], fractions: FloatArray, given: list[float]) -> FloatArray:
    """The one fraction that is nearest to a coefficient that the user gave."""
    names = ", ".join(repr(g.name) for g in groups)
    if len(set(given)) > 1:
        raise TargetError(f"groups {names} must keep equal fractions; they were given different coefficients")
    nearest = fractions[np.abs(1 - fractions - given[0]).argmin()]
    if abs(1 - nearest - given[0]) > 0.5 / groups[0].units + ROUNDING:
        raise TargetError(
            f"the coefficient {given[0]:g} of {names} can't be met within the other limits; "
            f"the nearest is {1 - nearest:g}"
        )
    return np.array([nearest])


def _allowed(group: Group, kept: IntArray, target: Limits) -> NDArray[np.bool_]:
    allowed = (kept >= min(target.minimum_width, group.size)) & (kept % target.round_to == 0)
    if group.name in target.protected or any(c in target.protected for c in group.components):
        allowed &= kept == group.size
    if group.name in target.caps and group.name not in group.components:
        allowed &= 1 - kept / group.size <= target.caps[group.name] + ROUNDING
    return np.asarray(allowed)


def _raised(traceback: str) -> str:
    """The exception that a traceback ends with, in one line: what follows its last frame."""
    lines = traceback.strip().splitlines()
    last_frame = max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=-1)
    return " ".join(line.strip() for line in dropwhile(lambda line: line.startswith("    "), lines[last_frame + 1 :]))


def _check_names(graph: DependencyGraph, target: Sparsity) -> None:
    components, groups = [c.name for c in graph.components], [g.name for g in graph.groups]
    for name in (*target.caps, *target.protected):
        if name not in components and name not in groups:
            known = f"components {', '.join(map(repr, components))}; groups {', '.join(map(repr, groups))}"
            raise TargetError(f"no component or group is called {name!r}; there are {known}")
    for name in target.interfaces:
        if name not in groups:
            raise TargetError(f"no channel group is called {name!r}; there are {', '.join(map(repr, groups))}")
    for name in target.components:
        if name not in components:
            raise TargetError(f"no component is called {name!r}; there are {', '.join(map(repr, components))}")


def _owners(graph: DependencyGraph) -> list[set[str]]:
    """The components that each variable's groups touch."""
    return [{c for i in tie for c in graph.groups[i].components} for tie in graph.ties]


def _internal(owners: list[set[str]], component: str) -> IntArray:
    """The variables that touch this component alone."""
    return np.array([v for v, owner in enumerate(owners) if owner == {component}], dtype=np.int64)


def _goals(graph: DependencyGraph, target: Sparsity) -> Iterator[Goal]:
    owners, tolerance = _owners(graph), target.tolerance
    for component, rho in target.components.items():
        high = min(rho + tolerance, target.caps.get(component, math.inf))
        yield Goal(component, rho, rho - tolerance, high, _internal(owners, component))
    if target.rho is not None:
        others = [v for v, owner in enumerate(owners) if not any(owner == {c} for c in target.components)]
        rho = target.rho
        yield Goal(None, rho, rho - tolerance, rho + tolerance, np.array(others, dtype=np.int64))

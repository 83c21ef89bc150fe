"""The choices an allocation has, and their exact cost: what every strategy searches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secateur.allocation.result import AllocationResult, Evaluation
from secateur.allocation.sparsity import Sparsity
from secateur.errors import TargetError
from secateur.graph.cost import IntArray
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Group
from secateur.plan import FloatArray

# Sparsities are quotients of whole numbers: what differs by less than this is equal.
ROUNDING = 1e-12

# Candidates whose cost is computed at once; each takes a few numbers for every matrix product of the run.
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Goal:
    """One sparsity to meet.

    Attributes:
        component: whose sparsity; None for the whole model's.
        rho: the target.
        variables: indices of the variables that serve it, ascending.
    """

    component: str | None
    rho: float
    variables: IntArray


@dataclass(frozen=True, eq=False)
class Problem:
    """A target for a graph, with one integer variable for all groups that are tied together.

    A variable's value is a *level*: 0 keeps everything, each further level the next smaller width that the target's
    limits and the groups' units allow.

    Attributes:
        graph: what was traced.
        scores: group name to importance, shape (group size,).
        target: what to remove.
    """

    graph: DependencyGraph
    scores: Mapping[str, FloatArray]
    target: Sparsity

    @cached_property
    def fractions(self) -> tuple[FloatArray, ...]:
        """For every variable, the fraction of its channels kept at each level, shape (levels,), from 1 down."""
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
        return tuple(_goals(self.graph, self.target))

    def kept(self, levels: IntArray) -> IntArray:
        """Kept channels, shape (..., groups), for levels of shape (..., variables)."""
        counts, starts, variable_of = self._table
        kept: IntArray = counts[starts + levels[..., variable_of]]
        return kept

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
        costs = np.concatenate([self._cost(self.kept(piece), component) for piece in pieces])
        return np.asarray(1 - costs.reshape(levels.shape[:-1]) / dense)

    def met(self, goal: Goal, sparsity: float) -> bool:
        """Whether this sparsity is within the tolerance of the goal."""
        return abs(sparsity - goal.rho) <= self.target.tolerance + ROUNDING

    def evaluation(self, levels: IntArray, objective: float | None = None) -> Evaluation:
        """A record of one candidate, levels of shape (variables,)."""
        return Evaluation(self._coefficients(self.kept(levels)), float(self.sparsity(levels)), objective)

    def result(self, levels: IntArray, history: Sequence[Evaluation] = ()) -> AllocationResult:
        """The result for the chosen levels, shape (variables,)."""
        kept = self.kept(levels)
        dense, small = (
            self.graph.cost_model.by_component(k, of=self.target.of) for k in (self.graph.kept_vector(), kept)
        )
        shares = np.divide(dense - small, dense, out=np.zeros(len(dense)), where=dense > 0)
        return AllocationResult(
            coefficients=self._coefficients(kept),
            kept={g.name: int(n) for g, n in zip(self.graph.groups, kept, strict=True)},
            sparsity=float(self.sparsity(levels)),
            component_sparsities=dict(zip(self.graph.cost_model.component_names, shares.tolist(), strict=True)),
            target=self.target,
            history=tuple(history),
        )

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


def _fractions(groups: list[Group], target: Sparsity) -> FloatArray:
    """The fractions that tied groups may keep, from 1 down: of their units, those within the limits for all of them."""
    units = groups[0].units
    kept_units = np.arange(units, 0, -1, dtype=np.int64)
    allowed = np.ones(units, dtype=bool)
    for group in groups:
        allowed &= _allowed(group, group.size * kept_units // units, target)
    allowed[0] = True
    return kept_units[allowed] / units


def _allowed(group: Group, kept: IntArray, target: Sparsity) -> NDArray[np.bool_]:
    return np.asarray((kept >= min(target.minimum_width, group.size)) & (kept % target.round_to == 0))


def _goals(graph: DependencyGraph, target: Sparsity) -> Iterator[Goal]:
    owners = [{c for i in tie for c in graph.groups[i].components} for tie in graph.ties]
    names = [component.name for component in graph.components]
    for component, rho in target.components.items():
        if component not in names:
            raise TargetError(f"no component is called {component!r}; there are {', '.join(map(repr, names))}")
        internal = [v for v, owner in enumerate(owners) if owner == {component}]
        yield Goal(component, rho, np.array(internal, dtype=np.int64))
    if target.rho is not None:
        others = [v for v, owner in enumerate(owners) if not any(owner == {c} for c in target.components)]
        yield Goal(None, target.rho, np.array(others, dtype=np.int64))

"""Make a plan: the top-scoring channels of every group stay, as many as its coefficient leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from secateur.errors import PlanError, ScoreError, warn
from secateur.graph.conditions import honoured
from secateur.graph.cost import FloatArray, IntArray
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Consumer, Group
from secateur.graph.shortfall import shortfall_warning
from secateur.plan.pruning_plan import PruningPlan


def plan(
    graph: DependencyGraph, scores: Mapping[str, FloatArray], coefficients: Mapping[str, float] | float
) -> PruningPlan:
    """Keep the top-scoring channels of every group.

    A group keeps the number of channels nearest to ``(1 - coefficient) * size`` that its units allow, at least one
    unit, and as many in each of its blocks; more only where the code compares sizes (``if width > 8``) and would come
    to another result. Of channels with equal scores, those with lower indices stay. Linear in
    the number of parameter indices, but for sorting the scores.

    Args:
        graph: what :func:`secateur.trace` returned.
        scores: group name to importance, shape (group size,); higher stays longer.
        coefficients: group name to the fraction of its channels to remove, in [0, 1), 0 where not named; or
            one fraction for all groups.

    Raises:
        ScoreError: scores are missing, have the wrong size or aren't finite.
        PlanError: an unknown group, a coefficient outside [0, 1), or tied groups with different coefficients.

    Warns:
        SecateurWarning: one fraction was given for all groups, and the parameters fall by less than half of it; the
            message names the parameter axes that stay, and why.
    """
    importance = checked_scores(graph, scores)
    units = _kept_units(graph, coefficients)
    groups = {g.name: _top_channels(g, importance[g.name], int(u)) for g, u in zip(graph.groups, units, strict=True)}
    shapes = {spec.name: spec.shape for spec in graph.parameters}
    kept = _kept_indices(graph, groups, shapes)
    counts = np.array([len(groups[g.name]) for g in graph.groups], dtype=np.int64)
    dense = graph.kept_vector()
    if not isinstance(coefficients, Mapping):
        warning = shortfall_warning(graph, float(coefficients), {name: len(stays) for name, stays in groups.items()})
        if warning is not None:
            warn(warning)
    return PruningPlan(
        shapes=shapes,
        kept=kept,
        groups=groups,
        sizes={g.name: g.size for g in graph.groups},
        consumers=tuple(c for c in graph.consumers if _shrinks(c, kept, shapes)),
        mixing={g.name: g.mixing for g in graph.groups if g.mixing and len(groups[g.name]) < g.size},
        attributes={a.key: value for a in graph.attributes if (value := a.value(counts)) != a.value(dense)},
        tied=dict(graph.tied),
        scale=_scales(graph, groups, kept, shapes),
        whole=graph.whole,
        entry_point=graph.entry_point,
        steps=graph.steps,
    )


def checked_scores(graph: DependencyGraph, scores: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The scores of every group as float64 arrays of shape (group size,).

    Raises:
        ScoreError: a group has no scores, too few or too many, or scores that aren't finite numbers; or scores are
            given for a group that the graph doesn't have.
    """
    unknown = sorted(set(scores) - {g.name for g in graph.groups})
    if unknown:
        raise ScoreError(
            f"scores were given for {unknown[0]!r}, which is no group of this graph; were they made for another?"
        )
    return {g.name: _checked_score(g, scores) for g in graph.groups}


def _checked_score(group: Group, scores: Mapping[str, FloatArray]) -> FloatArray:
    if group.name not in scores:
        raise ScoreError(f"group {group.name!r} has no scores; a criterion must score every group of the graph")
    try:
        values = np.asarray(scores[group.name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoreError(f"the scores of group {group.name!r} are not numbers: {error}") from error
    if values.shape != (group.size,):
        raise ScoreError(
            f"group {group.name!r} needs {group.size} scores, one per channel; given: shape {values.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ScoreError(
            f"{len(bad)} of the {group.size} scores of group {group.name!r} are not finite; "
            f"the first is channel {bad[0]}: {values[bad[0]]}"
        )
    return values


def _kept_units(graph: DependencyGraph, coefficients: Mapping[str, float] | float) -> IntArray:
    """Units kept per group, shape (groups,): the nearest, or as many more as comparisons in the code take."""
    named = {g.name: coefficients for g in graph.groups} if not isinstance(coefficients, Mapping) else coefficients
    for name, coefficient in named.items():
        graph.group(name)
        if isinstance(coefficient, bool) or not isinstance(coefficient, (int, float, np.floating)):
            raise PlanError(f"the pruning coefficient of group {name!r} must be a number, not {coefficient!r}")
        if not 0 <= coefficient < 1:
            raise PlanError(f"the pruning coefficient of group {name!r} must lie in [0, 1); it is {coefficient}")
    units = np.array([_nearest_units(g, float(named.get(g.name, 0.0))) for g in graph.groups], dtype=np.int64)
    _check_ties(graph, units)
    most = np.array([g.units for g in graph.groups], dtype=np.int64)
    return honoured(graph.conditions, units, graph.ties, graph.kept_vector(), most)


def _nearest_units(group: Group, coefficient: float) -> int:
    # Half a unit is rounded up: in doubt a channel stays.
    return max(1, math.floor((1 - coefficient) * group.units + 0.5))


def _check_ties(graph: DependencyGraph, units: IntArray) -> None:
    for tie in graph.ties:
        odd = tie[units[tie] != units[tie[0]]]
        if len(odd):
            first, second = (graph.groups[i] for i in (tie[0], odd[0]))
            raise PlanError(
                f"groups {first.name!r} and {second.name!r} are tied and must keep the same fraction of channels; "
                f"the coefficients keep {units[tie[0]]}/{first.units} of one and {units[odd[0]]}/{second.units} of the "
                "other; give both the same coefficient"
            )


def _top_channels(group: Group, scores: FloatArray, units: int) -> IntArray:
    """The channels that stay, ascending: the best of every block."""
    per_block = group.size * units // group.units // group.blocks
    # lexsort is stable, so that of equal scores the lower index comes first.
    ranked = np.lexsort((-scores, group.block_of)).reshape(group.blocks, -1)
    return np.sort(ranked[:, :per_block].ravel()).astype(np.int64)


def _kept_indices(
    graph: DependencyGraph, groups: Mapping[str, IntArray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[str, int], IntArray]:
    kept: dict[tuple[str, int], IntArray] = {}
    masks: dict[tuple[str, int], NDArray[np.bool_]] = {}
    for group in graph.groups:
        stays = groups[group.name]
        leaves = np.ones(group.size, dtype=bool)
        leaves[stays] = False
        for member in group.members:
            key = (member.parameter, member.axis)
            length = shapes[member.parameter][member.axis]
            if member.indices.size == length:
                kept[key] = np.sort(member.indices[stays], axis=None)
                continue
            # What belongs to no group stays, and another group may hold a part, too.
            if key not in masks:
                masks[key] = np.ones(length, dtype=bool)
            masks[key][member.indices[leaves]] = False
            kept[key] = masks[key].nonzero()[0]
    return kept


def _shrinks(
    consumer: Consumer, kept: Mapping[tuple[str, int], IntArray], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    indices = kept.get((consumer.parameter, consumer.axis))
    return indices is not None and len(indices) < shapes[consumer.parameter][consumer.axis]


def _scales(
    graph: DependencyGraph,
    groups: Mapping[str, IntArray],
    kept: Mapping[tuple[str, int], IntArray],
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[tuple[str, int], FloatArray]:
    """Factors that make up for a division by sqrt(width): queries and keys each take the fourth root of its change."""
    scales: dict[tuple[str, int], FloatArray] = {}
    for group in graph.groups:
        stays = groups[group.name]
        if not group.rescaled or len(stays) == group.size:
            continue
        for member in group.members:
            key = (member.parameter, member.axis)
            factors = scales.setdefault(key, np.ones(shapes[member.parameter][member.axis]))
            factors[member.indices[stays]] = (len(stays) / group.size) ** 0.25
    return {key: factors[kept[key]] for key, factors in scales.items()}

"""How an agent's parameters are grouped: component by component, or over the whole model at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

import secateur
from secateur.experiments.tdmpc.reproduction.subject import Subject
from secateur.experiments.tdmpc.reproduction.whole_model import WholeModel
from secateur.graph import Group


@dataclass(frozen=True)
class Grouping:
    """One way to group.

    Attributes:
        name: what tables call it.
        sizes: channels of every group.
        shares: of every group, the fraction of the model's parameters that touch one of its channels.
        components: the most components that one group's parameters belong to.
    """

    name: str
    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    components: int


def groupings(subject: Subject) -> list[Grouping]:
    """The ways that are compared.

    Secateur's internal groups and interfaces are apart, so that a component can be pruned and the interfaces be left
    alone, or the other way round. Torch-Pruning's groups come from one dependency graph over the whole model. The last
    way is what one coefficient for all that is coupled amounts to: groups that share a parameter are merged.
    """
    graph = subject.graph
    internal = [group for group in graph.groups if not group.is_interface]
    found = [
        _of_groups("component-aware: inside components", graph, [[group] for group in internal]),
        _of_groups("component-aware: interfaces", graph, [[group] for group in graph.interfaces]),
    ]
    if find_spec("torch_pruning") is not None:
        found.append(_by_torch_pruning(subject))
    return [*found, _of_groups("whole model: coupled groups merged", graph, _merged(graph.groups))]


def _of_groups(name: str, graph: secateur.DependencyGraph, sets: Sequence[Sequence[Group]]) -> Grouping:
    total = graph.cost().parameters
    return Grouping(
        name=name,
        sizes=tuple(sum(group.size for group in each) for each in sets),
        shares=tuple(_touched(graph, each) / total for each in sets),
        components=max(len({name for group in each for name in group.components}) for each in sets),
    )


def _touched(graph: secateur.DependencyGraph, groups: Sequence[Group]) -> int:
    """Parameters with an index on some axis that belongs to a channel of these groups."""
    touched = {spec.name: np.zeros(spec.shape, dtype=bool) for spec in graph.parameters if not spec.is_buffer}
    for group in groups:
        for member in group.members:
            if member.parameter in touched:
                np.moveaxis(touched[member.parameter], member.axis, 0)[member.indices.ravel()] = True
    return sum(int(mask.sum()) for mask in touched.values())


def _merged(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that are connected through shared parameters, together."""
    names = sorted({member.parameter for group in groups for member in group.members})
    touches = np.array([[name in {m.parameter for m in group.members} for name in names] for group in groups])
    count, labels = connected_components(sparse.csr_array(touches.astype(np.int64) @ touches.T.astype(np.int64)))
    return [[group for group, label in zip(groups, labels, strict=True) if label == each] for each in range(count)]


def _by_torch_pruning(subject: Subject) -> Grouping:
    found = WholeModel(subject.model, subject.graph, subject.visits).groups()
    total = subject.graph.cost().parameters
    owner = {name: component.name for component in subject.graph.components for name in component.parameters}
    return Grouping(
        name="whole model: Torch-Pruning",
        sizes=tuple(group.size for group in found),
        shares=tuple(group.parameters / total for group in found),
        components=max(len({owner[f"{layer}.weight"] for layer in group.layers}) for group in found),
    )

"""From a solved trace to the dependency graph: groups with names and members, cost, and reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from secateur.graph.components import ComponentMap
from secateur.graph.cost import Affine, CostModel, products
from secateur.graph.entry_point import EntryPoint
from secateur.graph.graph import AttributeSize, DependencyGraph
from secateur.graph.groups import Component, Consumer, Flow, Group, Member, ParameterSpec, Role, Unprunable
from secateur.graph.labels import NONE, Labels, Noted
from secateur.graph.solve import Solution
from secateur.graph.tracer import AxisLabels, Trace

_MOST_REASONS = 4


def build_graph(
    model: nn.Module, trace: Trace, solution: Solution, components: ComponentMap, entry_point: EntryPoint
) -> DependencyGraph:
    """Assemble the graph; linear in the number of labels."""
    return _Builder(model, trace, solution, components).graph(entry_point)


@dataclass(frozen=True, eq=False)
class _Axis:
    """One parameter axis, solved: the group and channel of every index, -1 where it must stay."""

    labels: AxisLabels
    channels: Labels
    groups: Labels
    role: Role


class _Builder:
    def __init__(self, model: nn.Module, trace: Trace, solution: Solution, components: ComponentMap) -> None:
        self._trace = trace
        self._solution = solution
        self._components = components
        self._buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        self._shapes = {
            name: tuple(tensor.shape)
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
            if name not in trace.tied
        }
        consumed, produced = (self._touched(arrays) for arrays in (trace.consumed, trace.produced))
        self._axes = [self._axis(axis, consumed, produced) for axis in trace.axes]

    def _touched(self, arrays: list[Labels]) -> NDArray[np.bool_]:
        flags = np.zeros(self._trace.facts.size, dtype=bool)
        for labels in arrays:
            flags[labels[labels != NONE]] = True
        return flags

    def _axis(self, axis: AxisLabels, consumed: NDArray[np.bool_], produced: NDArray[np.bool_]) -> _Axis:
        consumes, produces = consumed[axis.labels].any(), produced[axis.labels].any()
        role = Role.PRODUCER if not consumes else Role.BOTH if produces else Role.CONSUMER
        channels = self._solution.channel_of[axis.labels]
        return _Axis(axis, channels, self._solution.group_of[channels], role)

    # --- groups -----------------------------------------------------------------------------------------------------

    def graph(self, entry_point: EntryPoint) -> DependencyGraph:
        parameters = tuple(
            ParameterSpec(name, shape, self._component(name), name in self._buffers)
            for name, shape in self._shapes.items()
        )
        return DependencyGraph(
            components=tuple(
                Component(name, tuple(p.name for p in parameters if p.component == name))
                for name in self._components.names
            ),
            groups=self._groups(),
            flows=tuple(
                Flow(self._components.names[a], self._components.names[b]) for a, b in sorted(self._trace.flows)
            ),
            unprunable=self._unprunable(),
            parameters=parameters,
            tied=dict(self._trace.tied),
            consumers=self._consumers(),
            attributes=self._attributes(),
            cost_model=self._cost_model(),
            entry_point=entry_point,
            missing_rules=tuple(self._trace.missing_rules),
        )

    def _component(self, name: str) -> str:
        return self._components.names[self._components.of(name) or 0]

    def _groups(self) -> tuple[Group, ...]:
        members: list[list[Member]] = [[] for _ in self._solution.sizes]
        for axis in self._axes:
            for group in np.unique(axis.groups[axis.groups >= 0]):
                members[group].append(self._member(axis, int(group)))
        mixing = self._mixing(by_width=False)
        by_width = self._mixing(by_width=True)
        summed = self._summed()
        used: Counter[str] = Counter()
        groups = []
        for index, parts in enumerate(members):
            stem = _stem(parts)
            used[stem] += 1
            owners = {m.component for m in parts}
            # Queries and keys alone: what makes them can be scaled, so that their product keeps its dense scale.
            only_products = not summed[index] and all(m.role is Role.PRODUCER for m in parts)
            rescaled = bool(by_width[index]) and only_products and not mixing[index]
            groups.append(
                Group(
                    name=stem if used[stem] == 1 else f"{stem}#{used[stem]}",
                    size=int(self._solution.sizes[index]),
                    members=tuple(parts),
                    components=tuple(n for n in self._components.names if n in owners),
                    blocks=int(self._solution.blocks[index].max()) + 1,
                    block_of=self._solution.blocks[index],
                    tie=self._solution.ties[index],
                    units=self._solution.units[index],
                    mixing=mixing[index] if rescaled else tuple(dict.fromkeys((*mixing[index], *by_width[index]))),
                    rescaled=rescaled,
                )
            )
        return tuple(groups)

    def _member(self, axis: _Axis, group: int) -> Member:
        places = np.flatnonzero(axis.groups == group)
        order = np.argsort(self._solution.position[axis.channels[places]], kind="stable")
        indices = places[order].reshape(int(self._solution.sizes[group]), -1)
        name = axis.labels.parameter
        return Member(name, axis.labels.axis, axis.role, self._component(name), indices)

    def _summed(self) -> NDArray[np.bool_]:
        """Whether anything but an attention's product of queries and keys sums over channels of each group."""
        flags = np.zeros(len(self._solution.sizes) + 1, dtype=bool)
        for labels in self._trace.summed:
            flags[self._solution.group_of[self._solution.channel_of[labels[labels != NONE]]]] = True
        return flags[:-1]

    def _mixing(self, *, by_width: bool) -> list[tuple[str, ...]]:
        found: list[dict[str, None]] = [{} for _ in self._solution.sizes]
        for number, note in enumerate(self._trace.facts.mixed):
            if note.by_width is not by_width or not self._trace.mixed_in_use >> number & 1:
                continue
            groups = self._solution.group_of[self._solution.channel_of[note.labels]]
            for group in np.unique(groups[groups >= 0]):
                found[group][note.reason] = None
        return [tuple(reasons) for reasons in found]

    # --- consumers, attributes ----------------------------------------------------------------------------------------

    def _consumers(self) -> tuple[Consumer, ...]:
        starts = np.array([axis.labels[0] if len(axis.labels) else -1 for axis in self._trace.axes])
        last = self._trace.axes[-1].labels[-1]
        found: dict[Consumer, None] = {}
        for labels in self._trace.consumed:
            known = labels[(labels != NONE) & (labels <= last)]
            if len(known):
                axis = self._trace.axes[int(np.searchsorted(starts, known.flat[0], side="right")) - 1]
                found[Consumer(axis.parameter, axis.axis)] = None
        return tuple(found)

    def _attributes(self) -> tuple[AttributeSize, ...]:
        found = {(path, name, position): labels for path, name, position, labels in self._trace.counted}
        return tuple(AttributeSize(*key, count=self._count(labels)) for key, labels in found.items())

    # --- cost ---------------------------------------------------------------------------------------------------------

    def _count(self, labels: Labels) -> Affine:
        """How many of these labels stay, as a function of the kept counts."""
        groups = np.where(labels == NONE, -1, self._solution.group_of[self._solution.channel_of[labels]]).ravel()
        present, times = np.unique(groups[groups >= 0], return_counts=True)
        constant = int((groups < 0).sum())
        sizes = self._solution.sizes[present]
        # Whole channels, nearly always; part of a balanced group (a chunk) counts in fractions.
        divisor = int(np.lcm.reduce(sizes // np.gcd(sizes, times))) if len(present) else 1
        numerators = tuple((int(g), int(t * divisor // n)) for g, t, n in zip(present, times, sizes, strict=True))
        return Affine(constant, numerators, divisor)

    def _cost_model(self) -> CostModel:
        names = self._components.names
        axes: dict[str, list[Affine]] = {name: [] for name in self._shapes if name not in self._buffers}
        for axis in self._axes:
            if axis.labels.parameter in axes:
                axes[axis.labels.parameter].append(self._count(axis.labels.labels))
        macs = [
            [Affine(extents.constant), *(self._count(labels) for labels in extents.arrays)]
            for _, extents in self._trace.macs
        ]
        count = len(self._solution.sizes)
        return CostModel(
            products(list(axes.values()), [names.index(self._component(name)) for name in axes], count),
            products(macs, [component for component, _ in self._trace.macs], count),
            names,
            self._solution.sizes.astype(np.int64),
        )

    # --- reasons ------------------------------------------------------------------------------------------------------

    def _unprunable(self) -> tuple[Unprunable, ...]:
        reasons = self._reasons()
        result = []
        for row, axis in enumerate(self._axes):
            stay = int((axis.groups < 0).sum())
            if stay and len(axis.groups) > 1:
                texts = tuple(reasons[row])
                result.append(
                    Unprunable(axis.labels.parameter, axis.labels.axis, stay, len(axis.groups), texts[:_MOST_REASONS])
                )
        return tuple(result)

    def _reasons(self) -> list[dict[str, None]]:
        """The reasons that reach each axis, through any label that leaves together with one of its own."""
        notes: list[Noted] = self._trace.facts.fixed
        channels = len(self._solution.fixed)
        of_note = _incidence([self._solution.channel_of[n.labels] for n in notes], channels)
        of_axis = _incidence([axis.channels[axis.groups < 0] for axis in self._axes], channels)
        reach = sparse.csr_array(of_axis @ of_note.T)
        result: list[dict[str, None]] = []
        for row in range(len(self._axes)):
            hits = np.sort(reach.indices[reach.indptr[row] : reach.indptr[row + 1]])
            result.append(dict.fromkeys(notes[i].reason for i in hits))
        return result


def _incidence(rows: list[Labels], columns: int) -> sparse.csr_array:
    indices = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    return sparse.csr_array((np.ones(len(indices), dtype=np.int64), indices, indptr), shape=(len(rows), columns))


def _stem(members: list[Member]) -> str:
    """A group's name: where its channels are made."""
    first = next((m for m in members if m.role is not Role.CONSUMER), members[0])
    return first.parameter.rpartition(".")[0] or first.parameter

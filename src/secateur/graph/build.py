"""From a solved trace to the dependency graph: groups with names and members, cost, and reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.graph.components import ComponentMap
from secateur.graph.conditions import conditions_of
from secateur.graph.cost import Affine, CostModel, products
from secateur.graph.entry_point import EntryPoint
from secateur.graph.graph import AttributeSize, DependencyGraph
from secateur.graph.groups import Component, Consumer, Flow, Group, Member, ParameterSpec, Role, Unprunable
from secateur.graph.labels import Labels
from secateur.graph.reasons import reasons_by_row
from secateur.graph.record import Trace
from secateur.graph.solution import NO_GROUP, Solution
from secateur.graph.storage import named_buffers, named_tensors
from secateur.graph.tally import tally

_MOST_REASONS = 4


def build_graph(
    model: nn.Module, trace: Trace, solution: Solution, components: ComponentMap, entry_point: EntryPoint
) -> DependencyGraph:
    """Assemble the graph; linear in the number of labels."""
    return _Builder(model, trace, solution, components).graph(entry_point)


class _Builder:
    def __init__(self, model: nn.Module, trace: Trace, solution: Solution, components: ComponentMap) -> None:
        self._trace = trace
        self._solution = solution
        self._components = components
        tensors, self._buffers = named_tensors(model), named_buffers(model).keys()
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name not in trace.tied}
        self._owner = {name: components.names[components.of(name) or 0] for name in self._shapes}
        lengths = [len(axis.labels) for axis in trace.axes]
        self._axis_of = np.repeat(np.arange(len(lengths)), lengths)
        # One entry more than there are labels: NONE, which is -1, finds no group.
        self._group_of = np.append(solution.group_of[solution.channel_of], NO_GROUP)
        self._axis_counts = self._counts([axis.labels for axis in trace.axes])

    def graph(self, entry_point: EntryPoint) -> DependencyGraph:
        sizes = self._solution.sizes.astype(np.int64)
        parameters = tuple(
            ParameterSpec(name, shape, self._owner[name], name in self._buffers) for name, shape in self._shapes.items()
        )
        owned: dict[str, list[str]] = {name: [] for name in self._components.names}
        for spec in parameters:
            owned[spec.component].append(spec.name)
        return DependencyGraph(
            components=tuple(Component(name, tuple(names)) for name, names in owned.items()),
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
            whole=tuple(self._trace.whole),
            steps=tuple(self._trace.steps),
            conditions=conditions_of(
                self._trace.facts.comparisons,
                self._solution.attributes,
                self._counts,
                sizes // np.maximum(self._solution.units, 1),
                sizes,
            ),
        )

    # --- groups -----------------------------------------------------------------------------------------------------

    def _groups(self) -> tuple[Group, ...]:
        mixing = self._mixing(by_width=False)
        by_width = self._mixing(by_width=True)
        summed = self._summed()
        order = {name: i for i, name in enumerate(self._components.names)}
        used: Counter[str] = Counter()
        groups = []
        for index, parts in enumerate(self._members()):
            stem = _stem(parts)
            used[stem] += 1
            # A part that only follows a reached one is not part of the data flow.
            owners = {m.component for m in parts if m.parameter in self._trace.reached}
            # Queries and keys alone: what makes them can be scaled, so that their product keeps its dense scale.
            only_products = not summed[index] and all(m.role is Role.PRODUCER for m in parts)
            rescaled = bool(by_width[index]) and only_products and not mixing[index]
            groups.append(
                Group(
                    name=stem if used[stem] == 1 else f"{stem}#{used[stem]}",
                    size=int(self._solution.sizes[index]),
                    members=tuple(parts),
                    components=tuple(sorted(owners, key=order.__getitem__)),
                    blocks=int(self._solution.blocks[index].max()) + 1,
                    block_of=self._solution.blocks[index],
                    tie=self._solution.ties[index],
                    units=self._solution.units[index],
                    mixing=mixing[index] if rescaled else tuple(dict.fromkeys((*mixing[index], *by_width[index]))),
                    rescaled=rescaled,
                )
            )
        return tuple(groups)

    def _members(self) -> list[list[Member]]:
        """Every group's members, in order of parameter axes."""
        solution, roles = self._solution, self._roles()
        places = np.flatnonzero(self._group_of[: len(self._axis_of)] != NO_GROUP)
        groups, axes = self._group_of[places], self._axis_of[places]
        # By axis, group and channel; of one channel in the order of places. Often that is the order of places already.
        earlier = np.cumsum(solution.sizes) - solution.sizes
        channel = earlier[groups] + solution.position[solution.channel_of[places]]
        order = np.argsort(axes * solution.sizes.sum() + channel, kind="stable")
        places, groups = places[order], groups[order]
        first_label = np.array([axis.labels[0] if len(axis.labels) else 0 for axis in self._trace.axes], dtype=np.int64)
        indices = places - first_label[axes]
        members: list[list[Member]] = [[] for _ in solution.sizes]
        starts = np.flatnonzero(np.diff(axes, prepend=-1) | np.diff(groups, prepend=-1))
        sizes = solution.sizes[groups[starts]].tolist()
        runs = zip(axes[starts].tolist(), groups[starts].tolist(), sizes, np.split(indices, starts[1:]), strict=True)
        for axis, group, size, run in runs if len(places) else ():
            of = self._trace.axes[axis]
            where = run.reshape(size, -1)
            members[group].append(Member(of.parameter, of.axis, roles[axis], self._owner[of.parameter], where))
        return members

    def _roles(self) -> list[Role]:
        """The role of every parameter axis."""
        consumes, produces = (self._touched(arrays) for arrays in (self._trace.consumed, self._trace.produced))
        return [
            Role.PRODUCER if not c else Role.BOTH if p else Role.CONSUMER
            for c, p in zip(consumes.tolist(), produces.tolist(), strict=True)
        ]

    def _touched(self, arrays: Iterable[Labels]) -> NDArray[np.bool_]:
        """Whether any of these labels, or what meets it where a weight is made from weights, is on each axis."""
        flags = np.zeros(self._trace.facts.size + 1, dtype=bool)
        for labels in _distinct(arrays):
            flags[labels] = True
        # Backwards from the weights that are used to those that they are made from, then to all made from these.
        for a, b in (*reversed(self._trace.derived), *self._trace.derived):
            flags[a] = flags[b] = flags[a] | flags[b]
        return np.bincount(self._axis_of[flags[: len(self._axis_of)]], minlength=len(self._trace.axes)) > 0

    def _summed(self) -> NDArray[np.bool_]:
        """Whether anything but an attention's product of queries and keys sums over channels of each group."""
        flags = np.zeros(len(self._solution.sizes) + 1, dtype=bool)
        for labels in _distinct(self._trace.summed):
            flags[self._group_of[labels]] = True
        return flags[:-1]

    def _mixing(self, *, by_width: bool) -> list[tuple[str, ...]]:
        notes = [
            note
            for number, note in enumerate(self._trace.facts.mixed)
            if note.by_width is by_width and self._trace.mixed_in_use >> number & 1
        ]
        mixed = tally([note.labels for note in notes], self._group_of)
        found: list[dict[str, None]] = [{} for _ in self._solution.sizes]
        for row, group in zip(mixed.rows.tolist(), mixed.values.tolist(), strict=True):
            if group != NO_GROUP:
                found[group][notes[row].reason] = None
        return [tuple(reasons) for reasons in found]

    # --- consumers, attributes ----------------------------------------------------------------------------------------

    def _consumers(self) -> tuple[Consumer, ...]:
        found: dict[Consumer, None] = {}
        for labels in _distinct(self._trace.consumed):
            known = labels[(labels >= 0) & (labels < len(self._axis_of))]
            if known.size:
                axis = self._trace.axes[self._axis_of[known.flat[0]]]
                found[Consumer(axis.parameter, axis.axis)] = None
        return tuple(found)

    def _attributes(self) -> tuple[AttributeSize, ...]:
        arrays = {key: (labels, Fraction(1)) for key, labels in self._trace.counted}
        arrays |= {key: (following.labels, following.ratio) for key, following in self._solution.attributes.items()}
        inside = _by_path(arrays) if self._trace.followers else {}
        for follower, twin in self._trace.followers.items():
            arrays |= {follower + key[len(twin) :]: arrays[key] for key in inside.get(twin, ())}
        for key, found in list(arrays.items()) if self._trace.aliases else ():
            for end in (place for place, sign in enumerate(key) if sign in ".["):
                arrays |= {alias + key[end:]: found for alias in self._trace.aliases.get(key[:end], ())}
        counts = self._counts([labels for labels, _ in arrays.values()])
        return tuple(
            AttributeSize(key, count, ratio) for (key, (_, ratio)), count in zip(arrays.items(), counts, strict=True)
        )

    # --- cost ---------------------------------------------------------------------------------------------------------

    def _counts(self, arrays: Sequence[Labels]) -> list[Affine]:
        """How many labels of each array stay, as a function of the kept counts."""
        found = tally(arrays, self._group_of)
        grouped = found.values != NO_GROUP
        constants = np.zeros(len(arrays), dtype=np.int64)
        constants[found.rows[~grouped]] = found.counts[~grouped]
        rows, groups, counts = (column[grouped] for column in (found.rows, found.values, found.counts))
        sizes = self._solution.sizes[groups]
        # Whole channels, nearly always; part of a balanced group (a chunk) counts in fractions.
        divisors = np.ones(len(arrays), dtype=np.int64)
        np.lcm.at(divisors, rows, sizes // np.gcd(sizes, counts))
        numerators = list(zip(groups.tolist(), (counts * divisors[rows] // sizes).tolist(), strict=True))
        bounds = pairwise(np.searchsorted(rows, np.arange(len(arrays) + 1)).tolist())
        return [
            Affine(constant, tuple(numerators[start:end]), divisor)
            for constant, divisor, (start, end) in zip(constants.tolist(), divisors.tolist(), bounds, strict=True)
        ]

    def _cost_model(self) -> CostModel:
        names = self._components.names
        axes: dict[str, list[Affine]] = {name: [] for name in self._shapes if name not in self._buffers}
        for axis, count in zip(self._trace.axes, self._axis_counts, strict=True):
            if axis.parameter in axes:
                axes[axis.parameter].append(count)
        macs = self._mac_terms()
        groups = len(self._solution.sizes)
        index = {name: i for i, name in enumerate(names)}
        return CostModel(
            products(list(axes.values()), [index[self._owner[name]] for name in axes], groups),
            products([[Affine(c), *f] for (_, f), c in macs.items()], [component for component, _ in macs], groups),
            names,
            self._solution.sizes.astype(np.int64),
        )

    def _mac_terms(self) -> dict[tuple[int, tuple[Affine, ...]], int]:
        """Component and factors of every product to its constant factor; equal products, as in a loop, are added up."""
        macs = self._trace.macs
        counts = iter(self._counts([labels for _, extents in macs for labels in extents.arrays]))
        terms: Counter[tuple[int, tuple[Affine, ...]]] = Counter()
        for component, extents in macs:
            terms[component, tuple(islice(counts, len(extents.arrays)))] += extents.constant
        return terms

    # --- reasons ------------------------------------------------------------------------------------------------------

    def _unprunable(self) -> tuple[Unprunable, ...]:
        own = len(self._axis_of)
        places = np.flatnonzero(self._group_of[:own] == NO_GROUP)
        rows, channel_of = self._axis_of[places], self._solution.channel_of
        count = len(self._trace.axes)
        reasons = reasons_by_row(self._trace.facts.fixed, channel_of, rows, channel_of[places], count, _MOST_REASONS)
        return tuple(
            Unprunable(axis.parameter, axis.axis, stay, len(axis.labels), texts)
            for axis, stay, texts in zip(
                self._trace.axes, np.bincount(rows, minlength=count).tolist(), reasons, strict=True
            )
            if stay and len(axis.labels) > 1
        )


def _distinct(arrays: Iterable[Labels]) -> Iterable[Labels]:
    """Each array object once: a loop names the same ones again and again."""
    return {id(labels): labels for labels in arrays}.values()


def _by_path(keys: Iterable[str]) -> dict[str, list[str]]:
    """Every path that some of these dotted names lie in, to those names."""
    inside: dict[str, list[str]] = {}
    for key in keys:
        path = key.rpartition(".")[0]
        while path:
            inside.setdefault(path, []).append(key)
            path = path.rpartition(".")[0]
    return inside


def _stem(members: list[Member]) -> str:
    """A group's name: where its channels are made."""
    first = next((m for m in members if m.role is not Role.CONSUMER), members[0])
    return first.parameter.rpartition(".")[0] or first.parameter

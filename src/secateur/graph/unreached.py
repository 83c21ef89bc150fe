"""Parameters that the entry point never uses: experts that weren't picked, target networks, heads for training only.

Nothing is known of how they are used. A part that is a copy of a reached one (its twin, see ``twins``) follows it: it
loses the same indices on every axis, and so goes on fitting wherever its twin fits. All others stay whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.graph.expression import Count
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Role
from secateur.graph.labels import Labels
from secateur.graph.parts import Parts, upwards
from secateur.graph.record import AxisLabels, Trace
from secateur.graph.twins import Twin, Twins

_REASON = "not reached by the entry point"
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Unreached:
    """What became of the parts that the entry point never uses.

    Attributes:
        followers: path of each that follows a reached part, to its twin.
        whole: path of each that holds parameters and stays whole, to the width of what it seems to read.
    """

    followers: dict[str, Twin] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)

    def warning(self, graph: DependencyGraph, protected: Collection[str]) -> str:
        """What the user should know of them, in a few sentences; empty where nothing is likely to break.

        Args:
            graph: the graph of the same trace.
            protected: paths that the user protects and so knows of.
        """
        shrinking = {(m.parameter, m.axis): m.role for group in graph.groups for m in group.members}
        shapes = {spec.name: spec.shape for spec in graph.parameters}
        read = {shapes[name][axis] for (name, axis), role in shrinking.items() if role is not Role.PRODUCER}
        doubtful = [
            f"{path!r} (like {twin.path!r})"
            for path, twin in self.followers.items()
            if shrinking.keys() & set(twin.doubtful) and not _under(path, protected)
        ]
        whole = [repr(path) for path, width in self.whole.items() if width in read and not _under(path, protected)]
        sentences = []
        if whole:
            sentences.append(f"These stay whole, and won't fit if they read channels that leave: {_listed(whole)}")
        if doubtful:
            sentences.append(
                f"These go like a sibling, though nothing shows that they read the same: {_listed(doubtful)}"
            )
        if not sentences:
            return ""
        return (
            f"the entry point doesn't reach all of the model. {'. '.join(sentences)}. Reach them with run= (or other "
            "inputs), or protect them and what they read"
        )


def settle_unreached(model: nn.Module, trace: Trace) -> Unreached:
    """Let unreached parts of a finished trace follow their twins, and pin the others; also axes of length one."""
    result = Unreached()
    reached = [axis for axis in trace.axes if axis.parameter in trace.reached]
    if len(reached) < len(trace.axes):
        _Settling(model, trace, result).run()
    touched = _touched(trace)
    for axis in reached:
        if len(axis.labels) == 1:
            trace.facts.fix(axis.labels, "an axis of length one")
        elif not touched[axis.labels].all():
            trace.facts.fix(axis.labels[~touched[axis.labels]], f"indices {_REASON}")
    return result


def _touched(trace: Trace) -> NDArray[np.bool_]:
    """Whether the run has shown anything of each label; not of the rows of a position table beyond its inputs, say."""
    facts = trace.facts
    arrays = chain(
        *facts.equal,
        (note.labels for note in (*facts.fixed, *facts.mixed)),
        (entry.labels for constraint in facts.counts for entry in constraint.entries),
        (labels for _, extents in trace.macs for labels in extents.arrays),
        *(trace.consumed, trace.produced, trace.summed),
        (labels for _, labels in trace.counted),
        (atom.labels for e in facts.equations for atom in e.size.atoms() if isinstance(atom, Count)),
    )
    return _flagged(arrays, facts.size)


def _flagged(arrays: Iterable[Labels], size: int) -> NDArray[np.bool_]:
    flags = np.zeros(size + 1, dtype=bool)  # NONE, which is -1, is the last
    for labels in {id(labels): labels for labels in arrays}.values():
        flags[labels] = True
    return flags[:-1]


class _Settling:
    """Goes through a model's parts from the outside in."""

    def __init__(self, model: nn.Module, trace: Trace, result: Unreached) -> None:
        self._trace = trace
        self._result = result
        self._parts = Parts(model, trace)
        self._reasons: dict[str, str] = {}
        self._axes: dict[str, list[AxisLabels]] = {}
        for axis in trace.axes:
            self._axes.setdefault(axis.parameter, []).append(axis)

    def run(self) -> None:
        """Settle every unreached axis."""
        # Twins are looked for in what the run has shown, before anything is added to it.
        self._find("", Twins(self._parts, self._trace))
        settled = {mine for path in self._result.followers for mine, _ in self._pairs(path)} | self._trace.reached
        for axis in self._trace.axes:
            if axis.parameter not in settled:
                self._pin(axis)
        for path in self._result.followers:
            self._follow(path)

    def _find(self, path: str, twins: Twins) -> None:
        """Find the twins of the largest unreached parts in a part of which something is reached."""
        parts = self._parts
        for below in parts.children[path]:
            if below in parts.reached and below in parts.unreached:
                self._find(below, twins)
            elif below in parts.unreached:
                found = self._twins_in(below, twins)
                self._result.followers.update(found)
                if not found and parts.holds_parameters(below):
                    self._result.whole[below] = parts.width(below)

    def _twins_in(self, path: str, twins: Twins) -> dict[str, Twin]:
        """The twin of an unreached part, or of every part in it; of some alone would break what is whole as yet."""
        found = twins.of(path)
        if isinstance(found, Twin):
            return {path: found}
        inside: dict[str, Twin] = {}
        if found:
            self._reasons[path] = found
            return inside
        for below in self._parts.children[path]:
            if below in self._parts.unreached:
                deeper = self._twins_in(below, twins) if below in self._parts.modules else {}
                if not deeper:
                    return {}
                inside.update(deeper)
        return inside

    def _pin(self, axis: AxisLabels) -> None:
        self._trace.facts.fix(axis.labels, _REASON)
        for path in upwards(axis.parameter):
            if path in self._reasons:
                self._trace.facts.fix(axis.labels, f"{path!r} {self._reasons[path]}")

    # --- following ----------------------------------------------------------------------------------------------------

    def _pairs(self, path: str) -> Iterator[tuple[str, str]]:
        """First names of corresponding tensors of a follower and of its twin."""
        inside = self._parts.inside
        for mine, theirs in zip(inside[path], inside[self._result.followers[path].path], strict=True):
            yield self._parts.first(mine), self._parts.first(theirs)

    def _follow(self, path: str) -> None:
        """The same indices leave from both, each axis does with them what its twin's does, and attributes follow."""
        trace, twin = self._trace, self._result.followers[path].path
        consumed, produced = self._roles
        for mine, theirs in self._pairs(path):
            for axis, other in zip(self._axes.get(mine, ()), self._axes.get(theirs, ()), strict=True):
                trace.facts.equate(axis.labels, other.labels, f"a copy of {twin!r}")
                for arrays, flags in ((trace.consumed, consumed), (trace.produced, produced)):
                    part = flags[other.labels]
                    if part.any():
                        # The twin's come first: it is what activations meet.
                        arrays.append(np.concatenate([other.labels[part], axis.labels[part]]))
        if path in self._parts.modules:
            trace.followers[path] = twin

    @cached_property
    def _roles(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each label is consumed, and whether it is produced, by what the run has shown."""
        size = self._trace.facts.size
        return _flagged(self._trace.consumed, size), _flagged(self._trace.produced, size)


def _under(path: str, above: Collection[str]) -> bool:
    return any(one in above for one in upwards(path))


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more

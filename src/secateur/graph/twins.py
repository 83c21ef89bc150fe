"""Twins: which reached part of a model an unreached one is a copy of, and how far that can be known.

Two kinds of evidence make a reached part of the same structure the twin of an unreached one:

- their names: a copy of something is called after it, ``target_critic`` after ``critic``;
- a container: in an ``nn.ModuleList`` or the like they stand side by side, as the experts of a mixture do. All reached
  siblings must then meet the same channels. In a chain, where each meets its own, it is unknown what one that isn't
  reached would meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.graph.copy_names import Kinship, is_marked, kinship
from secateur.graph.labels import Labels
from secateur.graph.parts import Parts, Size, joined
from secateur.graph.record import AxisLabels, Trace
from secateur.graph.solve import connected

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)

Interface: TypeAlias = list[tuple[AxisLabels, NDArray[np.bool_]]]
"""The axes of a part, and which of their indices belong to channels that can leave and that other parts have too."""


@dataclass(frozen=True)
class Twin:
    """A reached part that an unreached one is a copy of.

    Attributes:
        path: its dotted path.
        doubtful: its axes (parameter, axis) whose channels other parts have too, if nothing confirms that the copy
            meets the same: neither their names nor a second sibling that does.
    """

    path: str
    doubtful: tuple[tuple[str, int], ...] = ()


class Twins:
    """Finds twins in a trace that is complete but for what is unreached."""

    def __init__(self, parts: Parts, trace: Trace) -> None:
        self._parts = parts
        self._trace = trace
        self._reached: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self._verdicts: dict[tuple[str, ...], str] = {}
        self._interfaces: dict[str, Interface] = {}

    def of(self, path: str) -> Twin | str:
        """The twin of a part; without one, why, in words (empty if there is nothing to say)."""
        return self._by_name(path) or self._by_container(path)

    # --- names --------------------------------------------------------------------------------------------------------

    def _by_name(self, path: str) -> Twin | str:
        parts = self._parts
        small = parts.is_small(path)
        related: dict[Kinship, list[str]] = {Kinship.NAMED: [], Kinship.POSSIBLE: []}
        for other in (parts.reached_by_size if is_marked(path) else self._marked).get(parts.size(path), ()):
            kin = kinship(path, other, small=small)
            if kin and parts.structure(path) == parts.structure(other) and parts.same_numbers(path, other):
                related[kin].append(other)
        found = related[Kinship.NAMED] or related[Kinship.POSSIBLE]
        if len(found) > 1:
            return f"may be a copy of {found[0]!r} or of {found[1]!r}; reach it with run=, or name it after one of them"
        return Twin(found[0]) if found else ""

    @cached_property
    def _marked(self) -> dict[Size, list[str]]:
        """Those of the reached parts whose names may be those of copies."""
        marked = ((size, list(filter(is_marked, paths))) for size, paths in self._parts.reached_by_size.items())
        return {size: paths for size, paths in marked if paths}

    # --- containers ---------------------------------------------------------------------------------------------------

    def _by_container(self, path: str) -> Twin | str:
        segments = path.split(".")
        for depth in reversed(range(len(segments))):
            parent = ".".join(segments[:depth])
            container = self._parts.modules.get(parent)
            if isinstance(container, _CONTAINERS):
                siblings = self._siblings(path, parent, container, ".".join(segments[depth + 1 :]))
                if siblings:
                    return self._judged(siblings)
        return ""

    def _siblings(self, path: str, parent: str, container: nn.Module, rest: str) -> list[str]:
        """Reached parts at the place of ``path`` under a container's other keys, like it; the nearest first."""
        keys = [*container._modules, *container._parameters]
        here = keys.index(path.removeprefix(f"{parent}.").split(".")[0])
        if (parent, rest) not in self._reached:
            places = [joined(joined(parent, key), rest) for key in keys]
            self._reached[parent, rest] = [(i, other) for i, other in enumerate(places) if other in self._parts.reached]
        structure = self._parts.structure(path)
        nearest = sorted(self._reached[parent, rest], key=lambda item: (abs(item[0] - here), item))
        found = [(place, other) for place, other in nearest if self._parts.structure(other) == structure]
        return [other for place, other in found if self._parts.same_numbers(path, other, apart=place - here)]

    def _judged(self, siblings: list[str]) -> Twin | str:
        if len(siblings) == 1:
            shared = [(axis.parameter, axis.axis) for axis, flags in self._interface(siblings[0]) if flags.any()]
            return Twin(siblings[0], tuple(shared))
        everyone = tuple(sorted(siblings))
        if everyone not in self._verdicts:
            self._verdicts[everyone] = self._differing(everyone)
        return self._verdicts[everyone] or Twin(siblings[0])

    def _differing(self, siblings: tuple[str, ...]) -> str:
        """Whether reached siblings meet different channels, in words."""
        channel_of = self._channels[0]
        first = self._interface(siblings[0])
        for other in siblings[1:]:
            for (mine, open_mine), (theirs, open_theirs) in zip(first, self._interface(other), strict=True):
                differ = channel_of[mine.labels] != channel_of[theirs.labels]
                if (differ & (open_mine | open_theirs)).any():
                    return (
                        f"has siblings that meet different channels ({siblings[0]!r}, {other!r}), so that those it "
                        "meets are unknown; reach it with run="
                    )
        return ""

    # --- channels -----------------------------------------------------------------------------------------------------

    def _interface(self, path: str) -> Interface:
        if path not in self._interfaces:
            channel_of, fixed, times = self._channels
            axes = [axis for name in self._parts.inside[path] for axis in self._axes.get(self._parts.first(name), ())]
            channels = np.concatenate([np.zeros(0, dtype=np.int64), *(channel_of[axis.labels] for axis in axes)])
            own, inverse, here = np.unique(channels, return_inverse=True, return_counts=True)
            flags = ((here < times[own]) & ~fixed[own])[inverse]
            cuts = np.cumsum([len(axis.labels) for axis in axes])[:-1]
            self._interfaces[path] = list(zip(axes, np.split(flags, cuts), strict=True))
        return self._interfaces[path]

    @cached_property
    def _axes(self) -> dict[str, list[AxisLabels]]:
        found: dict[str, list[AxisLabels]] = {}
        for axis in self._trace.axes:
            found.setdefault(axis.parameter, []).append(axis)
        return found

    @cached_property
    def _channels(self) -> tuple[Labels, NDArray[np.bool_], Labels]:
        """Channel of each label; whether each channel must stay; how many indices of parameters each has."""
        channel_of = connected(self._trace.facts)
        count = int(channel_of.max(initial=-1)) + 1
        fixed = np.zeros(count, dtype=bool)
        for note in self._trace.facts.fixed:
            fixed[channel_of[note.labels]] = True
        of_parameters = sum(len(axis.labels) for axis in self._trace.axes)
        return channel_of, fixed, np.bincount(channel_of[:of_parameters], minlength=count)

"""What one traced run taught: raw material for the graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from secateur.graph.labels import Facts, Labels
from secateur.graph.rules import Extents


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class AxisLabels:
    """The labels of one axis of one parameter or buffer."""

    parameter: str
    axis: int
    labels: Labels


Step = tuple[str, str, tuple[torch.Size, ...]]
"""Of one operator: its name, where it ran, and the shapes of its outputs."""


@dataclass(slots=True)
class Trace:
    """Everything one run taught: raw material for the graph."""

    facts: Facts = field(default_factory=Facts)
    axes: list[AxisLabels] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    macs: list[tuple[int, Extents]] = field(default_factory=list)
    consumed: list[Labels] = field(default_factory=list)
    produced: list[Labels] = field(default_factory=list)
    derived: list[tuple[Labels, Labels]] = field(default_factory=list)
    """Labels that meet where a weight is made from weights: what consumes one consumes the other."""
    summed: list[Labels] = field(default_factory=list)
    """Labels summed over by anything but an attention's product of queries and keys."""
    counted: list[tuple[str, Labels]] = field(default_factory=list)
    """Attributes of torch's own modules, by dotted path, and the labels that they count."""
    flows: dict[tuple[int, int], None] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    missing_rules: dict[str, None] = field(default_factory=dict)
    mixed_in_use: int = 0
    """Bit set of the mixing operations whose results are used; attention weights are often computed and dropped."""
    aliases: dict[str, dict[str, None]] = field(default_factory=dict)
    """Paths of attributes, lists and dictionaries, to other paths that lead to the same ones."""
    followers: dict[str, str] = field(default_factory=dict)
    """Dotted paths of modules that aren't reached, to those of the modules whose channels they follow."""
    splits: dict[str, list[Labels]] = field(default_factory=dict)
    """Places where an axis is split into blocks that could leave whole, and what is split there."""
    whole: dict[str, None] = field(default_factory=dict)
    """Places where whole blocks leave, though indices inside them could."""
    dtypes: set[torch.dtype] = field(default_factory=set)
    """Floating-point types in which operators with labels gave their results."""
    steps: list[Step] = field(default_factory=list)
    """The operators with labels that ran: by these, two runs can be told apart."""

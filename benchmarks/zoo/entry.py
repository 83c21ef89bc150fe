"""What the zoo knows of a model: how to build it, what to feed it, and what its peers must be told."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

CLASSES = 7
"""Outputs of every classifier: a number that no layer's width equals by accident."""

Run = Callable[[Any, Any], Any]
"""Exercises a model with its inputs and returns the outputs whose sizes stay."""


@dataclass(frozen=True)
class PeerSettings:
    """What Torch-Pruning's own examples tell it of such a model; Secateur is told nothing.

    Attributes:
        outputs: dotted names of the modules that make the outputs, ignored by the pruner; by default every Linear and
            convolution with :data:`CLASSES` outputs.
        channel_groups: dotted name of a module to the number of equal pieces its outputs are cut into.
        prune_heads: remove whole heads and leave their width, as for rotary embeddings; else their width is pruned.
        round_to: channels are kept in multiples of this.
        output: what of the model's result is followed; the whole of it by default.
    """

    outputs: tuple[str, ...] = ()
    channel_groups: dict[str, int] = field(default_factory=dict)
    prune_heads: bool = False
    round_to: int | None = None
    output: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Attributes:
        name: unique, beginning with the family: ``timm/swin``.
        build: makes the model with random weights; called after the seed was set.
        inputs: makes the inputs, a tuple (positional) or a dict (keywords).
        run: exercises the model with the inputs, where a plain call isn't what its users do.
        peer: settings for Torch-Pruning.
        heads_first: whether fused projections are laid out head by head, (heads, 3, width), not part by part.
        across_channels: whether attention is between channels, so that queries and keys may keep different ones.
        train: leave the model in training mode.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    run: Run | None = None
    peer: PeerSettings = field(default_factory=PeerSettings)
    heads_first: bool = False
    across_channels: bool = False
    train: bool = False

    @property
    def family(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]


def library(name: str, package: str | None = None) -> Any:
    """The module ``name`` of a library that only the zoo needs, imported now."""
    return importlib.import_module(name, package)

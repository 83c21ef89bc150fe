"""The two contestants behind one interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from .checks import Check
from .entry import Entry, library

COEFFICIENT = 0.5
"""The fraction of the channels that every case asks to remove."""


@dataclass(frozen=True)
class Pruned:
    """What a contestant made of a model.

    Attributes:
        model: the smaller one.
        inside: whatever the contestant needs for its other answers.
        reasons: why parameter axes stay, with the number of axes, most common first.
        missing_rules: operators that it has no rule for.
        warnings: what it told its user.
    """

    model: nn.Module
    inside: Any = None
    reasons: list[tuple[str, int]] = field(default_factory=list)
    missing_rules: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Library(Protocol):
    """A contestant."""

    name: str

    def version(self) -> str:
        """What its results are kept under."""

    def prune(self, entry: Entry, model: nn.Module, inputs: Any) -> Pruned:
        """Remove half the channels; this is what is timed. ``model`` may be changed."""

    def equality(self, entry: Entry, pruned: Pruned, inputs: Any) -> Check:
        """Whether the smaller model equals the dense one with the removed channels masked, where nothing mixes."""

    def unscaled(self, pruned: Pruned, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """A smaller model's parameter without the factors that the library multiplied it by."""

    def reloaded(self, entry: Entry, pruned: Pruned, folder: Path) -> nn.Module:
        """The smaller model, saved and loaded again."""

    def patch(self, entry: Entry, pruned: Pruned) -> bool:
        """Correct by hand what the library's own examples correct, for a model that fails; whether anything was."""


def library_called(name: str) -> Library:
    """The contestant ``name``; it is imported now."""
    made: Library = library(f".{MODULES[name]}", package=__package__).LIBRARY
    return made


MODULES = {"secateur": "secateurs", "torch-pruning": "peer"}
"""Name of a contestant to the module here that knows it."""

"""The runs of a reproduction: which there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.runs import PARTS
from secateur.experiments.tdmpc.reproduction.settings import Settings


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        kind: a method to a sparsity, a part alone, or PyTorch's masks.
        name: of the method or the part.
        value: the sparsity, or the fraction of channels or rows.
        refit: whether to refit.
    """

    kind: Literal["method", "part", "masked"]
    name: str
    value: float
    refit: bool

    @property
    def file(self) -> str:
        """What the name of its result's file begins with."""
        if self.kind == "masked":
            return f"masked-{self.value:g}"
        only = "only-" if self.kind == "part" else ""
        return f"{only}{self.name}-{self.value:g}-{'refit' if self.refit else 'plain'}"


def runs_of(settings: Settings) -> Iterator[Run]:
    """All runs, in order. Methods whose package isn't installed are left out."""
    methods = [name for name in settings.methods if not METHODS[name].missing]
    for refit in (False, True):
        for target in settings.sparsities:
            chosen = [name for name in methods if refit or not METHODS[name].needs_refit]
            yield from (Run("method", name, target, refit) for name in chosen)
    for refit in (False, True):
        for part in PARTS:
            yield from (Run("part", part, level, refit) for level in settings.levels)
    yield from (Run("masked", "ln-structured", fraction, False) for fraction in settings.masked)

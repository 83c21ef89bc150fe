"""When much less leaves than was asked for: which parameter axes stay, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.graph import algebra
from secateur.graph.describe import without_module
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Unprunable

_SHOWN = 3
_MOST_REASONS = 2

_ENOUGH = 0.5
"""A fall by less than this part of what was asked for is a shortfall."""

_OF_INPUTS_AND_OUTPUTS = (algebra.NO_INDEX, "output of the entry point")


@dataclass(frozen=True)
class _Stay:
    """One parameter axis that keeps its parameter from shrinking: where, why, and how many numbers stay with it."""

    where: str
    reasons: tuple[str, ...]
    parameters: int

    @property
    def is_natural(self) -> bool:
        """Whether it stays because it is an input's or output's; of two axes of one parameter the other says more."""
        return all(reason.startswith(_OF_INPUTS_AND_OUTPUTS) for reason in self.reasons)


def shortfall_warning(graph: DependencyGraph, asked: float, kept: Mapping[str, int]) -> str | None:
    """Words for the user if much less leaves than was asked for, because parameter axes must stay; None if enough does.

    Args:
        graph: what was traced.
        asked: the fraction of the parameters, or of every group's channels, that was to leave, in [0, 1).
        kept: group name to the number of channels that stay; a group not named keeps all.

    Returns:
        If the parameters fall by less than half of ``asked``, and not for want of channels that leave (a small fraction
        may round to none): by how much, which parameter axes stay (those with most parameters first), and why.
    """
    dense, now = graph.cost().parameters, graph.cost(kept).parameters
    sparsity = 1 - now / dense
    if sparsity >= _ENOUGH * min(asked, _fraction_of_channels(graph, asked, kept)):
        return None
    return (
        f"only {sparsity:.1%} of the parameters leave where {asked:.1%} was asked for. {what_stays(graph, asked, kept)}"
    )


def _fraction_of_channels(graph: DependencyGraph, asked: float, kept: Mapping[str, int]) -> float:
    """The fraction of all groups' channels that leaves; where there are no groups, what was asked for."""
    size = sum(group.size for group in graph.groups)
    return 1 - sum(kept.get(group.name, group.size) for group in graph.groups) / size if size else asked


def unreachable(graph: DependencyGraph, asked: float, of: str) -> str | None:
    """What stays, in words, if even the narrowest model doesn't reach a sparsity; None if it does.

    Args:
        graph: what was traced.
        asked: the sparsity, in (0, 1).
        of: of ``"params"`` or ``"macs"``.
    """
    narrowest = {group.name: group.step for group in graph.groups}
    dense, smallest = graph.cost(), graph.cost(narrowest)
    before, after = (c.parameters if of == "params" else c.macs for c in (dense, smallest))
    return what_stays(graph, asked, narrowest) if before and 1 - after / before < asked else None


def what_stays(graph: DependencyGraph, asked: float, kept: Mapping[str, int]) -> str:
    """The parameter axes that keep most parameters from leaving, and why, in a sentence."""
    stays = sorted(_gathered(_stays(graph, asked, kept)), key=lambda s: (-s.parameters, s.is_natural))
    if not stays:
        return "Every parameter shrinks by some part; print(graph) lists the groups"
    shown = [f"{s.where} ({s.parameters:,} parameters): {', '.join(s.reasons)}" for s in stays[:_SHOWN]]
    more = [f"{len(stays) - _SHOWN} more"] if len(stays) > _SHOWN else []
    return f"What stays: {'; '.join((*shown, *more))}. print(graph) lists all of it"


def _stays(graph: DependencyGraph, asked: float, kept: Mapping[str, int]) -> Iterator[_Stay]:
    """The axes of all parameters that shrink by less than enough, with the parameters that stay."""
    parameters = [spec for spec in graph.parameters if not spec.is_buffer]
    pinned: dict[str, list[Unprunable]] = {}
    for item in graph.unprunable:
        pinned.setdefault(item.parameter, []).append(item)
    sizes = graph.cost_model.parameter_terms.terms(graph.kept_vector(kept))
    for spec, size in zip(parameters, sizes.tolist(), strict=True):
        if size <= (1 - _ENOUGH * asked) * np.prod(spec.shape):
            continue
        for item in pinned.get(spec.name, ()):
            reasons = tuple(without_module(reason) for reason in item.reasons[:_MOST_REASONS])
            yield _Stay(f"{item.parameter}[{item.axis}]", reasons, size * item.count // item.size)


def _gathered(stays: Iterator[_Stay]) -> list[_Stay]:
    """Axes alike but for numbers in their names, those of the layers of a deep model, as one."""
    alike: dict[tuple[str, ...], list[_Stay]] = {}
    for stay in stays:
        alike.setdefault(tuple(_without_numbers(text) for text in (stay.where, *stay.reasons)), []).append(stay)
    return [
        _Stay(
            same[0].where if len(same) == 1 else f"{same[0].where} and {len(same) - 1} alike",
            same[0].reasons,
            sum(stay.parameters for stay in same),
        )
        for same in alike.values()
    ]


def _without_numbers(text: str) -> str:
    """A dotted name or a reason without what tells one layer from the next; the axis, in brackets, stays."""
    return re.sub(r"(?<!\[)\b\d+\b", "*", text)

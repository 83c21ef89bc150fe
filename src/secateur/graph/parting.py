"""Where two runs of one entry point part: the first operator that only one of them took."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from secateur.graph.record import Step

ADVICE = (
    "make the entry point do the same every time: no counter, cache or file that one run leaves to the next, and "
    "random numbers only of the global generators, which start alike"
)
"""What to do about an entry point that doesn't do the same twice."""


def parting(first: Sequence[Step], second: Sequence[Step]) -> str | None:
    """Where a second run takes another operator, or one of other shapes, in words; None if it takes the same."""
    for number, (a, b) in enumerate(zip_longest(first, second), start=1):
        if a != b:
            return f"from operator {number} on: {described(a)} in the one, {described(b)} in the other"
    return None


def described(step: Step | None) -> str:
    """An operator with its place and the shapes of what it gives."""
    if step is None:
        return "none"
    name, where, shapes = step
    return f"{name} in {where} (giving {', '.join(str(tuple(shape)) for shape in shapes)})"

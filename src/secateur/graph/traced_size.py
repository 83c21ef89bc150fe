"""Integers that remember what they count: the sizes that ``tensor.shape`` gives while a model is traced.

Products and exact quotients with plain integers are followed. A size that becomes a number (a scale, say) makes its
labels mixed: then removing is not the same as zeroing. Any other arithmetic pins them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.graph.labels import Labels
from secateur.graph.rules.base import names
from secateur.graph.tracer import Tracer


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What an integer counts: ``times / over`` times the kept ones among ``labels``."""

    labels: Labels
    times: int
    over: int
    tracer: Tracer

    def note_number(self, what: str) -> None:
        """The size is used as a number (a scale, say), not as a size: removing is then not the same as zeroing."""
        self.tracer.mix(self.labels, f"width used as a number by {what} ({self.tracer.where()})")

    def pin(self, what: str) -> None:
        """The size goes into arithmetic that can't be followed."""
        self.tracer.facts.fix(self.labels, f"width goes through {what} ({self.tracer.where()})")


class TracedSize(int):
    """An ``int`` that remembers which labels it counts, through products and exact quotients with plain integers."""

    source: Source

    def __new__(cls, value: int, source: Source) -> TracedSize:
        """An integer of this value that counts ``source``."""
        size = super().__new__(cls, value)
        size.source = source
        return size

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def __copy__(self) -> int:
        return int(self)

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)

    def _scaled(self, times: int, over: int) -> TracedSize:
        source = self.source
        value = int(self) * times // over
        return TracedSize(value, Source(source.labels, source.times * times, source.over * over, source.tracer))

    def __mul__(self, other: Any) -> Any:
        if type(other) is int and other > 0:
            return self._scaled(other, 1)
        if isinstance(other, float):
            return self._times(other)
        return (
            self._opaque(int.__mul__(self, other), "multiplication", other)
            if isinstance(other, int)
            else NotImplemented
        )

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if type(other) is int and other > 0 and int(self) % other == 0:
            return self._scaled(1, other)
        return (
            self._opaque(int.__floordiv__(self, other), "division", other) if isinstance(other, int) else NotImplemented
        )

    def __add__(self, other: Any) -> Any:
        if isinstance(other, TracedSize) and self._plain and other._plain:
            labels = np.concatenate([self.source.labels, other.source.labels])
            return TracedSize(int(self) + int(other), Source(labels, 1, 1, self.source.tracer))
        if type(other) is int and other == 0:
            return self
        return self._opaque(int.__add__(self, other), "addition", other)

    __radd__ = __add__

    @property
    def _plain(self) -> bool:
        return self.source.times == self.source.over == 1

    def _times(self, other: float) -> TracedFloat:
        self.source.note_number("multiplication")
        traced = TracedFloat(int(self) * other)
        traced.source = self.source
        return traced

    def _opaque(self, value: Any, what: str, other: Any) -> Any:
        if value is not NotImplemented:
            for source in _sources(self, other):
                source.pin(what)
        return value

    def __eq__(self, other: object) -> bool:
        self._note_comparison(other)
        return int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        self._note_comparison(other)
        return int.__ne__(self, other)

    __hash__ = int.__hash__

    def _note_comparison(self, other: object) -> None:
        """A test for one number may come out otherwise once channels are gone."""
        if type(other) is int and int(self) == other and not self.source.tracer.in_torch_module:
            self.source.pin(f"a comparison with {other}")


_OPAQUE = names(
    "sub rsub mod rmod divmod rdivmod rfloordiv neg abs invert lshift rlshift rshift rrshift and rand or ror xor rxor"
)
_NUMERIC = names("float truediv rtruediv pow rpow")


def _sources(*operands: Any) -> list[Source]:
    return [operand.source for operand in operands if isinstance(operand, (TracedSize, TracedFloat))]


class TracedFloat(float):
    """A number computed from a traced size; made an integer again, it may serve as a size that can't be followed."""

    source: Source


def _opaque_operator(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)

    def operator(self: TracedSize, *others: Any) -> Any:
        result = plain(self, *others)
        if result is not NotImplemented:
            for source in _sources(self, *others):
                source.pin(name.strip("_"))
        return result

    return operator


def _numeric_operator(name: str) -> Callable[..., Any]:
    plain = getattr(int, name)

    def operator(self: TracedSize, *others: Any) -> Any:
        result = plain(self, *others)
        if result is NotImplemented and len(others) == 1 and isinstance(others[0], float):
            result = getattr(float, name)(float(int(self)), others[0])
        if result is NotImplemented:
            return result
        for source in _sources(self, *others):
            source.note_number(name.strip("_"))
        if name == "__float__":
            return result
        traced = TracedFloat(result)
        traced.source = self.source
        return traced

    return operator


def _rounding_operator(name: str) -> Callable[..., Any]:
    plain = getattr(float, name)

    def operator(self: TracedFloat, *others: Any) -> Any:
        self.source.pin(f"{name.strip('_')} of a number")
        return plain(self, *others)

    return operator


for _name in _OPAQUE:
    setattr(TracedSize, f"__{_name}__", _opaque_operator(f"__{_name}__"))
for _name in _NUMERIC:
    setattr(TracedSize, f"__{_name}__", _numeric_operator(f"__{_name}__"))
for _name in ("int", "trunc", "floor", "ceil", "round"):
    setattr(TracedFloat, f"__{_name}__", _rounding_operator(f"__{_name}__"))

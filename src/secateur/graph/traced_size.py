"""Integers that remember what they count: sizes from ``tensor.shape``, and attributes of modules, while a model runs.

Sums, differences, products and exact quotients are followed. A size that becomes a number (a scale, say) makes its
labels mixed: then removing is not the same as zeroing. Any other arithmetic pins what the size counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.graph.expression import Count, Expression
from secateur.graph.labels import Labels, SizeEquation
from secateur.graph.rules.base import names
from secateur.graph.tracer import Tracer


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What an integer counts, and in which run."""

    size: Expression
    tracer: Tracer

    @classmethod
    def counting(cls, labels: Labels, tracer: Tracer) -> Source:
        """The number of these labels."""
        return cls(Expression.of(Count(labels)), tracer)

    @property
    def labels(self) -> Labels | None:
        """The labels, if the size is just their number; else None."""
        term = self.size.only
        if term is None or term.down or len(term.up) != 1 or term.times != 1:
            return None
        return term.up[0].labels if isinstance(term.up[0], Count) else None

    def note_number(self, what: str) -> None:
        """The size is used as a number (a scale, say), not as a size: removing is then not the same as zeroing."""
        reason = f"width used as a number by {what} ({self.tracer.where()})"
        for atom in self.size.atoms():
            if isinstance(atom, Count):
                self.tracer.mix(atom.labels, reason)
            else:
                self.tracer.facts.numbers.append((atom, reason))

    def pin(self, what: str) -> None:
        """The size goes into arithmetic that can't be followed."""
        place = self.tracer.where()
        for atom in self.size.atoms():
            if isinstance(atom, Count):
                self.tracer.facts.fix(atom.labels, f"width goes through {what} ({place})")
            else:
                self.tracer.facts.held.setdefault(atom.key, f"{atom.key} goes through {what} ({place})")

    def equals(self, other: Source, what: str) -> None:
        """Both sizes must stay equal."""
        self.tracer.facts.equations.append(
            SizeEquation(self.size + -other.size, f"{what} by {self.tracer.where()}", None)
        )


class TracedSize(int):
    """An ``int`` that remembers what it counts, through sums, products and exact quotients."""

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

    def _made(self, value: int, size: Expression, what: str, other: Any) -> int:
        """The result of an operation that is followed, as far as its expression is manageable."""
        if not size.is_manageable:
            return self._opaque(value, what, other)
        return TracedSize(value, Source(size, self.source.tracer))

    def _opaque(self, value: int, what: str, other: Any) -> int:
        for source in _sources(self, other):
            source.pin(what)
        return value

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, float):
            return self._times(other)
        size = self._expression(other)
        if size is None:
            return NotImplemented
        return self._made(int.__mul__(self, other), self.source.size * size, "multiplication", other)

    __rmul__ = __mul__

    def _times(self, other: float) -> TracedFloat:
        return TracedFloat.of(int(self) * other, "multiplication", self.source)

    def __floordiv__(self, other: Any) -> Any:
        return self._quotient(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._quotient(other, self)

    def _quotient(self, above: Any, below: Any) -> Any:
        up, down = self._expression(above), self._expression(below)
        if up is None or down is None:
            return NotImplemented
        value, other = int(above) // int(below), above if below is self else below
        if down.only is None or int(above) % int(below) or int(below) < 0:
            return self._opaque(value, "division", other)
        return self._made(value, up * Expression((down.only.inverse(),)), "division", other)

    def __add__(self, other: Any) -> Any:
        size = self._expression(other)
        if size is None:
            return self._sum_with_float(other)
        if isinstance(other, TracedSize):
            mine, theirs = self.source.labels, other.source.labels
            if mine is not None and theirs is not None:
                both = Source.counting(np.concatenate([mine, theirs]), self.source.tracer)
                return TracedSize(int(self) + int(other), both)
        return self._made(int.__add__(self, other), self.source.size + size, "addition", other)

    __radd__ = __add__

    def _sum_with_float(self, other: Any) -> Any:
        if not isinstance(other, float):
            return NotImplemented
        return TracedFloat.of(int(self) + other, "addition", self.source)

    def __sub__(self, other: Any) -> Any:
        size = self._expression(other)
        if size is None:
            return self._sum_with_float(-other if isinstance(other, float) else other)
        return self._made(int.__sub__(self, other), self.source.size + -size, "subtraction", other)

    def __rsub__(self, other: Any) -> Any:
        size = self._expression(other)
        if size is None:
            return NotImplemented
        return self._made(int.__rsub__(self, other), size + -self.source.size, "subtraction", other)

    def __neg__(self) -> int:
        return self._made(int.__neg__(self), -self.source.size, "negation", None)

    def __pos__(self) -> TracedSize:
        return self

    def __mod__(self, other: Any) -> Any:
        return self._remainder(self, other)

    def __rmod__(self, other: Any) -> Any:
        return self._remainder(other, self)

    def _remainder(self, above: Any, below: Any) -> Any:
        """No remainder, now and when channels are gone, if what is divided stays a multiple."""
        if not isinstance(above, int) or not isinstance(below, int):
            return NotImplemented
        labels = above.source.labels if isinstance(above, TracedSize) else None
        if int(above) % int(below) or labels is None or int(below) < 1:
            return self._opaque(int(above) % int(below), "mod", above if below is self else below)
        for source in _sources(below):
            source.pin("mod")
        if int(below) > 1:
            tracer = self.source.tracer
            tracer.facts.balance(labels.reshape(int(below), -1), f"a multiple of {int(below)} ({tracer.where()})")
        return 0

    def _expression(self, other: Any) -> Expression | None:
        """What another operand counts; None if it isn't an integer."""
        if isinstance(other, TracedSize):
            return other.source.size
        return Expression.of(int(other)) if isinstance(other, int) else None

    def __eq__(self, other: object) -> bool:
        return self._compared(other, equal=int.__eq__(self, other))

    def __ne__(self, other: object) -> bool:
        return not self._compared(other, equal=int.__eq__(self, other))

    __hash__ = int.__hash__

    def _compared(self, other: object, *, equal: bool) -> bool:
        """A test that comes out equal may come out otherwise once channels are gone, unless both sides shrink alike."""
        if equal is True and not self.source.tracer.in_own_sizes:
            if isinstance(other, TracedSize):
                self.source.equals(other.source, "compared as equal")
            elif type(other) is int:
                self.source.pin(f"a comparison with {other}")
        return equal

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """A numpy function of one number, such as ``np.sqrt``, makes a number."""
        for source in _sources(*inputs):
            source.note_number(function.__name__)
        plain = [int(i) if isinstance(i, TracedSize) else i for i in inputs]
        return getattr(function, method)(*plain, **kwargs)


_OPAQUE = names("divmod rdivmod abs invert lshift rlshift rshift rrshift and rand or ror xor rxor")
_NUMERIC = names("float truediv rtruediv pow rpow")


def _sources(*operands: Any) -> list[Source]:
    return [operand.source for operand in operands if isinstance(operand, (TracedSize, TracedFloat))]


class TracedFloat(float):
    """A number computed from a traced size; made an integer again, it may serve as a size that can't be followed."""

    source: Source

    @classmethod
    def of(cls, value: float, what: str, source: Source) -> TracedFloat:
        """A number that ``what`` made of a size, noted."""
        source.note_number(what)
        traced = cls(value)
        traced.source = source
        return traced


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

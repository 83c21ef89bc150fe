"""Integers that remember what they count: sizes from ``tensor.shape``, and attributes of modules, while a model runs.

Sums, differences, products, powers and exact quotients are followed. A size that becomes a number (a scale, say) makes
its labels mixed: then removing is not the same as zeroing. Comparisons are noted, since they must come out the same
once channels are gone. Any other use pins what the size counts.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from secateur.graph.expression import Expression
from secateur.graph.labels import Relation
from secateur.graph.rules.base import names
from secateur.graph.source import Source


class TracedSize(int):
    """An ``int`` that remembers what it counts."""

    source: Source

    def __new__(cls, value: int, source: Source | None = None) -> Any:
        """An integer of this value that counts ``source``; a plain one for code that makes more of a class it meets."""
        if source is None:
            return plain(value)
        size = super().__new__(cls, plain(value))
        size.source = source
        return size

    # --- what it is where nothing is asked of its source ---

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (plain(self),)

    def __copy__(self) -> int:
        return plain(self)

    def __deepcopy__(self, memo: Any) -> int:
        return plain(self)

    __hash__ = int.__hash__

    # --- arithmetic that is followed ---

    def __pos__(self) -> int:
        return self

    # A whole number is its own numerator, real part, conjugate and rounding.
    __trunc__ = __floor__ = __ceil__ = conjugate = __pos__
    numerator = real = property(__pos__)

    def __round__(self, digits: Any = None) -> Any:
        return self if digits is None else _opaque("round", int.__round__(self, digits), self)

    def __neg__(self) -> int:
        negated: int = _followed("negation", int.__neg__(self), -_expression(self), self)
        return negated

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    def __add__(self, other: Any) -> Any:
        return _sum(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return _difference(self, other)

    def __rsub__(self, other: Any) -> Any:
        return _difference(other, self)

    def __mul__(self, other: Any) -> Any:
        return _product(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return _quotient(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _quotient(other, self)

    def __mod__(self, other: Any) -> Any:
        return _remainder(self, other)

    def __rmod__(self, other: Any) -> Any:
        return _remainder(other, self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, other: Any, modulus: int | None = None) -> Any:
        return _power(self, other) if modulus is None else _opaque("pow", pow(plain(self), other, modulus), self)

    def __rpow__(self, other: Any, modulus: int | None = None) -> Any:
        return _power(other, self)

    # --- a number ---

    def __float__(self) -> float:
        _note_numbers("float", self)
        return int.__float__(self)

    def __truediv__(self, other: Any) -> Any:
        return _number("division", operator.truediv, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _number("division", operator.truediv, other, self)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """A numpy function of one number, such as ``np.sqrt``, makes a number; a comparison is no number."""
        values = [plain(i) if isinstance(i, TracedSize) else i for i in inputs]
        result = getattr(function, method)(*values, **kwargs)
        if function.__name__ in _COMPARING:
            return _opaque(f"a comparison by numpy.{function.__name__}", result, *inputs)
        _note_numbers(function.__name__, *inputs)
        return result

    # --- comparisons ---

    def __eq__(self, other: object) -> Any:
        return _compared(operator.eq, self, other)

    def __ne__(self, other: object) -> Any:
        return _compared(operator.ne, self, other)

    def __lt__(self, other: Any) -> Any:
        return _compared(operator.lt, self, other)

    def __le__(self, other: Any) -> Any:
        return _compared(operator.le, self, other)

    def __gt__(self, other: Any) -> Any:
        return _compared(operator.gt, self, other)

    def __ge__(self, other: Any) -> Any:
        return _compared(operator.ge, self, other)

    def __bool__(self) -> bool:
        # A single product is never zero: something always stays.
        return plain(self) != 0 if self.source.size.only is not None else bool(self != 0)


class TracedFloat(float):
    """A number computed from a traced size; made an integer again, it may serve as a size that can't be followed."""

    source: Source

    @classmethod
    def of(cls, value: float, source: Source) -> TracedFloat:
        """A number that was computed from a size."""
        traced = cls(value)
        traced.source = source
        return traced

    __hash__ = float.__hash__

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float.__float__(self),)

    def __copy__(self) -> float:
        return float.__float__(self)

    def __deepcopy__(self, memo: Any) -> float:
        return float.__float__(self)


def plain(value: Any) -> int:
    """The integer itself, whatever it remembers; nothing is noted."""
    return int.__int__(value) if isinstance(value, int) else int(value)


# --- what operations make of what integers count ----------------------------------------------------------------------


def _sources(*operands: Any) -> list[Source]:
    """The sources of those operands that count something in a run that isn't over."""
    traced = (operand.source for operand in operands if isinstance(operand, (TracedSize, TracedFloat)))
    return [source for source in traced if not source.tracer.is_over]


def _expression(operand: int) -> Expression:
    """What an integer counts; one that is left from another run is a plain number."""
    sources = _sources(operand)
    return sources[0].size if sources else Expression.of(plain(operand))


def _followed(what: str, value: int, size: Expression, *operands: Any) -> Any:
    """The result of arithmetic that is followed, as far as its expression is manageable."""
    sources = _sources(*operands)
    if not sources:
        return value
    if not size.is_manageable:
        return _opaque(what, value, *operands)
    return TracedSize(value, Source(size, sources[0].tracer))


def _opaque(what: str, value: Any, *operands: Any) -> Any:
    """The result of something that can't be followed."""
    for source in _sources(*operands):
        if not source.tracer.in_own_sizes:
            source.pin(what)
    return value


def _note_numbers(what: str, *operands: Any) -> None:
    for source in _sources(*operands):
        source.note_number(what)


def _number(what: str, operation: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """The result of arithmetic that makes a number."""
    if not isinstance(left, (int, float, complex)) or not isinstance(right, (int, float, complex)):
        return NotImplemented
    value = operation(_untraced(left), _untraced(right))
    # A number that was made of a size is noted already.
    _note_numbers(what, *(v for v in (left, right) if isinstance(v, TracedSize)))
    sources = _sources(left, right)
    return TracedFloat.of(value, sources[0]) if sources and isinstance(value, float) else value


def _untraced(value: Any) -> Any:
    if isinstance(value, int):
        return plain(value)
    return float.__float__(value) if isinstance(value, float) else value


def _both_whole(left: Any, right: Any) -> bool:
    return isinstance(left, int) and isinstance(right, int)


def _sum(left: Any, right: Any) -> Any:
    if not _both_whole(left, right):
        return _number("addition", operator.add, left, right)
    value = int.__add__(left, right)
    return _followed("addition", value, _expression(left).joined(_expression(right)), left, right)


def _difference(left: Any, right: Any) -> Any:
    if not _both_whole(left, right):
        return _number("subtraction", operator.sub, left, right)
    value = int.__sub__(left, right)
    return _followed("subtraction", value, _expression(left) + -_expression(right), left, right)


def _product(left: Any, right: Any) -> Any:
    if isinstance(right, (list, tuple)):
        # Python repeats it, and counts.
        return _opaque(f"a {type(right).__name__} that it repeats", NotImplemented, left)
    if not _both_whole(left, right):
        return _number("multiplication", operator.mul, left, right)
    value = int.__mul__(left, right)
    return _followed("multiplication", value, _expression(left) * _expression(right), left, right)


def _quotient(above: Any, below: Any) -> Any:
    if not _both_whole(above, below):
        return _number("division", operator.floordiv, above, below)
    value, rest = divmod(plain(above), plain(below))
    size = _expression(above).over(_expression(below))
    if rest or plain(below) < 0 or size is None:
        return _opaque("division", value, above, below)
    return _whole("an exact division", _followed("division", value, size, above, below))


def _remainder(above: Any, below: Any) -> Any:
    """No remainder, now and when channels are gone, if what is divided stays a multiple."""
    if not _both_whole(above, below):
        return _number("mod", operator.mod, above, below)
    value, size = plain(above) % plain(below), _expression(above).over(_expression(below))
    if value or size is None:
        return _opaque("mod", value, above, below)
    _whole(f"a multiple of {plain(below)}", _followed("mod", plain(above) // plain(below), size, above, below))
    return 0


def _whole(what: str, quotient: int) -> int:
    """A quotient that must stay a whole number."""
    for source in _sources(quotient):
        if not source.size.is_whole:
            source.stays_whole(what)
    return quotient


def _power(base: Any, exponent: Any) -> Any:
    if not _both_whole(base, exponent) or plain(exponent) < 0:
        return _number("pow", operator.pow, base, exponent)
    value = plain(base) ** plain(exponent)
    if _sources(exponent) or plain(exponent) > _LARGEST_POWER:
        return _opaque("pow", value, base, exponent)
    size = Expression.of(1)
    for _ in range(plain(exponent)):
        size = size * _expression(base)
    return _followed("pow", value, size, base)


def _compared(relation: Relation, left: TracedSize, right: Any) -> Any:
    """A comparison, which must come out the same once channels are gone."""
    if isinstance(right, np.integer):
        right = int(right)
    if not isinstance(right, (int, float)):
        return NotImplemented
    result = relation(plain(left), _untraced(right))
    if isinstance(right, TracedSize) and left.source.tracer.is_over is not right.source.tracer.is_over:
        # What an earlier run has left in a cache isn't found by this one, and can't be taken for its own.
        return relation is operator.ne if relation in (operator.eq, operator.ne) else result
    if isinstance(right, TracedFloat):
        return _opaque("a comparison with a number", result, left, right)
    sources = _sources(left, right)
    if not sources or sources[0].tracer.in_own_sizes or (isinstance(right, float) and not math.isfinite(right)):
        return result
    limit = _expression(right) if isinstance(right, int) else Expression.of(Fraction(right))
    if result is (relation is operator.eq) and relation in (operator.eq, operator.ne):
        _note_equality(_expression(left) + -limit, _untraced(right), sources)
    else:
        sources[0].keeps_relation(relation if result else _OPPOSITE[relation], _expression(left) + -limit)
    return result


def _note_equality(difference: Expression, other: float, sources: list[Source]) -> None:
    if len(sources) == 2:
        sources[0].stays_zero(difference, "compared as equal")
    else:
        sources[0].pin(f"a comparison with {other}")


_OPPOSITE: dict[Relation, Relation] = {
    operator.eq: operator.ne,
    operator.lt: operator.ge,
    operator.ge: operator.lt,
    operator.gt: operator.le,
    operator.le: operator.gt,
}
_LARGEST_POWER = 4
_COMPARING = names("equal not_equal less less_equal greater greater_equal")


# --- operations that can't be followed --------------------------------------------------------------------------------


def _opaque_method(name: str, what: str) -> Callable[..., Any]:
    method = getattr(int, name)

    def opaque(self: TracedSize, *others: Any) -> Any:
        result = method(self, *others)
        return result if result is NotImplemented else _opaque(what, result, self, *others)

    return opaque


def _arithmetic_of_floats(name: str) -> Callable[..., Any]:
    operation, reflected = getattr(operator, name.removeprefix("r")), name.startswith("r") and name != "r"

    def arithmetic(self: TracedFloat, other: Any) -> Any:
        return _number(name, operation, *((other, self) if reflected else (self, other)))

    return arithmetic


def _opaque_method_of_floats(name: str) -> Callable[..., Any]:
    method, unequal = getattr(float, f"__{name}__"), {"eq": False, "ne": True}.get(name, NotImplemented)

    def opaque(self: TracedFloat, *others: Any) -> Any:
        result = method(self, *others)
        # That two numbers differ is no accident of a width.
        return result if result is NotImplemented or result is unequal else _opaque(what, result, self, *others)

    what = f"{name} of a number"
    return opaque


for _name in names("invert lshift rlshift rshift rrshift and rand or ror xor rxor"):
    setattr(TracedSize, f"__{_name}__", _opaque_method(f"__{_name}__", _name))
for _name in names("bit_length bit_count to_bytes as_integer_ratio"):
    setattr(TracedSize, _name, _opaque_method(_name, f"{_name}()"))
# Besides int() itself, numpy's arrays take an integer's value by __int__.
_INT = "int(), which gives a plain number; the size itself, without int(), would follow"
for _name, _what in (("__int__", _INT), ("__str__", "a text"), ("__format__", "a text")):
    setattr(TracedSize, _name, _opaque_method(_name, _what))
for _name in names("add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow"):
    setattr(TracedFloat, f"__{_name}__", _arithmetic_of_floats(_name))
for _name in names("int trunc floor ceil round eq ne lt le gt ge"):
    setattr(TracedFloat, f"__{_name}__", _opaque_method_of_floats(_name))

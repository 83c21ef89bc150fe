"""What an integer counts, as arithmetic: sums of products of kept counts and attributes.

Pure values; where they meet tensors is the matter of ``traced_size`` and ``sizes``, what they imply that of
``equations``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from secateur.graph.labels import Labels

_ONE = Fraction(1)
_MOST_TERMS = 8
_MOST_ATOMS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Count:
    """The number of kept ones among labels."""

    labels: Labels

    @property
    def value(self) -> int:
        """Their number before pruning."""
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Attribute:
    """An integer that a module keeps.

    Attributes:
        key: dotted path to it, such as ``blocks.0.attention.heads`` or ``blocks.0.config.sizes[1]``.
        value: what it is before pruning.
    """

    key: str
    value: int


Atom = Count | Attribute


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """``times`` times the product of ``up``, over the product of ``down``."""

    times: Fraction
    up: tuple[Atom, ...] = ()
    down: tuple[Atom, ...] = ()

    def value(self, of: Callable[[Atom], Fraction]) -> Fraction:
        """The term's value, given those of its atoms."""
        result = self.times
        for atom in self.up:
            result *= of(atom)
        for atom in self.down:
            result /= of(atom)
        return result

    def __mul__(self, other: Term) -> Term:
        up, down = _cancelled((*self.up, *other.up), (*self.down, *other.down))
        return Term(self.times * other.times, up, down)

    def inverse(self) -> Term:
        """One over this term."""
        return Term(1 / self.times, self.down, self.up)


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """A sum of terms."""

    terms: tuple[Term, ...]

    @classmethod
    def of(cls, value: int | Fraction | Atom) -> Expression:
        """A plain number, or one atom."""
        return cls((Term(_ONE, (value,)),) if isinstance(value, (Count, Attribute)) else (Term(Fraction(value)),))

    def atoms(self) -> Iterator[Atom]:
        """All atoms, in order."""
        for term in self.terms:
            yield from term.up
            yield from term.down

    @property
    def only(self) -> Term | None:
        """The term, if there is just one."""
        return self.terms[0] if len(self.terms) == 1 else None

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number for any whole values of its atoms."""
        return all(term.times.denominator == 1 and not term.down for term in self.terms)

    @property
    def is_manageable(self) -> bool:
        """Whether it is small enough to go on with."""
        return len(self.terms) <= _MOST_TERMS and sum(1 for _ in self.atoms()) <= _MOST_ATOMS

    def value(self, of: Callable[[Atom], Fraction]) -> Fraction:
        """The value, given those of the atoms."""
        return sum((term.value(of) for term in self.terms), Fraction(0))

    def joined(self, other: Expression) -> Expression:
        """The sum; of two numbers of labels, the number of the ones followed by the others."""
        mine, theirs = self._counted, other._counted
        if mine is None or theirs is None:
            return self + other
        return Expression.of(Count(np.concatenate([mine, theirs])))

    @property
    def _counted(self) -> Labels | None:
        """The labels, if it is just their number."""
        term = self.only
        if term is None or term.down or len(term.up) != 1 or term.times != 1 or isinstance(term.up[0], Attribute):
            return None
        return term.up[0].labels

    def over(self, other: Expression) -> Expression | None:
        """The quotient, if the divisor is a single term."""
        term = other.only
        return None if term is None or not term.times else self * Expression((term.inverse(),))

    def __add__(self, other: Expression) -> Expression:
        terms: list[Term] = []
        for term in (*self.terms, *other.terms):
            alike = next((i for i, t in enumerate(terms) if _same(t.up, term.up) and _same(t.down, term.down)), None)
            if alike is None:
                terms.append(term)
            else:
                terms[alike] = Term(terms[alike].times + term.times, term.up, term.down)
        return Expression(tuple(t for t in terms if t.times) or (Term(Fraction(0)),))

    def __neg__(self) -> Expression:
        return Expression(tuple(Term(-t.times, t.up, t.down) for t in self.terms))

    def __mul__(self, other: Expression) -> Expression:
        result = Expression((Term(Fraction(0)),))
        for a in self.terms:
            for b in other.terms:
                result = result + Expression((a * b,))
        return result


def _alike(a: Atom, b: Atom) -> bool:
    if isinstance(a, Count) and isinstance(b, Count):
        return np.array_equal(a.labels, b.labels)
    return a == b


def _same(a: tuple[Atom, ...], b: tuple[Atom, ...]) -> bool:
    """Whether two products have the same factors."""
    return len(a) == len(b) and not _cancelled(a, b)[0]


def _cancelled(up: tuple[Atom, ...], down: tuple[Atom, ...]) -> tuple[tuple[Atom, ...], tuple[Atom, ...]]:
    left, below = [], list(down)
    for atom in up:
        match = next((i for i, other in enumerate(below) if _alike(atom, other)), None)
        if match is None:
            left.append(atom)
        else:
            del below[match]
    return tuple(left), tuple(below)

"""Comparisons of sizes in the code, which must come out the same in a smaller model, or it would take another path.

``if h.shape[1] > 8`` or ``max(width, 8)``: a plan keeps so much that what held goes on holding. Two sizes that compare
equal, or with a number, are settled before (``equations``); here are the others.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from secateur.graph.cost import Affine, IntArray
from secateur.graph.equations import Following
from secateur.graph.expression import Atom, Count, Expression, Term
from secateur.graph.labels import NONE, Comparison, Labels, Relation

_STAYS = np.array([NONE])


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """A relation of an expression in kept counts to zero.

    Attributes:
        size: the expression.
        values: by the ``id`` of each of its atoms, a number of labels as a function of the kept counts, and how many
            times that number the atom is.
        relation: what must hold between the expression and zero.
        reason: where the code asks for it.
    """

    size: Expression
    values: dict[int, tuple[Affine, Fraction]]
    relation: Relation
    reason: str

    @property
    def key(self) -> Any:
        """The same for conditions that say the same."""
        of = self.values
        terms = (
            (t.times, *((of[id(a)], 1) for a in t.up), *((of[id(a)], -1) for a in t.down)) for t in self.size.terms
        )
        return self.relation, tuple(terms)

    @property
    def groups(self) -> frozenset[int]:
        """Indices of the groups that it depends on."""
        return frozenset(group for affine, _ in self.values.values() for group, _ in affine.numerators)

    def holds(self, kept: IntArray) -> bool:
        """Whether it holds for kept counts of shape (groups,)."""
        return bool(self.relation(self.size.value(self._at(kept)), 0))

    def always_holds(self, least: IntArray, full: IntArray) -> bool:
        """Whether it is seen to hold for all kept counts between these, both of shape (groups,)."""
        low, high = self._range(self._at(least), self._at(full))
        if self.relation is operator.ne:
            return low > 0 or high < 0
        return bool(self.relation(low, 0) and self.relation(high, 0))

    def _at(self, kept: IntArray) -> Callable[[Atom], Fraction]:
        def value(atom: Atom) -> Fraction:
            affine, ratio = self.values[id(atom)]
            return affine.value(kept) * ratio

        return value

    def _range(self, least: Callable[[Atom], Fraction], most: Callable[[Atom], Fraction]) -> tuple[Fraction, Fraction]:
        """Bounds of the expression, whose atoms are all positive."""
        low = sum((_extreme(t, least, most) for t in self.size.terms), Fraction(0))
        high = sum((_extreme(t, most, least) for t in self.size.terms), Fraction(0))
        return low, high


def _extreme(term: Term, up: Callable[[Atom], Fraction], down: Callable[[Atom], Fraction]) -> Fraction:
    """A term's value with its factors at one end and its divisors at the other; a negative term the other way round."""
    if term.times < 0:
        up, down = down, up
    value = term.times
    for atom in term.up:
        value *= up(atom)
    for atom in term.down:
        value /= down(atom)
    return value


def conditions_of(
    comparisons: Iterable[Comparison],
    attributes: Mapping[str, Following],
    counts_of: Callable[[Sequence[Labels]], list[Affine]],
    least: IntArray,
    full: IntArray,
) -> tuple[Condition, ...]:
    """The comparisons that might come out otherwise once channels are gone, each once.

    Args:
        comparisons: of the trace.
        attributes: those that follow widths.
        counts_of: numbers of labels as functions of the kept counts.
        least: the smallest kept counts, shape (groups,).
        full: the largest.
    """
    listed = list(comparisons)
    counted = [_counted(atom, attributes) for comparison in listed for atom in comparison.size.atoms()]
    counts = iter(counts_of([labels for labels, _ in counted]))
    ratios = iter(ratio for _, ratio in counted)
    found: dict[Any, Condition] = {}
    for c in listed:
        values = {id(atom): (next(counts), next(ratios)) for atom in c.size.atoms()}
        condition = Condition(c.size, values, c.relation, c.reason)
        if not condition.always_holds(least, full):
            found.setdefault(condition.key, condition)
    return tuple(found.values())


def _counted(atom: Atom, attributes: Mapping[str, Following]) -> tuple[Labels, Fraction]:
    """The labels that an atom counts, and how often; of what counts none, one that stays."""
    if isinstance(atom, Count):
        return atom.labels, Fraction(1)
    follows = attributes.get(atom.key)
    return (_STAYS, Fraction(atom.value)) if follows is None else (follows.labels, follows.ratio)


def honoured(conditions: Sequence[Condition], units: IntArray, ties: Sequence[IntArray], sizes: IntArray,
             most: IntArray) -> IntArray:  # fmt: skip
    """At least as many units of every group, so many more as the conditions take.

    Args:
        conditions: all hold when everything is kept.
        units: kept of each group, shape (groups,).
        ties: indices of the groups that keep equal fractions.
        sizes: channels of each group, shape (groups,).
        most: units of each group, shape (groups,).
    """
    tie_of = {int(group): tie for tie in ties for group in tie}
    units = units.copy()
    while True:
        broken = next((c for c in conditions if not c.holds(sizes * units // most)), None)
        if broken is None:
            return units
        concerned = {id(tie_of[group]): tie_of[group] for group in sorted(broken.groups)}.values()
        open_ties = [tie for tie in concerned if units[tie[0]] < most[tie[0]]]
        tie, enough = min(
            ((tie, _enough(broken, units, tie, sizes, most)) for tie in open_ties),
            key=lambda found: (found[1] - units[found[0][0]]) / most[found[0][0]],
        )
        units[tie] = enough


def _enough(condition: Condition, units: IntArray, tie: IntArray, sizes: IntArray, most: IntArray) -> int:
    """The fewest units of a tie for which a condition holds; all, if it never does."""
    tried = units.copy()
    for count in range(int(units[tie[0]]) + 1, int(most[tie[0]]) + 1):
        tried[tie] = count
        if condition.holds(sizes * tried // most):
            return count
    return int(most[tie[0]])

"""What the sizes in the code imply: attributes that follow widths, widths that must agree, and what must stay.

The trace gives equations between kept counts and attributes (``SizeEquation``), true before pruning. Here they are
taken apart: an attribute that an equation ties to one width follows it; two widths tied to one attribute must agree; a
width that must equal a constant stays. What is left is checked as an identity in the fractions that groups keep, and
pinned where it isn't one. So no size in the code can contradict the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from secateur.graph.expression import Atom, Attribute, Count, Expression
from secateur.graph.labels import NONE, Counted, EqualCounts, Facts, Labels, SizeEquation

if TYPE_CHECKING:
    from secateur.graph.solve import Solution

Kept = Callable[[Labels], "dict[int, int] | None"]
"""How many of some labels stay, as multiples of the fractions that ties keep (tie -1: all); None if it depends."""

_POINTS = 3
"""Random fractions at which an identity is checked; that a false one passes even once is next to impossible."""


@dataclass(frozen=True, slots=True, eq=False)
class Following:
    """An attribute's value: ``ratio`` times the number of kept ones among ``labels``."""

    labels: Labels
    ratio: Fraction


@dataclass(frozen=True, slots=True, eq=False)
class _Variable:
    """An attribute or a number of labels that may change."""

    atom: Atom
    key: str | bytes


@dataclass(slots=True, eq=False)
class _Monomial:
    """A coefficient times a product of powers of variables."""

    times: Fraction
    powers: dict[str | bytes, int] = field(default_factory=dict)

    def over(self, other: _Monomial) -> _Monomial:
        powers = dict(self.powers)
        for key, power in other.powers.items():
            powers[key] = powers.get(key, 0) - power
        return _Monomial(self.times / other.times, {key: p for key, p in powers.items() if p})


class SizeEquations:
    """The equations of a trace, taken apart anew whenever more is known of the labels.

    Args:
        facts: the trace's; labels that turn out to have to stay are fixed there.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._emitted: dict[tuple[int, bytes], EqualCounts] = {}
        self.counts: list[EqualCounts] = []
        """Equal counts that the equations imply, by the last call of :meth:`settle`."""
        self.following: dict[str, Following] = {}
        """Attributes that follow widths, by the last call of :meth:`settle`."""
        self._held: dict[str, str] = {}
        self._variables: dict[str | bytes, _Variable] = {}

    def settle(self, solution: Solution) -> bool:
        """Take all equations apart; returns whether labels were pinned, so that groups must be found anew."""
        self._solution = solution
        self.counts, self.following, self._held, self._variables = [], {}, dict(self._facts.held), {}
        before = len(self._facts.fixed)
        pending = list(self._facts.equations)
        while pending:
            rest = [equation for equation in pending if not self._take(equation)]
            if len(rest) == len(pending) and not self._hold_one(rest):
                break
            pending = rest
        return len(self._facts.fixed) > before

    # --- one equation -----------------------------------------------------------------------------------------------

    def _take(self, equation: SizeEquation) -> bool:
        """Use an equation if it says something of one or two variables; False if it must wait."""
        monomials = self._monomials(equation.size)
        constant = monomials.pop((), None)
        terms = list(monomials.values())
        if constant is not None and constant.times:
            terms.append(constant)
        if not terms:
            return True
        if len(terms) > 2:
            return self._take_sum(equation, terms)
        # a x + b y = 0: x / y is constant; of a single term, that term itself is (zero: it can't be).
        ratio = terms[0].over(terms[1]) if len(terms) == 2 else terms[0]
        variables = list(ratio.powers)
        if len(variables) <= 1:
            for key in variables:
                self._hold(self._variables[key].atom, self._why(equation))
            return True
        if len(variables) == 2 and sorted(ratio.powers.values()) == [-1, 1]:
            x, y = sorted(variables, key=lambda key: -ratio.powers[key])
            # a x + b y = 0, so that x = -b / a y.
            return self._relate(equation, self._variables[x].atom, self._variables[y].atom, -1 / ratio.times)
        return False

    def _monomials(self, size: Expression) -> dict[tuple[tuple[str | bytes, int], ...], _Monomial]:
        """The expression's terms with all that can't change multiplied out, alike ones added up."""
        found: dict[tuple[tuple[str | bytes, int], ...], _Monomial] = {}
        for term in size.terms:
            monomial = _Monomial(term.times)
            for atoms, sign in ((term.up, 1), (term.down, -1)):
                for atom in atoms:
                    self._multiply(monomial, atom, sign)
            powers = {key: p for key, p in monomial.powers.items() if p}
            place = tuple(sorted(powers.items(), key=repr))
            before = found[place].times if place in found else Fraction(0)
            found[place] = _Monomial(before + monomial.times, powers)
        return {place: m for place, m in found.items() if m.times}

    def _multiply(self, monomial: _Monomial, atom: Atom, sign: int) -> None:
        if isinstance(atom, Attribute) and atom.key in self.following:
            follows = self.following[atom.key]
            monomial.times *= follows.ratio**sign
            atom = Count(follows.labels)
        if self._is_constant(atom):
            monomial.times *= Fraction(atom.value) ** sign
            return
        key = atom.key if isinstance(atom, Attribute) else self._key(atom.labels)
        self._variables.setdefault(key, _Variable(atom, key))
        monomial.powers[key] = monomial.powers.get(key, 0) + sign

    def _is_constant(self, atom: Atom) -> bool:
        if isinstance(atom, Attribute):
            return atom.key in self._held
        labels = atom.labels[atom.labels != NONE]
        return bool(self._solution.fixed[self._solution.channel_of[labels]].all())

    def _key(self, labels: Labels) -> bytes:
        return np.sort(np.where(labels == NONE, NONE, self._solution.channel_of[labels])).tobytes()

    def _hold(self, atom: Atom, reason: str) -> None:
        """This must stay as it is."""
        if isinstance(atom, Attribute):
            self._held.setdefault(atom.key, reason)
        else:
            self._facts.fix(atom.labels, reason)

    def _why(self, equation: SizeEquation) -> str:
        """Why what an equation says must stay, with why its attributes must."""
        keys = (atom.key for atom in equation.size.atoms() if isinstance(atom, Attribute))
        held = dict.fromkeys(self._facts.held[key] for key in keys if key in self._facts.held)
        return "; ".join((equation.reason, *held))

    def _relate(self, equation: SizeEquation, x: Atom, y: Atom, ratio: Fraction) -> bool:
        """X = ratio y."""
        if isinstance(x, Attribute) and isinstance(y, Attribute):
            return False
        if isinstance(x, Attribute) and isinstance(y, Count):
            self.following[x.key] = Following(y.labels, ratio)
        elif isinstance(y, Attribute) and isinstance(x, Count):
            self.following[y.key] = Following(x.labels, 1 / ratio)
        elif isinstance(x, Count) and isinstance(y, Count):
            self._emit(equation, x.labels, y.labels, ratio)
        return True

    def _emit(self, equation: SizeEquation, a: Labels, b: Labels, ratio: Fraction) -> None:
        """``a`` keeps ``ratio`` times as many as ``b``; the same object every time, so that it can be recognised."""
        key = (id(equation), b.tobytes())
        if key not in self._emitted:
            stand_in = Facts(size=self._facts.size)
            stand_in.same_count(a, b, equation.reason, weight_a=ratio.denominator, weight_b=ratio.numerator)
            if not stand_in.counts:
                return
            self._emitted[key] = stand_in.counts[0]
        self.counts.append(self._emitted[key])

    def _take_sum(self, equation: SizeEquation, terms: Sequence[_Monomial]) -> bool:
        """A sum in which one attribute is unknown, and all else are pieces of the labels that the size measures."""
        if equation.labels is None:
            return False
        whole = self._key_in_order(equation.labels)
        unknown: list[Attribute] = []
        pieces: list[Labels] = []
        for term in terms:
            if len(term.powers) != 1 or abs(term.times) != 1:
                return False
            ((key, power),) = term.powers.items()
            atom = self._variables[key].atom
            if power != 1:
                return False
            if isinstance(atom, Attribute):
                unknown.append(atom)
            elif key != self._key(equation.labels):
                pieces.append(atom.labels)
        if len(unknown) != 1:
            return False
        rest = equation.labels
        for _ in range(len(pieces)):
            start = next((p for p in pieces if np.array_equal(self._key_in_order(p), whole[: len(p)])), None)
            if start is None:
                return False
            rest, whole = rest[len(start) :], whole[len(start) :]
            pieces = [p for p in pieces if p is not start]
        self.following[unknown[0].key] = Following(rest, Fraction(1))
        return True

    def _key_in_order(self, labels: Labels) -> Labels:
        return np.where(labels == NONE, NONE, self._solution.channel_of[labels])

    def _hold_one(self, equations: Sequence[SizeEquation]) -> bool:
        """Nothing more follows: hold an attribute that nothing defines; False if there is none.

        First one that would have to grow when what is measured shrinks: a subtrahend or a divisor.
        """
        for equation in equations:
            growing = [t.up if t.times > 0 else t.down for t in equation.size.terms]
            free = [atom for atom in (*chain(*growing), *equation.size.atoms()) if self._is_free(atom)]
            if free:
                self._hold(free[0], equation.reason)
                return True
        return False

    def _is_free(self, atom: Atom) -> bool:
        return isinstance(atom, Attribute) and atom.key not in self._held and atom.key not in self.following

    # --- the proof --------------------------------------------------------------------------------------------------

    def enforce(self, kept: Kept) -> list[EqualCounts]:
        """Pin what contradicts an equation, once all counts are settled.

        Returns:
            Equal counts that make a cut follow; what is pinned instead is in the facts.
        """
        cuts: list[EqualCounts] = []
        rng = np.random.default_rng(0)
        for equation in self._facts.equations:
            atoms = [self._resolved(atom) for atom in equation.size.atoms()]
            loose = [labels for labels, _ in atoms if labels is not None and kept(labels) is None]
            if loose:
                cuts.extend(cut for labels in loose for cut in self._cut(labels, equation.reason))
            elif not self._is_identity(equation.size, kept, rng):
                for labels, _ in atoms:
                    if labels is not None:
                        self._facts.fix(labels, f"sizes that can't all follow: {equation.reason}")
        return cuts

    def _resolved(self, atom: Atom) -> tuple[Labels | None, Fraction]:
        """Labels that an atom counts, and how often; None and its value, if it counts none."""
        if isinstance(atom, Count):
            return atom.labels, Fraction(1)
        if atom.key in self.following:
            return self.following[atom.key].labels, self.following[atom.key].ratio
        return None, Fraction(atom.value)

    def _is_identity(self, size: Expression, kept: Kept, rng: np.random.Generator) -> bool:
        for _ in range(_POINTS):
            fractions: dict[int, Fraction] = {-1: Fraction(1)}

            def value(atom: Atom, fractions: dict[int, Fraction] = fractions) -> Fraction:
                labels, ratio = self._resolved(atom)
                if labels is None:
                    return ratio
                parts = kept(labels) or {}
                for tie in parts:
                    fractions.setdefault(tie, Fraction(int(rng.integers(1, 1000)), 1009))
                return ratio * sum((fractions[tie] * times for tie, times in parts.items()), Fraction(0))

            if size.value(value) != 0:
                return False
        return True

    def _cut(self, labels: Labels, reason: str) -> Iterator[EqualCounts]:
        """Let a cut through a group follow: in equal blocks on both sides, each keeping equally many."""
        solution = self._solution
        channels = solution.channel_of[labels[labels != NONE]]
        groups = solution.group_of[channels]
        for group in np.unique(groups[groups >= 0]):
            members = np.flatnonzero(solution.group_of == group)
            members = members[np.argsort(solution.position[members])]
            times = np.bincount(solution.position[channels[groups == group]], minlength=len(members))
            cells = [members[times == n] for n in np.unique(times)]
            size = gcd(*(len(cell) for cell in cells))
            first = self._first_labels(members)
            if size == 1 or len(cells) == 1:
                self._facts.fix(np.array(list(first.values())), f"cut unevenly: {reason}")
                continue
            rows = [row for cell in cells for row in cell.reshape(-1, size)]
            yield EqualCounts(tuple(Counted(np.array([first[int(c)] for c in row])) for row in rows), reason)

    def _first_labels(self, channels: Labels) -> dict[int, int]:
        """A label of each of these channels."""
        places = np.flatnonzero(np.isin(self._solution.channel_of, channels))
        found, first = np.unique(self._solution.channel_of[places], return_index=True)
        return dict(zip(found.tolist(), places[first].tolist(), strict=True))

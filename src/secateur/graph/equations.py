"""What the sizes in the code imply: attributes that follow widths, widths that must agree, and what must stay.

The trace gives equations between kept counts and attributes (``SizeEquation``), true before pruning. Here they are
taken apart: an attribute that an equation ties to one width follows it; two widths tied to one attribute must agree; a
width that must equal a constant stays. What is left is checked as an identity (``size_checks``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from secateur.graph.expression import Atom, Attribute, Count, Expression
from secateur.graph.labels import NONE, EqualCounts, Facts, Labels, SizeEquation

if TYPE_CHECKING:
    from secateur.graph.solution import Solution


@dataclass(frozen=True, slots=True, eq=False)
class Following:
    """An attribute's value: ``ratio`` times the number of kept ones among ``labels``."""

    labels: Labels
    ratio: Fraction


Key = str | bytes
"""Of an attribute its path, of a number of labels their channels."""


@dataclass(slots=True, eq=False)
class _Monomial:
    """A coefficient times a product of powers of variables."""

    times: Fraction
    powers: dict[Key, int] = field(default_factory=dict)

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
        self._emitted: dict[tuple[int, bytes, bytes, Fraction], EqualCounts] = {}
        self.counts: list[EqualCounts] = []
        """Equal counts that the equations imply, by the last call of :meth:`settle`."""
        self.following: dict[str, Following] = {}
        """Attributes that follow widths, by the last call of :meth:`settle`."""

    def settle(self, solution: Solution) -> bool:
        """Take all equations apart; returns whether labels were pinned, so that groups must be found anew.

        An equation is looked at again only when one of its attributes has become known, or one of its widths has to
        stay: linear in their number.
        """
        self._solution = solution
        self.counts, self.following = [], {}
        self._held: dict[str, str] = dict(self._facts.held)
        self._variables: dict[Key, Atom] = {}
        self._keys: dict[int, tuple[Labels, bytes | None]] = {}
        self._staying: set[Key | None] = set()
        before = len(self._facts.fixed)
        self._take_all(self._facts.equations)
        return len(self._facts.fixed) > before

    def _take_all(self, equations: Sequence[SizeEquation]) -> None:
        self._queue = deque(range(len(equations)))
        self._waiting: dict[Key, list[int]] = {}
        self._unused = dict.fromkeys(self._queue)
        while self._unused:
            while self._queue:
                number = self._queue.popleft()
                if number not in self._unused:
                    continue
                if self._take(equations[number]):
                    del self._unused[number]
                for key in self._met:
                    self._waiting.setdefault(key, []).append(number)
            # Nothing more follows: hold an attribute that nothing defines.
            number = next(iter(self._unused), -1)
            if number >= 0 and not self._hold_one(equations[number]):
                del self._unused[number]

    # --- one equation -----------------------------------------------------------------------------------------------

    def _take(self, equation: SizeEquation) -> bool:
        """Use an equation if it says something of one or two variables; False if it must wait."""
        monomials = self._monomials(equation.size)
        self._met = dict.fromkeys(key for monomial in monomials.values() for key in monomial.powers)
        constant = monomials.pop((), None)
        terms = list(monomials.values())
        if constant is not None:
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
                self._hold(self._variables[key], self._why(equation))
            return True
        if len(variables) == 2 and sorted(ratio.powers.values()) == [-1, 1]:
            x, y = sorted(variables, key=lambda key: -ratio.powers[key])
            # a x + b y = 0, so that x = -b / a y.
            return self._relate(equation, self._variables[x], self._variables[y], -1 / ratio.times)
        return False

    def _monomials(self, size: Expression) -> dict[tuple[tuple[Key, int], ...], _Monomial]:
        """The expression's terms with all that can't change multiplied out, alike ones added up."""
        found: dict[tuple[tuple[Key, int], ...], _Monomial] = {}
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
        key = self._key(atom)
        if key is None:
            monomial.times *= Fraction(atom.value) ** sign
            return
        self._variables.setdefault(key, atom)
        monomial.powers[key] = monomial.powers.get(key, 0) + sign

    def _key(self, atom: Atom) -> Key | None:
        """What tells a variable from others; None for what can't change."""
        if isinstance(atom, Attribute):
            return None if atom.key in self._held else atom.key
        if id(atom.labels) not in self._keys:
            channels = self._channels(atom.labels)
            stays = self._solution.fixed[channels[channels != NONE]].all()
            # The labels are kept beside their key, so that no others can take their id.
            self._keys[id(atom.labels)] = atom.labels, None if stays else np.sort(channels).tobytes()
        key = self._keys[id(atom.labels)][1]
        return None if key in self._staying else key

    def _channels(self, labels: Labels) -> Labels:
        return np.where(labels == NONE, NONE, self._solution.channel_of[labels])

    def _why(self, equation: SizeEquation) -> str:
        """Why what an equation says must stay, with why its attributes must."""
        keys = (attribute.key for attribute in _attributes(equation.size))
        held = dict.fromkeys(self._facts.held[key] for key in keys if key in self._facts.held)
        return "; ".join((equation.reason, *held))

    def _relate(self, equation: SizeEquation, x: Atom, y: Atom, ratio: Fraction) -> bool:
        """X = ratio y."""
        if isinstance(x, Count) and isinstance(y, Count):
            self._emit(equation, x.labels, y.labels, ratio)
        elif isinstance(x, Attribute) and isinstance(y, Count):
            self._follow(x, Following(y.labels, ratio))
        elif isinstance(x, Count) and isinstance(y, Attribute):
            self._follow(y, Following(x.labels, 1 / ratio))
        else:
            return False
        return True

    def _emit(self, equation: SizeEquation, a: Labels, b: Labels, ratio: Fraction) -> None:
        """``a`` keeps ``ratio`` times as many as ``b``; the same object every time, so that it can be recognised."""
        key = (id(equation), a.tobytes(), b.tobytes(), ratio)
        if key not in self._emitted:
            stand_in = Facts(size=self._facts.size)
            stand_in.same_count(a, b, equation.reason, weight_a=ratio.denominator, weight_b=ratio.numerator)
            if not stand_in.counts:
                return
            self._emitted[key] = stand_in.counts[0]
        self.counts.append(self._emitted[key])

    # --- sums -------------------------------------------------------------------------------------------------------

    def _take_sum(self, equation: SizeEquation, terms: Sequence[_Monomial]) -> bool:
        """A sum in which one attribute is unknown, and all else are pieces of the labels that the size measures."""
        whole = None if equation.labels is None else self._key(Count(equation.labels))
        if equation.labels is None or whole is None or not any(t.powers == {whole: 1} and t.times == 1 for t in terms):
            return False
        parts = [(t.times, self._variables[k], p) for t in terms for k, p in t.powers.items() if t.powers != {whole: 1}]
        if len(parts) != len(terms) - 1 or any(times != -1 or power != 1 for times, _, power in parts):
            return False
        unknown = [atom for _, atom, _ in parts if isinstance(atom, Attribute)]
        rest = self._without(equation.labels, [atom.labels for _, atom, _ in parts if isinstance(atom, Count)])
        if len(unknown) != 1 or rest is None:
            return False
        self._follow(unknown[0], Following(rest, Fraction(1)))
        return True

    def _without(self, labels: Labels, pieces: list[Labels]) -> Labels | None:
        """The labels that are left when pieces are taken off their beginning, in any order; None if that can't be."""
        whole = self._channels(labels)
        while pieces:
            fits = (i for i, p in enumerate(pieces) if np.array_equal(self._channels(p), whole[: len(p)]))
            start = next(fits, None)
            if start is None:
                return None
            length = len(pieces.pop(start))
            labels, whole = labels[length:], whole[length:]
        return labels

    # --- attributes -------------------------------------------------------------------------------------------------

    def _follow(self, attribute: Attribute, following: Following) -> None:
        self.following[attribute.key] = following
        self._look_again(attribute.key)

    def _hold(self, atom: Atom, reason: str) -> None:
        """This must stay as it is."""
        if isinstance(atom, Attribute):
            self._held.setdefault(atom.key, reason)
            self._look_again(atom.key)
            return
        self._facts.fix(atom.labels, reason)
        key = self._key(atom)
        if key is not None:
            self._staying.add(key)
            # What has tied another width to this one now says that the other stays, too.
            self._unused.update(dict.fromkeys(self._waiting.get(key, ())))
            self._look_again(key)

    def _look_again(self, key: Key) -> None:
        self._queue.extend(self._waiting.pop(key, ()))

    def _hold_one(self, equation: SizeEquation) -> bool:
        """Hold one attribute that nothing defines; False if there is none.

        First one that would have to grow when what is measured shrinks: a subtrahend or a divisor.
        """
        growing = chain(*(t.up if t.times > 0 else t.down for t in equation.size.terms))
        in_order = (*(a for a in growing if isinstance(a, Attribute) and self._is_free(a)), *self._free(equation.size))
        if in_order:
            self._hold(in_order[0], equation.reason)
        return bool(in_order)

    def _free(self, size: Expression) -> Iterator[Attribute]:
        return (attribute for attribute in _attributes(size) if self._is_free(attribute))

    def _is_free(self, attribute: Attribute) -> bool:
        return attribute.key not in self._held and attribute.key not in self.following


def _attributes(size: Expression) -> Iterator[Attribute]:
    return (atom for atom in size.atoms() if isinstance(atom, Attribute))

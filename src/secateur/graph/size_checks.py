"""Whether the sizes in the code agree with the shapes, however much is kept: what doesn't is pinned.

Once equations are taken apart (``equations``) and counts settled (``solve``), every size is a linear form in the
fractions that ties keep, or made of such forms. An equation must be an identity in these fractions, and a quotient a
whole number for all that can be kept. So no size in the code can contradict the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from secateur.graph.equations import SizeEquations
from secateur.graph.expression import Atom, Count, Expression, Term
from secateur.graph.labels import NONE, Counted, EqualCounts, Facts, Labels, Whole

if TYPE_CHECKING:
    from secateur.graph.solution import Solution

Kept = Callable[[Labels], "dict[int, int] | None"]
"""How many of some labels stay, as multiples of the fractions that ties keep (tie -1: all); None if it depends."""

Coarsen = Callable[[int, int], bool]
"""Let a tie keep only multiples of one in so many of its channels; False, and nothing changes, if it can't."""

_Form = dict[int, Fraction]
"""By tie, how often the fraction that it keeps; tie -1 keeps all."""

_ALWAYS = -1
_POINTS = 3
"""Random fractions at which an identity is checked; that a false one passes even once is next to impossible."""


class SizeChecks:
    """The checks of one solution; what fails is pinned in the facts.

    Args:
        facts: the trace's.
        sizes: its equations, taken apart for this solution.
        solution: channels and groups.
        kept: what ties and blocks say of numbers of labels.
    """

    def __init__(self, facts: Facts, sizes: SizeEquations, solution: Solution, kept: Kept) -> None:
        self._facts = facts
        self._following = sizes.following
        self._solution = solution
        self._kept = kept
        self._forms: dict[int, tuple[Labels, _Form | None]] = {}
        self._rng = np.random.default_rng(0)

    def equations(self) -> list[EqualCounts]:
        """Check that the equations are identities.

        Returns:
            Equal counts that make a cut follow; what is pinned instead is in the facts.
        """
        return [cut for e in self._facts.equations for cut in self._check(e.size, e.reason, self._is_identity)]

    def comparisons(self) -> list[EqualCounts]:
        """See to it that what is compared depends on how much is kept alone, not on what.

        Returns:
            As :meth:`equations`.
        """
        return [cut for c in self._facts.comparisons for cut in self._check(c.size, c.reason, lambda size: True)]

    def wholes(self, coarsen: Coarsen) -> list[EqualCounts]:
        """Check that quotients stay whole numbers, in steps as coarse as that takes.

        Returns:
            As :meth:`equations`.
        """
        quotients = list(self._facts.wholes)
        for key, following in self._following.items():
            if following.ratio.denominator > 1:
                part = Expression((Term(following.ratio, (Count(following.labels),)),))
                quotients.append(Whole(part, f"{key}, a part of a width"))
        return [
            cut for q in quotients for cut in self._check(q.size, q.reason, lambda s: self._stays_whole(s, coarsen))
        ]

    def _check(self, size: Expression, reason: str, holds: Callable[[Expression], bool]) -> Iterator[EqualCounts]:
        counted = [labels for labels, _ in map(self._resolved, size.atoms()) if labels is not None]
        loose = [labels for labels in counted if self._form_of(labels) is None]
        for labels in loose:
            yield from self._cut(labels, reason)
        if not loose and not holds(size):
            for labels in counted:
                self._facts.fix(labels, f"sizes that can't all follow: {reason}")

    # --- sizes as forms ---------------------------------------------------------------------------------------------

    def _resolved(self, atom: Atom) -> tuple[Labels | None, Fraction]:
        """Labels that an atom counts, and how often; None and its value, if it counts none."""
        if isinstance(atom, Count):
            return atom.labels, Fraction(1)
        if atom.key in self._following:
            return self._following[atom.key].labels, self._following[atom.key].ratio
        return None, Fraction(atom.value)

    def _form_of(self, labels: Labels) -> _Form | None:
        if id(labels) not in self._forms:
            kept = self._kept(labels)
            form = None if kept is None else {tie: Fraction(times) for tie, times in kept.items() if times}
            # The labels are kept beside their form, so that no others can take their id.
            self._forms[id(labels)] = labels, form
        return self._forms[id(labels)][1]

    def _form(self, atom: Atom) -> _Form:
        labels, ratio = self._resolved(atom)
        form = {_ALWAYS: Fraction(1)} if labels is None else self._form_of(labels) or {}
        return {tie: times * ratio for tie, times in form.items()}

    def _is_identity(self, size: Expression) -> bool:
        if all(len(term.up) <= 1 and not term.down for term in size.terms):
            return not any(self._sum(size).values())
        forms = {id(atom): self._form(atom) for atom in size.atoms()}
        ties = {tie for form in forms.values() for tie in form}
        for _ in range(_POINTS if ties != {_ALWAYS} else 1):
            at = {tie: Fraction(int(self._rng.integers(1, 1000)), 1009) for tie in sorted(ties)} | {
                _ALWAYS: Fraction(1)
            }
            values = {i: sum((at[tie] * n for tie, n in form.items()), Fraction(0)) for i, form in forms.items()}
            if _value(size, values) != 0:
                return False
        return True

    def _sum(self, size: Expression) -> _Form:
        """The form of an expression whose terms are atoms, or numbers."""
        total: _Form = {}
        for term in size.terms:
            for tie, times in (self._form(term.up[0]) if term.up else {_ALWAYS: Fraction(1)}).items():
                total[tie] = total.get(tie, Fraction(0)) + times * term.times
        return total

    def _stays_whole(self, size: Expression, coarsen: Coarsen) -> bool:
        """Whether a size stays a whole number, once the ties that it counts are coarse enough."""
        total: _Form = {}
        for term in size.terms:
            form = self._linear(term)
            if form is None:
                return False
            for tie, times in form.items():
                total[tie] = total.get(tie, Fraction(0)) + times
        ties = {tie: times for tie, times in total.items() if times and tie != _ALWAYS}
        if any(times.denominator > 1 for times in ties.values()):
            return False
        return all(coarsen(tie, int(times)) for tie, times in ties.items())

    def _linear(self, term: Term) -> _Form | None:
        """A term as a linear form, nothing if it is whole anyway; None if it is no linear form."""
        times = term.times
        up, down = [self._form(atom) for atom in term.up], [self._form(atom) for atom in term.down]
        for divisor in down:
            dividend = next((form for form in up if _ratio(form, divisor) is not None), {_ALWAYS: Fraction(1)})
            ratio = _ratio(dividend, divisor)
            if ratio is None:
                return None
            times *= ratio
            up = [form for form in up if form is not dividend]
        constants = [form for form in up if form.keys() <= {_ALWAYS}]
        for form in constants:
            times *= form.get(_ALWAYS, Fraction(0))
        varying = [form for form in up if not form.keys() <= {_ALWAYS}]
        if len(varying) > 1:
            return {} if times.denominator == 1 else None
        return {tie: n * times for tie, n in varying[0].items()} if varying else {}

    # --- cuts -------------------------------------------------------------------------------------------------------

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


def _value(size: Expression, values: dict[int, Fraction]) -> Fraction:
    """The expression's value, given those of its atoms by their ``id``."""
    return size.value(lambda atom: values[id(atom)])


def _ratio(above: _Form, below: _Form) -> Fraction | None:
    """How often one form contains another; None if that depends on what is kept."""
    if above.keys() != below.keys():
        return None
    ratios = {times / below[tie] for tie, times in above.items()}
    return ratios.pop() if len(ratios) == 1 else None

"""Where the sizes in the code come from: what each counts, in which run, and what happens to it there."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from fractions import Fraction

from secateur.graph.expression import Count, Expression
from secateur.graph.labels import Comparison, Labels, Relation, SizeEquation, Whole
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

    def note_number(self, what: str) -> None:
        """The size is used as a number (a scale, say), not as a size: removing is then not the same as zeroing."""
        reason = f"width used as a number by {what} ({self.tracer.where()})"
        for atom in self.size.atoms():
            if isinstance(atom, Count):
                self.tracer.mix(atom.labels, reason)
            else:
                self.tracer.facts.numbers.append((atom, reason))
        if self.size.only is None:
            self._keeps_sign()

    def _keeps_sign(self) -> None:
        """A difference may be divided by, or have a root: it must not come to be zero, or change its sign."""
        value = self.size.value(lambda atom: Fraction(atom.value))
        if value:
            self.keeps_relation(operator.gt if value > 0 else operator.lt, self.size)

    def pin(self, what: str) -> None:
        """The size goes into something that can't be followed."""
        place = self.tracer.where()
        for atom in self.size.atoms():
            if isinstance(atom, Count):
                self.tracer.facts.fix(atom.labels, f"width goes through {what} ({place})")
            else:
                self.tracer.facts.held.setdefault(atom.key, f"{atom.key} goes through {what} ({place})")

    def stays_whole(self, what: str) -> None:
        """The size, a quotient, is a whole number and must stay one."""
        self.tracer.facts.wholes.append(Whole(self.size, f"{what} ({self.tracer.where()})"))

    def stays_zero(self, difference: Expression, what: str) -> None:
        """A difference of this size and another is zero and must stay so."""
        self.tracer.facts.equations.append(SizeEquation(difference, f"{what} by {self.tracer.where()}", None))

    def keeps_relation(self, relation: Relation, difference: Expression) -> None:
        """A difference of this size and another has this relation to zero, and the code has asked for it."""
        reason = f"compared by {self.tracer.where()}"
        self.tracer.facts.comparisons.append(Comparison(difference, relation, reason))

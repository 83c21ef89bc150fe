"""Labels: one integer per index of every axis, the equalities between them, and what else a trace learns of them.

A tensor's labels are a tuple of *factors*. A factor with one dimension says which label each index along it carries.
A factor with several dimensions comes from splitting an axis, ``(h*d)`` into ``(h, d)``: its last dimension is the
one along which indices can leave, separately for every index of the dimensions before it (the *rows*), as long as
every row keeps the same number. An element leaves with any label that it carries; a dimension without a factor never
shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from secateur.graph.expression import Attribute, Expression

Labels = NDArray[np.int64]

NONE = -1
"""The label of an index that carries no parameter's index and always stays."""


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class Factor:
    """Labels over one or several dimensions of a tensor.

    Attributes:
        dims: the dimensions; the rows first, in any order, and last the one along which indices can leave.
        labels: one label per index, shape (size of dims[0], size of dims[1], ...).
    """

    dims: tuple[int, ...]
    labels: Labels

    @property
    def free(self) -> int:
        """The dimension along which indices can leave."""
        return self.dims[-1]

    def moved(self, to: dict[int, int] | Sequence[int]) -> Factor:
        """The same labels on other dimensions: ``to`` maps old to new."""
        return Factor(tuple([to[d] for d in self.dims]), self.labels)

    def ordered(self, dims: Sequence[int]) -> Labels:
        """The labels with their axes in the order ``dims``, a permutation of this factor's."""
        if tuple(dims) == self.dims:
            return self.labels
        return self.labels.transpose([self.dims.index(d) for d in dims])


Factors = tuple[Factor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Labels whose kept count, times ``weight``, enters an equality of counts."""

    labels: Labels
    weight: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class EqualCounts:
    """Every entry keeps the same weighted number of labels; all entries have equal totals before pruning."""

    entries: tuple[Counted, ...]
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Noted:
    """Labels with a remark: why they must stay, or what mixes them.

    Attributes:
        labels: the labels.
        reason: the remark.
        by_width: the labels are mixed only by a division by the square root of their number.
    """

    labels: Labels
    reason: str
    by_width: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SizeEquation:
    """An expression in kept counts and attributes that must stay zero.

    Attributes:
        size: the expression.
        reason: where it comes from.
        labels: the labels that a size given in the code measures; the expression is their number less that size. None
            for two sizes that are compared.
    """

    size: Expression
    reason: str
    labels: Labels | None


Relation = Callable[[Any, Any], Any]
"""A comparison, such as ``operator.lt``."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """An expression in kept counts and attributes whose relation to zero the code has asked for: it must stay."""

    size: Expression
    relation: Relation
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """An expression in kept counts and attributes, an exact quotient, that must stay a whole number."""

    size: Expression
    reason: str


@dataclass(slots=True)
class Facts:
    """Everything a trace learns of its labels, as arrays, solved once at the end."""

    size: int = 0
    equal: list[tuple[Labels, Labels]] = field(default_factory=list)
    fixed: list[Noted] = field(default_factory=list)
    mixed: list[Noted] = field(default_factory=list)
    counts: list[EqualCounts] = field(default_factory=list)
    equations: list[SizeEquation] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    wholes: list[Whole] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)
    """Attributes that must keep their value, and why."""
    numbers: list[tuple[Attribute, str]] = field(default_factory=list)
    """Attributes that are used as numbers, and where."""
    _stay: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """Shape (labels or more,); whether each is fixed."""

    def fresh(self, count: int) -> Labels:
        """``count`` labels never used before."""
        labels = np.arange(self.size, self.size + count, dtype=np.int64)
        self.size += count
        return labels

    def equate(self, a: Labels, b: Labels, reason: str) -> None:
        """Labels at equal places leave together; a place without a label on one side pins the other side's."""
        if a is b:
            return
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        a, b = a.ravel(), b.ravel()
        differ = a != b
        count = np.count_nonzero(differ)
        if count == 0:
            return
        if count < len(a):
            a, b = a[differ], b[differ]
        lone = np.minimum(a, b) == NONE
        if np.count_nonzero(lone):
            self.fix(np.maximum(a[lone], b[lone]), reason)
            a, b = a[~lone], b[~lone]
        if len(a):
            self.equal.append((a, b))

    def equate_all(self, labels: Labels, others: Sequence[Labels], reason: str) -> None:
        """``equate`` with each of several arrays; those of one shape at once, which is cheaper."""
        if len(others) > 1 and all(other.shape == labels.shape for other in others):
            flat = [other.ravel() for other in others]
            self.equate(np.concatenate([labels.ravel()] * len(flat)), np.concatenate(flat), reason)
            return
        for other in others:
            self.equate(labels, other, reason)

    def fix(self, labels: Labels, reason: str) -> None:
        """These labels must stay, for this reason."""
        labels = _distinct(labels)
        if labels.size:
            self.fixed.append(Noted(labels, reason))
            missing = max(self.size, int(labels[-1]) + 1) - len(self._stay)
            if missing > 0:
                # Twice as many as needed, so that growing costs no more than filling.
                self._stay = np.append(self._stay, np.zeros(missing + self.size, dtype=bool))
            self._stay[labels] = True

    def stays(self, labels: Labels) -> bool:
        """Whether all of these labels are known to stay by now."""
        known = labels[labels != NONE]
        return int(known.max(initial=NONE)) < len(self._stay) and bool(self._stay[known].all())

    def mix(self, labels: Labels, reason: str, *, by_width: bool = False) -> None:
        """An operation mixes these labels, so that removing one is not the same as zeroing it."""
        self.mixed.append(Noted(_distinct(labels), reason, by_width))

    def balance(self, rows: Labels, reason: str) -> None:
        """Every row of a (rows, columns) array keeps the same number of labels."""
        if not ascending(rows.ravel()):
            rows = np.unique(rows, axis=0)
        if len(rows) > 1:
            self.counts.append(EqualCounts(tuple(Counted(row) for row in rows), reason))

    def same_count(self, a: Labels, b: Labels, reason: str, *, weight_a: int = 1, weight_b: int = 1) -> None:
        """``weight_a`` times the kept count of ``a`` equals ``weight_b`` times that of ``b``."""
        if weight_a == weight_b and a.shape == b.shape and np.array_equal(a, b):
            return
        pieces = _equal_pieces(a.ravel(), b.ravel(), weight_b, weight_a)
        if pieces is not None:
            self.balance(pieces, reason)
            return
        self.counts.append(EqualCounts((Counted(a.ravel(), weight_a), Counted(b.ravel(), weight_b)), reason))


def ascending(labels: Labels) -> bool:
    """Whether every label is greater than the one before it."""
    return bool(np.count_nonzero(labels[1:] > labels[:-1]) == len(labels) - 1)


def _distinct(labels: Labels) -> Labels:
    """The labels, ascending and each once, without ``NONE``; as they are, nearly always."""
    flat = labels.ravel()
    if len(flat) and flat[0] >= 0 and ascending(flat):
        return flat
    found = np.unique(flat)
    return np.asarray(found[found != NONE])


def _equal_pieces(part: Labels, whole: Labels, times: int, over: int) -> Labels | None:
    """``whole`` cut into equal pieces, if ``part`` is ``times / over`` of it and begins at a cut; else None."""
    share = Fraction(times, over)
    if share >= 1 or len(whole) % share.denominator:
        return None
    pieces = whole.reshape(share.denominator, -1)
    starts = range(0, len(whole) - len(part) + 1, pieces.shape[1])
    return pieces if any(np.array_equal(part, whole[s : s + len(part)]) for s in starts) else None


def labels_along(factors: Iterable[Factor], dim: int) -> Labels | None:
    """The labels along one dimension, None if it has none; of a split axis, the first row's."""
    for factor in factors:
        if dim == factor.free:
            first: Labels = factor.labels.reshape(-1, factor.labels.shape[-1])[0]
            return first
        if dim in factor.dims:
            return None
    return None

"""What a rule sees of one operator call, and the table of rules.

A rule is a pure function from an :class:`OpCall` to the labels of the call's outputs, one ``Factors`` per output
tensor. It sees ATen operators, shapes and labels, never modules. Rules are registered by operator name without
overload; the in-place and ``out=`` variants of an operator share its rule. Operators that torch composes of others
never reach the tracer as themselves, so that they need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factor, Factors, Facts, Labels


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class Masked:
    """An argument whose removed indices must be zero for masking to equal removal: it is summed over them."""

    tensor: torch.Tensor
    factor: Factor


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class Extents:
    """The multiply-adds of one call: a constant times the number of kept entries of each label array."""

    constant: int
    arrays: tuple[Labels, ...]


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class Term:
    """An operand of a contraction; ``tensor`` is None for an intermediate result that no one can mask."""

    factors: Factors
    shape: tuple[int, ...]
    tensor: torch.Tensor | None


@dataclass(slots=True)
class OpCall:
    """One executed operator.

    Attributes:
        name: operator without namespace of overloads, such as ``aten.add``.
        arguments: schema argument names to values, defaults filled in.
        outputs: the output tensors, flattened.
        labels_of: labels of a tensor seen so far.
        is_weight: whether a tensor was made from parameters alone.
        scales: whether a tensor is scaled along when everything that makes its channels is scaled.
        facts: where equalities go.
        where: module path and source line, for reasons.
        flexible: output dimensions of a reshape that follow its input; None if unknown.
        sized: whether every piece of a split is given a size of its own.
        resizable: whether the operator's integer arguments are attributes of the module that calls it, so that surgery
            can change them.
        masked, macs, consumed, produced, counted: what the rule writes down beside labels.
        given: the tensors among the arguments, flattened.
        positions: outputs, by number, that hold positions along these labels: once one is used, the labels must stay.
    """

    name: str
    arguments: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]
    labels_of: Callable[[torch.Tensor], Factors]
    is_weight: Callable[[torch.Tensor], bool]
    scales: Callable[[torch.Tensor], bool]
    facts: Facts
    where: str
    flexible: frozenset[int] | None = None
    sized: bool = False
    resizable: bool = False
    masked: list[Masked] = field(default_factory=list)
    macs: list[Extents] = field(default_factory=list)
    consumed: list[Labels] = field(default_factory=list)
    produced: list[Labels] = field(default_factory=list)
    counted: dict[str, Labels] = field(default_factory=dict)
    positions: dict[int, Factors] = field(default_factory=dict)
    given: tuple[torch.Tensor, ...] = ()
    _site: str = ""

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    @property
    def site(self) -> str:
        """Operator and place, for reasons."""
        if not self._site:
            self._site = f"{self.name} in {self.where}"
        return self._site

    @property
    def out(self) -> torch.Tensor:
        """The first output."""
        return self.outputs[0]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All tensor arguments, those in lists too."""
        return self.given

    def factors(self, argument: str) -> Factors:
        """Labels of a tensor argument; none if it is not given."""
        tensor = self.arguments[argument]
        return self.labels_of(tensor) if tensor is not None else ()

    def dim(self, argument: str = "dim", of: str = "self") -> int:
        """A dimension argument, made non-negative."""
        rank: int = self.arguments[of].dim()
        return int(self.arguments[argument]) % max(rank, 1)

    def fix(self, labels: Labels, what: str) -> None:
        """Pin labels, with this call as the place."""
        self.facts.fix(labels, f"{what} ({self.site})")

    def fix_dims(self, factors: Factors, dims: Sequence[int], what: str) -> Factors:
        """Pin what could leave along ``dims``, and return the others; those with rows there lose the same of each."""
        if all(d not in dims for f in factors for d in f.dims):
            return factors
        result = []
        for factor in factors:
            if factor.free in dims:
                self.fix(factor.labels, what)
            elif set(factor.dims) & set(dims):
                result.append(algebra.collapse(self.facts, factor, factor.free, f"{what} ({self.site})"))
            else:
                result.append(factor)
        return tuple(result)

    def fix_all(self, tensors: Iterable[torch.Tensor], what: str) -> None:
        """Pin every label of these tensors."""
        for tensor in tensors:
            for factor in self.labels_of(tensor):
                self.fix(factor.labels, what)

    def mix(self, factors: Factors, what: str, *, by_width: bool = False) -> None:
        """Note that this call mixes these labels; ``by_width``, only by the square root of their number."""
        for factor in factors:
            self.facts.mix(factor.labels, f"{what} ({self.where})", by_width=by_width)

    def aligned(self, tensors: Sequence[torch.Tensor], rank: int) -> Factors:
        """Labels of tensors broadcast together to ``rank`` dimensions; producers among them are recorded."""
        self.record_produced(tensors)
        operands = [Operand.broadcast(self.labels_of(t), t.shape, rank) for t in tensors]
        return algebra.align(self.facts, operands, self.site)

    def record_produced(self, tensors: Sequence[torch.Tensor]) -> None:
        """Parameters that meet activations index by index transform their channels: producer axes."""
        weights = [t for t in tensors if self.is_weight(t)]
        if len(weights) < len(tensors):
            self.produced.extend(f.labels for t in weights for f in self.labels_of(t))

    def term(self, tensor: torch.Tensor) -> Term:
        """A tensor as an operand of :meth:`contract`."""
        return Term(self.labels_of(tensor), tuple(tensor.shape), tensor)

    def contract(self, spec: str, *terms: Term) -> Factors:
        """Labels of an einsum, such as ``"mk,kn->mn"``.

        Letters that the output lacks are summed over: their labels end here. Extents, masks and roles are recorded.
        """
        einsum = _einsum(spec)
        sizes = [1] * einsum.rank
        operands = []
        for term, place in zip(terms, einsum.places, strict=True):
            extents = [1] * einsum.rank
            for size, p in zip(term.shape, place, strict=True):
                extents[p] = size
                if size != 1:
                    sizes[p] = size
            operands.append(Operand(tuple([f.moved(place) for f in term.factors]), tuple(extents)))
        factors = algebra.align(self.facts, operands, self.site)
        remaining, summed = algebra.reduce(self.facts, factors, einsum.gone, self.site)
        self._record_roles(terms, operands, einsum.gone)
        self._record_masks(terms, einsum.places, summed)
        self.macs.append(extents_of((*remaining, *summed), sizes))
        return tuple([f.moved(einsum.out) for f in remaining])

    def add_last(self, factors: Factors, bias: torch.Tensor | None) -> Factors:
        """Labels once ``bias`` is added, broadcast, to an output with these labels."""
        if bias is None:
            return factors
        if self.is_weight(bias):
            self.produced.extend(f.labels for f in self.labels_of(bias))
        added = Operand.broadcast(self.labels_of(bias), bias.shape, self.out.dim())
        return algebra.align(self.facts, [Operand(factors, tuple(self.out.shape)), added], self.site)

    def _record_roles(self, terms: Sequence[Term], operands: Sequence[Operand], gone: frozenset[int]) -> None:
        for term, operand in zip(terms, operands, strict=True):
            if term.tensor is not None and self.is_weight(term.tensor):
                for factor in operand.factors:
                    (self.produced if gone.isdisjoint(factor.dims) else self.consumed).append(factor.labels)

    def _record_masks(self, terms: Sequence[Term], places: Sequence[Sequence[int]], summed: Factors) -> None:
        for factor in summed:
            for term, place in zip(terms, places, strict=True):
                if term.tensor is not None and set(factor.dims) <= set(place):
                    back = {p: d for d, p in enumerate(place)}
                    self.masked.append(Masked(term.tensor, factor.moved(back)))
                    break


@dataclass(frozen=True, slots=True)
class _Einsum:
    """An einsum read: dimensions of the joint index space.

    Attributes:
        rank: how many there are.
        places: of every operand's dimensions.
        gone: those that are summed over.
        out: of those that stay, to the output's dimensions.
    """

    rank: int
    places: tuple[tuple[int, ...], ...]
    gone: frozenset[int]
    out: dict[int, int]


@cache
def _einsum(spec: str) -> _Einsum:
    inputs, out = spec.split("->")
    joint = {letter: i for i, letter in enumerate(dict.fromkeys(inputs.replace(",", "")))}
    return _Einsum(
        rank=len(joint),
        places=tuple(tuple(joint[letter] for letter in term) for term in inputs.split(",")),
        gone=frozenset(joint[letter] for letter in joint if letter not in out),
        out={joint[letter]: i for i, letter in enumerate(out)},
    )


def extents_of(factors: Factors, sizes: Sequence[int]) -> Extents:
    """The number of points of a joint index space, as a product over its factors."""
    arrays: list[Labels] = []
    covered: set[int] = set()
    for factor in factors:
        # Rows that another factor already counts are counted once.
        place = tuple(0 if dim in covered else slice(None) for dim in factor.dims)
        covered |= set(factor.dims)
        arrays.append(factor.labels[place].ravel())
    constant = 1
    for dim, size in enumerate(sizes):
        if dim not in covered:
            constant *= size
    return Extents(constant, tuple(arrays))


Rule = Callable[[OpCall], Sequence[Factors]]
_AnyRule = Callable[..., Sequence[Factors]]

RULES: dict[str, Rule] = {}
"""Operator name (``aten.add``) to rule."""

WHOLE = frozenset({"aten.linear", "aten.batch_norm"})
"""Operators that torch composes of others, and that are followed whole where they can be (``Tracer.runs_whole``)."""


def names(text: str) -> tuple[str, ...]:
    """The words of a table of operators."""
    return tuple(text.split())


def rule(*operators: str, **settings: Any) -> Callable[[_AnyRule], _AnyRule]:
    """Register a rule for these operators, with ``settings`` bound to its keyword arguments.

    Raises:
        ValueError: one of them has a rule already.
    """

    def register(function: _AnyRule) -> _AnyRule:
        for name in operators:
            key = name if "." in name else f"aten.{name}"
            if key in RULES:
                raise ValueError(f"{key} already has a rule")
            RULES[key] = partial(function, **settings) if settings else function
        return function

    return register


def find_rule(packet: str) -> Rule | None:
    """The rule of an operator packet, or of its whole namespace (``quantized.*``).

    An in-place operator (``aten.add_``) has the rule of its functional form.
    """
    found = RULES.get(packet)
    if found is None and packet.endswith("_") and not packet.endswith("__"):
        found = RULES.get(packet[:-1])
    return found or RULES.get(f"{packet.partition('.')[0]}.*")

"""The closed vocabulary of label maps: align, reduce, contract, reshape, permute, index.

Every operator rule is written with these few functions. They take and return factors (see ``labels``) and write what
they learn into ``Facts``. Costs are linear in the number of labels touched; nothing runs per channel.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from secateur.graph.labels import NONE, Factor, Factors, Facts, Labels, ascending

NO_INDEX = "meets an axis that carries no parameter's index"


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class Operand:
    """A tensor placed in a joint index space: its factors there, and its extents (1 where it is broadcast)."""

    factors: Factors
    extents: tuple[int, ...]

    @classmethod
    def broadcast(cls, factors: Factors, shape: Sequence[int], rank: int) -> Operand:
        """A tensor of this shape among tensors of up to ``rank`` dimensions, which are aligned from the last on."""
        shift = rank - len(shape)
        if not shift:
            return cls(factors, tuple(shape))
        to = range(shift, rank)
        return cls(tuple([f.moved(to) for f in factors]), (1,) * shift + tuple(shape))


def collapse(facts: Facts, factor: Factor, onto: int, reason: str) -> Factor:
    """Give up a factor's other dimensions: along ``onto``, equal indices leave together whatever the others are."""
    if factor.dims == (onto,):
        return factor
    rest = tuple(d for d in factor.dims if d != onto)
    labels = factor.ordered((*rest, onto)).reshape(-1, factor.labels.shape[factor.dims.index(onto)])
    facts.equate(labels[1:], labels[:1], reason)
    return Factor((onto,), labels[0])


def align(facts: Facts, operands: Sequence[Operand], where: str) -> Factors:
    """Unify operands that meet index by index: aligned labels leave together.

    A label that meets an index without one (of a dimension that isn't broadcast) is pinned.
    """
    if len(operands) == 1:
        return operands[0].factors
    merged: dict[tuple[int, ...], Factor] = {}
    compatible = _compatible(facts, operands, where)
    others: dict[tuple[int, ...], list[Labels]] = {}
    for factors in compatible:
        for factor in factors:
            met = merged.setdefault(factor.dims, factor)
            if met.labels is not factor.labels:
                others.setdefault(factor.dims, []).append(factor.labels)
    for dims, meeting in others.items():
        facts.equate_all(merged[dims].labels, meeting, f"{NO_INDEX} ({where})")
    for operand, factors in zip(operands, compatible, strict=True):
        if len(factors) == len(merged):
            continue
        present = {f.dims for f in factors}
        for dims, met in merged.items():
            if dims not in present and operand.extents[dims[-1]] > 1:
                facts.fix(met.labels, f"{NO_INDEX} ({where})")
    return tuple(merged.values())


def _compatible(facts: Facts, operands: Sequence[Operand], where: str) -> list[Factors]:
    """The operands' factors, with split axes collapsed where another operand sees their dimensions differently."""
    if all(len(f.dims) == 1 for operand in operands for f in operand.factors):
        return [operand.factors for operand in operands]
    dims_sets = {f.dims for operand in operands for f in operand.factors}
    rows = {d for dims in dims_sets for d in dims[:-1]}
    operands = [_without_fixed_rows(facts, operand, rows) for operand in operands]
    dims_sets = {f.dims for operand in operands for f in operand.factors}
    target = {dims: _target(dims, dims_sets) for dims in dims_sets if len(dims) > 1}
    reason = f"two views of one axis ({where})"
    result = []
    for operand in operands:
        factors = []
        for factor in operand.factors:
            onto = target.get(factor.dims, factor.dims)
            if len(onto) == 1:
                factors.append(collapse(facts, factor, onto[0], reason))
            else:
                factors.append(Factor(onto, factor.ordered(onto)))
        result.append(tuple(factors))
    return result


def _without_fixed_rows(facts: Facts, operand: Operand, rows: set[int]) -> Operand:
    """The operand without labels that stay anyway, where a split axis of another operand has rows.

    They ask nothing of it: a head's own bias, say, of a head that can't leave.
    """
    kept = tuple(f for f in operand.factors if len(f.dims) > 1 or f.free not in rows or not facts.stays(f.labels))
    return operand if len(kept) == len(operand.factors) else Operand(kept, operand.extents)


def _target(dims: tuple[int, ...], others: set[tuple[int, ...]]) -> tuple[int, ...]:
    """The dimensions a split axis must live on, beside factors on ``others``."""
    overlapping = [o for o in others if o != dims and set(o) & set(dims)]
    same_split = [o for o in overlapping if set(o) == set(dims) and o[-1] == dims[-1]]
    if len(same_split) == len(overlapping):
        return (*sorted(dims[:-1]), dims[-1])
    if any(o[-1] == dims[-1] for o in overlapping):
        return (dims[-1],)
    rows = [o[0] for o in overlapping if len(o) == 1]
    return (rows[0],) if rows else (dims[-1],)


def reduce(facts: Facts, factors: Factors, dims: Collection[int], where: str) -> tuple[Factors, Factors]:
    """Reduce over ``dims`` without renumbering the rest: (what remains, what was summed over)."""
    gone = frozenset(dims)
    remaining, summed = [], []
    for factor in factors:
        if gone.isdisjoint(factor.dims):
            remaining.append(factor)
        elif factor.free in gone:
            summed.append(factor)
        else:
            # Rows are summed into one, so that they must agree on which indices stay.
            remaining.append(collapse(facts, factor, factor.free, f"rows summed ({where})"))
    return tuple(remaining), tuple(summed)


def permute(factors: Factors, order: Sequence[int]) -> Factors:
    """Labels of ``tensor.permute(order)``."""
    to = {old: new for new, old in enumerate(order)}
    return tuple(f.moved(to) for f in factors)


def renumber_without(factors: Factors, dims: Sequence[int], rank: int) -> Factors:
    """Labels once ``dims``, which carry none, are dropped from a tensor of ``rank`` dimensions."""
    order = [d for d in range(rank) if d not in set(dims)]
    return permute(factors, order) if order else ()


def take(facts: Facts, factors: Factors, dim: int, index: Labels) -> Factors:
    """Labels after indexing ``dim`` with positions ``index``; -1 is a position without a label (padding).

    The only index taken of a longer axis must stay: an axis of length one carries no labels.
    """
    result = []
    for factor in factors:
        if dim not in factor.dims:
            result.append(factor)
            continue
        padded = np.count_nonzero(index < 0) > 0
        if dim != factor.free and padded:
            # A row of padding shrinks with the others, which must then lose equal indices.
            result.append(collapse(facts, factor, factor.free, "rows padded"))
            continue
        axis = factor.dims.index(dim)
        labels = factor.labels.take(np.maximum(index, 0) if padded else index, axis=axis)
        if padded:
            shape = [1] * labels.ndim
            shape[axis] = -1
            labels = np.where((index < 0).reshape(shape), NONE, labels)
        if len(index) == 1 and dim == factor.free and factor.labels.shape[axis] > 1:
            facts.fix(labels, "the only index taken of an axis")
        result.extend(squeezed(Factor(factor.dims, labels)))
    return tuple(result)


def squeezed(factor: Factor) -> Factors:
    """The factor without the dimensions along which its labels don't vary; nothing if no label is left."""
    labels, dims = factor.labels, list(factor.dims)
    if labels.size == 0:
        return ()
    for axis in reversed(range(len(dims))):
        if labels.shape[axis] == 1 or (len(dims) > 1 and _is_constant(labels, axis)):
            labels = np.take(labels, 0, axis=axis)
            del dims[axis]
    if not dims or not np.count_nonzero(labels != NONE):
        return ()
    if len(dims) == len(factor.dims):
        return (factor,)
    return (Factor(tuple(dims), labels),)


def _is_constant(labels: Labels, axis: int) -> bool:
    """Whether labels are the same all along an axis of two or more."""
    second = [0] * labels.ndim
    second[axis] = 1
    # Nearly always the first two tell.
    return labels.item(0) == labels.item(*second) and bool((labels == labels.take([0], axis=axis)).all())


def select(facts: Facts, factors: Factors, dim: int, position: int, rank: int) -> Factors:
    """Labels of ``tensor.select(dim, position)``."""
    taken = take(facts, factors, dim, np.array([position]))
    # A dimension of length one carries no labels, whatever the factor.
    return renumber_without(tuple(f for f in taken if dim not in f.dims), [dim], rank)


@dataclass(frozen=True, slots=True)
class Segment:
    """Dimensions of a reshape's input that become dimensions of its output, and nothing else does."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def segments(before: Sequence[int], after: Sequence[int]) -> list[Segment]:
    """The finest decomposition of a reshape into independent segments; sizes of one are left out.

    Of an empty tensor, what is equally long before its first zero on both sides, and after its last.
    """
    # Plain integers: the cache compares them, which a traced size would take for a test by the user's code.
    return list(_segments(tuple(map(int, before)), tuple(map(int, after))))


@lru_cache(maxsize=4096)
def _segments(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[Segment, ...]:
    if 0 in before:
        return _segments_beside_zeros(before, after)
    ins = [d for d, n in enumerate(before) if n != 1]
    outs = [d for d, n in enumerate(after) if n != 1]
    result = []
    i = o = 0
    while i < len(ins) and o < len(outs):
        left, right, i0, o0 = before[ins[i]], after[outs[o]], i, o
        i, o = i + 1, o + 1
        while left != right:
            if left < right:
                left *= before[ins[i]]
                i += 1
            else:
                right *= after[outs[o]]
                o += 1
        result.append(Segment(tuple(ins[i0:i]), tuple(outs[o0:o])))
    return tuple(result)


def _segments_beside_zeros(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[Segment, ...]:
    """The segments of an empty tensor's reshape, in which what lies beside the zeros need not fit."""
    result: list[Segment] = []
    first, first_after = before.index(0), after.index(0)
    if prod(before[:first]) == prod(after[:first_after]):
        result.extend(_segments(before[:first], after[:first_after]))
    last, last_after = (len(shape) - shape[::-1].index(0) for shape in (before, after))
    if prod(before[last:]) == prod(after[last_after:]):
        for part in _segments(before[last:], after[last_after:]):
            inputs, outputs = (d + last for d in part.inputs), (d + last_after for d in part.outputs)
            result.append(Segment(tuple(inputs), tuple(outputs)))
    return tuple(result)


def reshape(
    facts: Facts,
    factors: Factors,
    before: Sequence[int],
    after: Sequence[int],
    where: str,
    *,
    flexible: frozenset[int] | None = None,
) -> Factors:
    """Labels after a reshape.

    Args:
        facts: takes the equalities and the balance that splitting an axis needs.
        factors: labels of the input.
        before: shape of the input.
        after: shape of the output.
        where: the site, for reasons.
        flexible: output dimensions whose size follows the input's (given as -1, or from a shape); None if unknown.
    """
    if not factors:
        return ()
    parts = segments(before, after)
    if 0 in before:
        followed = {d for part in parts for d in part.inputs}
        factors = tuple(f for f in factors if followed.issuperset(f.dims))
    result: list[Factor] = []
    for factor in factors:
        result.extend(_reshape_factor(facts, factor, parts, before, after, where, flexible))
    return _separate(facts, result, where)


def _reshape_factor(
    facts: Facts,
    factor: Factor,
    parts: Sequence[Segment],
    before: Sequence[int],
    after: Sequence[int],
    where: str,
    flexible: frozenset[int] | None,
) -> Factors:
    here = set(factor.dims)
    touched = [p for p in parts if not here.isdisjoint(p.inputs)]
    if all(len(p.inputs) == len(p.outputs) == 1 for p in touched):
        return (factor.moved({p.inputs[0]: p.outputs[0] for p in touched}),)
    factor = _mergeable(facts, factor, touched, where)
    touched = [p for p in touched if set(p.inputs) & set(factor.dims)]
    inputs = [d for p in touched for d in p.inputs]
    outputs = [d for p in touched for d in p.outputs]
    ordered = factor.ordered(sorted(factor.dims))
    expanded = ordered.reshape([before[d] if d in factor.dims else 1 for d in inputs])
    whole = tuple([before[d] for d in inputs])
    if expanded.shape != whole:
        expanded = np.broadcast_to(expanded, whole)
    labels = expanded.reshape([after[d] for d in outputs])
    return tuple(
        done for part in squeezed(Factor(tuple(outputs), labels)) for done in _settle(facts, part, where, flexible)
    )


def _mergeable(facts: Facts, factor: Factor, touched: list[Segment], where: str) -> Factor:
    """A split axis whose free dimension isn't the innermost of those merged with it must have equal rows.

    Otherwise the order of what is kept would not be the order of the original (a channel shuffle, for instance).
    """
    if len(factor.dims) == 1:
        return factor
    home = next(p for p in touched if factor.free in p.inputs)
    after_free = [d for d in factor.dims if d in home.inputs and d > factor.free]
    if after_free:
        return collapse(facts, factor, factor.free, f"interleaved by a reshape ({where})")
    return factor


def _settle(facts: Facts, factor: Factor, where: str, flexible: frozenset[int] | None) -> Factors:
    """Choose where a split axis can lose indices: along the innermost dimension, unless only an outer can shrink."""
    if len(factor.dims) == 1:
        return (factor,)
    dims = tuple(sorted(factor.dims))
    labels = factor.ordered(dims)
    if flexible is not None and dims[-1] not in flexible:
        outer = [d for d in dims[:-1] if d in flexible]
        if outer:
            return (collapse(facts, Factor(dims, labels), outer[-1], f"whole blocks leave ({where})"),)
    rows = labels.reshape(-1, labels.shape[-1])
    if _straddles(rows):
        facts.fix(labels, f"cut across by a reshape ({where})")
    else:
        facts.balance(rows, f"split into equal rows ({where})")
    return (Factor(dims, labels),)


def _straddles(rows: Labels) -> bool:
    """Whether some label is spread unevenly over rows, so that they can't lose equally many places."""
    if ascending(rows.ravel()):
        return False
    rows = np.unique(np.sort(rows, axis=1), axis=0)
    distinct_in_rows = len(rows) + np.count_nonzero(np.diff(rows, axis=1))
    return bool(len(np.unique(rows)) < distinct_in_rows)


def _separate(facts: Facts, factors: list[Factor], where: str) -> Factors:
    """Two tracked axes merged into one dimension: one goes on, the other is pinned.

    The first is one that may yet leave, if there is any, and of these the one with more labels.
    """
    if len(factors) < 2 or sum(len(f.dims) for f in factors) == len({d for f in factors for d in f.dims}):
        return tuple(factors)
    chosen: list[Factor] = []
    for factor in sorted(factors, key=lambda f: (facts.stays(f.labels), -len(np.unique(f.labels)))):
        clash = [c for c in chosen if set(c.dims) & set(factor.dims)]
        if clash:
            facts.fix(factor.labels, f"merged into one dimension with another pruned axis ({where})")
        else:
            chosen.append(factor)
    return tuple(chosen)


def join(facts: Facts, parts: Sequence[Factors], sizes: Sequence[int], dim: int, where: str) -> Factors:
    """Labels of a concatenation along ``dim`` of tensors with these lengths there; other dimensions must agree."""
    others, along = [], []
    for factors in parts:
        kept = tuple(_off_dim(facts, f, dim, where) for f in factors)
        others.append(tuple(f for f in kept if f.free != dim))
        along.append(next((f.labels for f in kept if f.free == dim), None))
    result = list(_agree(facts, others, where))
    if any(labels is not None for labels in along):
        filled = [np.full(n, NONE) if labels is None else labels for labels, n in zip(along, sizes, strict=True)]
        result.append(Factor((dim,), np.concatenate(filled)))
    return tuple(result)


def _off_dim(facts: Facts, factor: Factor, dim: int, where: str) -> Factor:
    if len(factor.dims) > 1 and dim in factor.dims:
        return collapse(facts, factor, factor.free, f"rows joined ({where})")
    return factor


def _agree(facts: Facts, parts: Sequence[Factors], where: str) -> Factors:
    """Tensors laid side by side: where any has labels, all must have equal ones."""
    ranks = max((d for factors in parts for f in factors for d in f.dims), default=-1) + 1
    return align(facts, [Operand(factors, (2,) * ranks) for factors in parts], where)

"""The label algebra: by example, and against brute force on every element of small tensors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur.graph import algebra
from secateur.graph.algebra import Operand, Segment
from secateur.graph.labels import NONE, Factor, Factors, Facts, Labels

Shape = tuple[int, ...]


# --- what labels say of every element ---------------------------------------------------------------------------------


def leaves_with(facts: Facts) -> Labels:
    """The smallest label that leaves together with each."""
    least = np.arange(facts.size)
    pairs = [(x, y) for a, b in facts.equal for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    while any(least[x] != least[y] for x, y in pairs):
        for x, y in pairs:
            least[[x, y]] = min(least[x], least[y])
        least = least[least]
    return least


def pinned(facts: Facts) -> set[int]:
    least = leaves_with(facts)
    return {int(least[label]) for note in facts.fixed for label in note.labels}


def carried(facts: Facts, factors: Factors, shape: Shape) -> list[frozenset[int]]:
    """The channels that each element leaves with, in row-major order, but for those that must stay."""
    least, stay = leaves_with(facts), pinned(facts)
    elements: list[set[int]] = [set() for _ in range(prod(shape))]
    for factor in factors:
        for place, found in zip(np.ndindex(*shape), elements, strict=True):
            label = int(factor.labels[tuple(place[d] for d in factor.dims)])
            if label != NONE and least[label] not in stay:
                found.add(int(least[label]))
    return [frozenset(found) for found in elements]


def labelled(facts: Facts, shape: Shape, dims: Sequence[int] | None = None) -> Factors:
    """Fresh labels on every dimension longer than one."""
    wanted = range(len(shape)) if dims is None else dims
    return tuple(Factor((d,), facts.fresh(shape[d])) for d in wanted if shape[d] > 1)


def texts(factors: Factors) -> list[tuple[tuple[int, ...], list[object]]]:
    return sorted((f.dims, f.labels.tolist()) for f in factors)


# --- reshape ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((2, 3, 4), (2, 3, 4), [((0,), (0,)), ((1,), (1,)), ((2,), (2,))]),
        ((2, 12), (2, 3, 4), [((0,), (0,)), ((1,), (1, 2))]),
        ((2, 3, 4), (6, 4), [((0, 1), (0,)), ((2,), (1,))]),
        ((1, 6, 1), (2, 1, 3), [((1,), (0, 2))]),
        ((4, 6), (3, 8), [((0, 1), (0, 1))]),
        ((2, 6, 5), (4, 3, 5), [((0, 1), (0, 1)), ((2,), (2,))]),
        ((2, 0, 8), (2, 0, 2, 4), [((0,), (0,)), ((2,), (2, 3))]),
        ((0, 8), (1, 0, 8), [((1,), (2,))]),
        ((2, 0, 8), (0, 8), [((2,), (1,))]),
        ((2, 0, 8), (2, 0, 5), [((0,), (0,))]),
        ((0, 3, 0, 4), (0, 4), [((3,), (1,))]),
        ((0, 8), (2, 4, 0, 5, 0, 8), [((1,), (5,))]),
    ],
)
def test_segments(before: Shape, after: Shape, expected: list[tuple[Shape, Shape]]) -> None:
    assert algebra.segments(before, after) == [Segment(*pair) for pair in expected]


def test_split_keeps_every_label() -> None:
    facts = Facts()
    split = algebra.reshape(facts, labelled(facts, (5, 6), [1]), (5, 6), (5, 2, 3), "here")
    assert texts(split) == [((1, 2), [[0, 1, 2], [3, 4, 5]])]
    assert not facts.equal
    assert [entry.labels.tolist() for entry in facts.counts[0].entries] == [[0, 1, 2], [3, 4, 5]]


def test_split_and_merge_is_exact() -> None:
    facts = Facts()
    start = labelled(facts, (5, 6))
    split = algebra.reshape(facts, start, (5, 6), (5, 2, 3), "here")
    merged = algebra.reshape(facts, split, (5, 2, 3), (5, 6), "there")
    assert texts(merged) == texts(start)
    assert not facts.equal
    assert not facts.fixed


def test_heads_moved_in_front_and_back_are_exact() -> None:
    facts = Facts()
    split = algebra.reshape(facts, labelled(facts, (7, 6), [1]), (7, 6), (7, 2, 3), "split")
    moved = algebra.permute(split, [1, 0, 2])
    back = algebra.permute(moved, [1, 0, 2])
    assert texts(algebra.reshape(facts, back, (7, 2, 3), (7, 6), "merge")) == [((1,), list(range(6)))]
    assert not facts.equal


def test_heads_merged_with_the_batch_keep_their_labels() -> None:
    facts = Facts()
    split = algebra.reshape(facts, labelled(facts, (7, 6), [1]), (7, 6), (7, 2, 3), "split")
    merged = algebra.reshape(facts, split, (7, 2, 3), (14, 3), "merge")
    assert [f.dims for f in merged] == [(0, 1)]
    assert merged[0].labels.tolist() == [[0, 1, 2], [3, 4, 5]] * 7
    assert not facts.equal


def test_a_channel_shuffle_ties_the_same_index_of_every_row() -> None:
    facts = Facts()
    split = algebra.reshape(facts, labelled(facts, (1, 6)), (1, 6), (1, 2, 3), "split")
    shuffled = algebra.reshape(facts, algebra.permute(split, [0, 2, 1]), (1, 3, 2), (1, 6), "shuffle")
    assert leaves_with(facts).tolist() == [0, 1, 2, 0, 1, 2]
    assert [leaves_with(facts)[f.labels].tolist() for f in shuffled] == [[0, 0, 1, 1, 2, 2]]


def test_whole_blocks_leave_where_only_the_outer_size_follows() -> None:
    facts = Facts()
    split = algebra.reshape(facts, labelled(facts, (6,)), (6,), (2, 3), "here", flexible=frozenset({0}))
    assert [f.dims for f in split] == [(0,)]
    assert leaves_with(facts).tolist() == [0, 0, 0, 3, 3, 3]
    assert not facts.counts


@pytest.mark.parametrize("flexible", [frozenset({1}), frozenset({0, 1}), frozenset()])
def test_otherwise_the_inner_size_follows(flexible: frozenset[int]) -> None:
    facts = Facts()
    split = algebra.reshape(facts, labelled(facts, (6,)), (6,), (2, 3), "here", flexible=flexible)
    assert [f.dims for f in split] == [(0, 1)]
    assert not facts.equal


def test_merging_pins_the_shorter_of_two_tracked_axes() -> None:
    facts = Facts()
    merged = algebra.reshape(facts, labelled(facts, (2, 3)), (2, 3), (6,), "here")
    assert texts(merged) == [((0,), [2, 3, 4, 2, 3, 4])]
    assert [(n.labels.tolist(), n.reason) for n in facts.fixed] == [
        ([0, 1], "merged into one dimension with another pruned axis (here)")
    ]


def test_flattened_maps_repeat_the_channel() -> None:
    facts = Facts()
    flat = algebra.reshape(facts, labelled(facts, (5, 3, 2, 2), [1]), (5, 3, 2, 2), (5, 12), "here")
    assert texts(flat) == [((1,), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])]
    back = algebra.reshape(facts, flat, (5, 12), (5, 3, 2, 2), "back")
    assert texts(back) == [((1,), [0, 1, 2])]
    assert not facts.equal


def test_an_axis_cut_across_is_pinned() -> None:
    facts = Facts()
    algebra.reshape(facts, labelled(facts, (4, 6), [0]), (4, 6), (3, 8), "here")
    assert [(n.labels.tolist(), n.reason) for n in facts.fixed] == [([0, 1, 2, 3], "cut across by a reshape (here)")]


def _shapes_of(elements: int) -> st.SearchStrategy[Shape]:
    """Shapes with this many elements."""

    @st.composite
    def draw(chosen: st.DrawFn) -> Shape:
        left, sizes = elements, []
        while left > 1:
            size = chosen(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
            sizes.append(size)
            left //= size
            if len(sizes) == 4:
                sizes[-1] *= left
                break
        return tuple(sizes)

    return draw()


@st.composite
def _chains(draw: st.DrawFn) -> tuple[list[Shape], list[list[int]], list[bool]]:
    """Shapes of reshapes in a row, the permutation before each, and which dimensions are labelled at first."""
    elements = draw(st.sampled_from([4, 6, 8, 12, 16, 24, 36]))
    shapes = draw(st.lists(_shapes_of(elements), min_size=2, max_size=4))
    orders = [draw(st.permutations(range(len(shape)))) for shape in shapes[:-1]]
    return shapes, orders, draw(st.lists(st.booleans(), min_size=5, max_size=5))


@given(_chains())
def test_reshapes_move_no_label_to_another_element(chain: tuple[list[Shape], list[list[int]], list[bool]]) -> None:
    shapes, orders, wanted = chain
    facts = Facts()
    shape = shapes[0]
    factors = labelled(facts, shape, [d for d in range(len(shape)) if wanted[d]])
    steps = []
    for order, after in zip(orders, shapes[1:], strict=True):
        factors, shape = algebra.permute(factors, order), tuple(shape[d] for d in order)
        before = factors, shape
        factors, shape = algebra.reshape(facts, factors, shape, after, "here"), after
        steps.append((before, (factors, shape)))
    for before, later in steps:
        assert carried(facts, *before) == carried(facts, *later)


@given(_chains())
def test_what_a_reshape_allows_to_leave_leaves_a_tensor(chain: tuple[list[Shape], list[list[int]], list[bool]]) -> None:
    """Any channels that leave all rows equally long leave the same elements in the same order, before and after."""
    shapes, _, wanted = chain
    facts = Facts()
    start = labelled(facts, shapes[0], [d for d in range(len(shapes[0])) if wanted[d]])
    factors = algebra.reshape(facts, start, shapes[0], shapes[1], "here")
    least, stay = leaves_with(facts), pinned(facts)
    removed = np.array([c not in stay and c % 3 == 0 for c in least.tolist()], dtype=bool)
    if not all(len({int(removed[e.labels].sum()) for e in c.entries}) == 1 for c in facts.counts):
        return
    values = np.arange(prod(shapes[0]))
    small = _without(values.reshape(shapes[0]), start, removed)
    reshaped = _without(values.reshape(shapes[1]), factors, removed)
    assert small.ravel().tolist() == reshaped.ravel().tolist()


def _without(values: NDArray[np.int64], factors: Factors, removed: NDArray[np.bool_]) -> NDArray[np.int64]:
    for factor in sorted(factors, key=lambda f: -len(f.dims)):
        order = [*(d for d in range(values.ndim) if d not in factor.dims), *factor.dims]
        stays = ~removed[factor.labels]
        counts = set(stays.reshape(-1, stays.shape[-1]).sum(axis=1).tolist())
        assert len(counts) == 1, "rows of different lengths"
        moved = values.transpose(order)
        values = moved[..., stays].reshape(*moved.shape[:-1], counts.pop()).transpose(np.argsort(order))
    return values


# --- align ------------------------------------------------------------------------------------------------------------


def test_aligned_labels_leave_together() -> None:
    facts = Facts()
    a, b = labelled(facts, (2, 3)), labelled(facts, (2, 3))
    labels = algebra.align(facts, [Operand(a, (2, 3)), Operand(b, (2, 3))], "here")
    assert texts(labels) == texts(a)
    assert leaves_with(facts).tolist() == [0, 1, 2, 3, 4] * 2


def test_a_broadcast_dimension_pins_nothing_and_a_plain_one_does() -> None:
    facts = Facts()
    a = labelled(facts, (2, 3))
    algebra.align(facts, [Operand(a, (2, 3)), Operand((), (1, 3))], "here")
    assert [(n.labels.tolist(), n.reason) for n in facts.fixed] == [
        ([2, 3, 4], "meets an axis that carries no parameter's index (here)")
    ]


def test_the_same_split_stays_split() -> None:
    facts = Facts()
    a = Factor((0, 1), facts.fresh(6).reshape(2, 3))
    b = Factor((0, 1), facts.fresh(6).reshape(2, 3))
    labels = algebra.align(facts, [Operand((a,), (2, 3)), Operand((b,), (2, 3))], "here")
    assert [f.dims for f in labels] == [(0, 1)]
    assert leaves_with(facts).tolist() == [0, 1, 2, 3, 4, 5] * 2


def test_a_split_axis_and_a_plain_one_on_its_rows_leave_by_rows() -> None:
    facts = Facts()
    split, plain = Factor((0, 1), facts.fresh(6).reshape(2, 3)), Factor((0,), facts.fresh(2))
    algebra.align(facts, [Operand((split,), (2, 3)), Operand((plain,), (2, 1))], "here")
    assert leaves_with(facts).tolist() == [0, 0, 0, 3, 3, 3, 0, 3]


def test_a_split_axis_and_a_plain_one_along_it_leave_by_columns() -> None:
    facts = Facts()
    split, plain = Factor((0, 1), facts.fresh(6).reshape(2, 3)), Factor((1,), facts.fresh(3))
    algebra.align(facts, [Operand((split,), (2, 3)), Operand((plain,), (1, 3))], "here")
    assert leaves_with(facts).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


def test_two_splits_of_different_depth_agree() -> None:
    facts = Facts()
    deep = Factor((0, 1, 2), facts.fresh(8).reshape(2, 2, 2))
    flat = Factor((1, 2), facts.fresh(4).reshape(2, 2))
    labels = algebra.align(facts, [Operand((deep,), (2, 2, 2)), Operand((flat,), (1, 2, 2))], "here")
    assert [f.dims for f in labels] == [(2,)]
    assert len(set(leaves_with(facts).tolist())) == 2


@st.composite
def _operands(draw: st.DrawFn) -> tuple[Facts, list[Operand]]:
    """Two tensors over (2, 2, 3), each with its own choice of factors, broadcast or not."""
    shape = (2, 2, 3)
    facts = Facts()
    kinds: list[list[tuple[int, ...]]] = [
        [],
        [(0,)],
        [(1,)],
        [(2,)],
        [(0,), (2,)],
        [(0, 2)],
        [(1, 2)],
        [(0, 1, 2)],
        [(0, 1), (2,)],
    ]
    operands = []
    for dims_of in draw(st.lists(st.sampled_from(kinds), min_size=2, max_size=3)):
        factors = tuple(
            Factor(dims, facts.fresh(prod(shape[d] for d in dims)).reshape([shape[d] for d in dims]))
            for dims in dims_of
        )
        covered = {d for dims in dims_of for d in dims}
        wide = draw(st.sets(st.sampled_from([0, 1, 2])))
        operands.append(Operand(factors, tuple(n if d in covered | wide else 1 for d, n in enumerate(shape))))
    return facts, operands


@given(_operands())
def test_aligned_tensors_agree_on_every_element(drawn: tuple[Facts, list[Operand]]) -> None:
    facts, operands = drawn
    labels = algebra.align(facts, operands, "here")
    together = carried(facts, labels, (2, 2, 3))
    for operand in operands:
        for mine, joint in zip(carried(facts, operand.factors, (2, 2, 3)), together, strict=True):
            assert mine <= joint
    for factor in labels:
        # Every operand that isn't broadcast along a dimension loses the same indices of it.
        free = set(leaves_with(facts)[factor.labels].ravel().tolist()) - pinned(facts)
        for operand in operands:
            has = {int(c) for f in operand.factors for c in leaves_with(facts)[f.labels].ravel()}
            assert not free or operand.extents[factor.free] == 1 or free <= has


# --- reduce, take, select, join ---------------------------------------------------------------------------------------


def test_reduced_labels_end_and_the_others_remain() -> None:
    facts = Facts()
    a, b = labelled(facts, (2, 3))
    remaining, summed = algebra.reduce(facts, (a, b), [1], "here")
    assert (texts(remaining), texts(summed)) == (texts((a,)), texts((b,)))
    assert not facts.equal


def test_summing_the_rows_of_a_split_axis_ties_them() -> None:
    facts = Facts()
    split = Factor((0, 1), facts.fresh(6).reshape(2, 3))
    remaining, summed = algebra.reduce(facts, (split,), [0], "here")
    assert (texts(remaining), summed) == ([((1,), [0, 1, 2])], ())
    assert leaves_with(facts).tolist() == [0, 1, 2, 0, 1, 2]


def test_summing_along_a_split_axis_ends_it_whole() -> None:
    facts = Facts()
    split = Factor((0, 1), facts.fresh(6).reshape(2, 3))
    assert algebra.reduce(facts, (split,), [1], "here") == ((), (split,))
    assert not facts.equal


@given(
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    data=st.data(),
)
def test_taking_is_taking_of_every_element(shape: Shape, data: st.DataObject) -> None:
    facts = Facts()
    factors = labelled(facts, shape)
    split = [d for d in range(len(shape)) if shape[d] > 1]
    if len(split) > 1 and data.draw(st.booleans()):
        factors = (Factor(tuple(split), facts.fresh(prod(shape)).reshape([shape[d] for d in split])),)
    dim = data.draw(st.integers(0, len(shape) - 1))
    # Padding a row of a split axis has a test of its own.
    lowest = 0 if any(dim in f.dims[:-1] for f in factors) else -1
    index = np.array(data.draw(st.lists(st.integers(lowest, shape[dim] - 1), min_size=1, max_size=4)))
    after = tuple(len(index) if d == dim else n for d, n in enumerate(shape))
    taken = algebra.take(facts, factors, dim, index)
    before = np.array([*carried(facts, factors, shape), frozenset()], dtype=object)[:-1].reshape(shape)
    expected = [
        before[(*place[:dim], index[place[dim]], *place[dim + 1 :])]
        if index[place[dim]] >= 0
        # Padding carries nothing along the axis that is padded.
        else carried_beside(facts, factors, dim, place)
        for place in np.ndindex(*after)
    ]
    assert carried(facts, taken, after) == expected


def test_rows_beside_a_row_of_padding_lose_equal_indices() -> None:
    facts = Facts()
    split = Factor((0, 1), facts.fresh(6).reshape(2, 3))
    (taken,) = algebra.take(facts, (split,), 0, np.array([0, 1, -1]))
    assert taken.dims == (1,)
    assert taken.labels.tolist() == [0, 1, 2]
    assert [(a.tolist(), b.tolist()) for a, b in facts.equal] == [([3, 4, 5], [0, 1, 2])]


def carried_beside(facts: Facts, factors: Factors, dim: int, place: tuple[int, ...]) -> frozenset[int]:
    """The channels that an element leaves with, but for those along ``dim``."""
    found = {int(f.labels[tuple(place[d] for d in f.dims)]) for f in factors if dim not in f.dims}
    return frozenset(found - pinned(facts))


def test_the_only_index_taken_is_pinned() -> None:
    facts = Facts()
    assert algebra.take(facts, labelled(facts, (3,)), 0, np.array([1])) == ()
    assert pinned(facts) == {1}


def test_selecting_drops_the_dimension() -> None:
    facts = Facts()
    factors = labelled(facts, (2, 3, 4))
    assert texts(algebra.select(facts, factors, 1, 2, 3)) == [((0,), [0, 1]), ((1,), [5, 6, 7, 8])]


def test_selecting_a_row_of_a_split_axis_leaves_its_columns() -> None:
    facts = Facts()
    split = Factor((0, 1), facts.fresh(6).reshape(2, 3))
    assert texts(algebra.select(facts, (split,), 0, 1, 2)) == [((0,), [3, 4, 5])]


def test_dimensions_along_which_labels_repeat_are_squeezed() -> None:
    assert texts(algebra.squeezed(Factor((0, 1), np.array([[1, 2], [1, 2]])))) == [((1,), [1, 2])]
    assert texts(algebra.squeezed(Factor((0, 1), np.array([[1, 1], [2, 2]])))) == [((0,), [1, 2])]
    assert algebra.squeezed(Factor((0,), np.array([NONE, NONE]))) == ()
    # One dimension of equal labels stays: all its indices leave together.
    assert texts(algebra.squeezed(Factor((0,), np.array([4, 4])))) == [((0,), [4, 4])]


def test_joined_labels_follow_each_other_and_others_agree() -> None:
    facts = Facts()
    a, b = labelled(facts, (2, 3)), labelled(facts, (2, 2))
    joined = algebra.join(facts, [a, b], [3, 2], 1, "here")
    assert texts(joined) == [((0,), [0, 1]), ((1,), [2, 3, 4, 7, 8])]
    assert leaves_with(facts)[[5, 6]].tolist() == [0, 1]


def test_joining_something_without_labels_pins_what_it_must_match() -> None:
    facts = Facts()
    joined = algebra.join(facts, [labelled(facts, (2, 3)), ()], [3, 2], 1, "here")
    assert texts(joined) == [((0,), [0, 1]), ((1,), [2, 3, 4, NONE, NONE])]
    assert pinned(facts) == {0, 1}


def test_joining_along_the_columns_of_a_split_axis_ties_its_rows() -> None:
    facts = Facts()
    split = Factor((0, 1), facts.fresh(6).reshape(2, 3))
    joined = algebra.join(facts, [(split,), ()], [3, 1], 1, "here")
    assert texts(joined) == [((1,), [0, 1, 2, NONE])]
    assert leaves_with(facts).tolist() == [0, 1, 2, 0, 1, 2]


def test_collapsing_ties_equal_indices() -> None:
    facts = Facts()
    factor = Factor((3, 1), facts.fresh(6).reshape(2, 3))
    assert texts((algebra.collapse(facts, factor, 1, "rows"),)) == [((1,), [0, 1, 2])]
    assert leaves_with(facts).tolist() == [0, 1, 2, 0, 1, 2]
    facts = Facts()
    factor = Factor((3, 1), facts.fresh(6).reshape(2, 3))
    assert texts((algebra.collapse(facts, factor, 3, "columns"),)) == [((3,), [0, 3])]
    assert leaves_with(facts).tolist() == [0, 0, 0, 3, 3, 3]

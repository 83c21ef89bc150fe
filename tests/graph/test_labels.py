from __future__ import annotations

import numpy as np

from secateur.graph.labels import NONE, Factor, Facts, labels_along


def test_fresh_labels_are_never_the_same() -> None:
    facts = Facts()
    assert facts.fresh(3).tolist() == [0, 1, 2]
    assert facts.fresh(2).tolist() == [3, 4]
    assert facts.size == 5


def test_equal_labels_are_recorded_where_they_differ() -> None:
    facts = Facts()
    facts.equate(np.array([0, 1, 2]), np.array([0, 4, 5]), "met")
    (a, b) = facts.equal[0]
    assert (a.tolist(), b.tolist()) == ([1, 2], [4, 5])
    assert not facts.fixed


def test_labels_equal_to_themselves_say_nothing() -> None:
    facts = Facts()
    labels = np.arange(3)
    facts.equate(labels, labels, "met")
    facts.equate(labels, labels.copy(), "met")
    assert not facts.equal
    assert not facts.fixed


def test_a_label_that_meets_none_is_pinned_with_the_reason() -> None:
    facts = Facts()
    facts.equate(np.array([0, NONE, 2]), np.array([NONE, NONE, 3]), "met padding")
    assert [(note.labels.tolist(), note.reason) for note in facts.fixed] == [([0], "met padding")]
    assert [(a.tolist(), b.tolist()) for a, b in facts.equal] == [([2], [3])]


def test_equality_broadcasts() -> None:
    facts = Facts()
    facts.equate(np.array([[0, 1], [2, 3]]), np.array([[4], [5]]), "met")
    (a, b) = facts.equal[0]
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 4), (1, 4), (2, 5), (3, 5)]


def test_notes_leave_out_none_and_repetitions() -> None:
    facts = Facts()
    labels = np.array([[3, NONE], [1, 3]])
    facts.fix(labels, "a reason")
    facts.fix(np.array([NONE]), "nothing to pin")
    facts.mix(labels, "another")
    for notes, reason in ((facts.fixed, "a reason"), (facts.mixed, "another")):
        assert [(note.labels.tolist(), note.reason) for note in notes] == [([1, 3], reason)]


def test_balance_is_needed_between_different_rows_only() -> None:
    facts = Facts()
    facts.balance(np.array([[0, 1], [0, 1]]), "the same row twice")
    assert not facts.counts
    facts.balance(np.array([[0, 1], [2, 3], [0, 1]]), "two rows")
    assert [entry.labels.tolist() for entry in facts.counts[0].entries] == [[0, 1], [2, 3]]


def test_same_count_of_the_same_labels_says_nothing() -> None:
    facts = Facts()
    facts.same_count(np.arange(3), np.arange(3), "the same")
    assert not facts.counts


def test_same_count_keeps_the_weights_with_their_labels() -> None:
    facts = Facts()
    facts.same_count(np.array([0, 1]), np.array([4, 5, 6, 7]), "half", weight_a=2)
    assert [(entry.labels.tolist(), entry.weight) for entry in facts.counts[0].entries] == [
        ([0, 1], 2),
        ([4, 5, 6, 7], 1),
    ]


def test_a_factor_moves_with_its_dimensions() -> None:
    factor = Factor((1, 2), np.arange(6).reshape(2, 3))
    assert factor.free == 2
    assert factor.moved({1: 3, 2: 0}).dims == (3, 0)
    assert factor.moved([5, 6, 7]).dims == (6, 7)
    assert factor.ordered((2, 1)).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert factor.ordered((1, 2)) is factor.labels


def test_labels_along_a_dimension() -> None:
    single, split = Factor((0,), np.arange(2)), Factor((1, 2), np.arange(10, 16).reshape(2, 3))
    for dim, expected in ((0, [0, 1]), (1, None), (2, [10, 11, 12]), (3, None)):
        labels = labels_along((single, split), dim)
        assert (None if labels is None else labels.tolist()) == expected

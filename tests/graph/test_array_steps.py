"""The array steps between a trace and its graph, each against a plain way to the same answer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from secateur.graph.by_tensor import ByTensor
from secateur.graph.equalities import representatives
from secateur.graph.labels import Noted
from secateur.graph.reasons import reasons_by_row
from secateur.graph.signatures import numbered, signatures
from secateur.graph.tally import tally

LABELS = 30
PAIRS = st.lists(st.tuples(st.integers(0, LABELS - 1), st.integers(0, LABELS - 1)), max_size=40)
AXES = st.lists(st.lists(st.integers(-1, 9), max_size=12), max_size=6)


@settings(max_examples=40)
@given(parts=st.lists(PAIRS, max_size=4))
def test_representatives_are_the_smallest_of_connected_labels(parts: list[list[tuple[int, int]]]) -> None:
    arrays = [np.array(part, dtype=np.int64).reshape(-1, 2) for part in parts]
    found = representatives([(a[:, 0], a[:, 1]) for a in arrays], LABELS)
    edges = np.concatenate([np.zeros((0, 2), dtype=np.int64), *arrays])
    graph = sparse.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(LABELS, LABELS))
    component = connected_components(graph, directed=False)[1]
    assert found.tolist() == [int(np.flatnonzero(component == c)[0]) for c in component]


def test_a_few_arrays_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    pairs = [(random.integers(0, 90, n), random.integers(0, 90, n)) for n in (3, 0, 9, 1, 5, 20)]
    arrays, kind_of = [a for a, _ in pairs], random.integers(-1, 4, 90)
    joined, counted = representatives(pairs, 90), tally(arrays, kind_of)
    monkeypatch.setattr("secateur.graph.batches._MOST", 6)
    again = tally(arrays, kind_of)
    assert representatives(pairs, 90).tolist() == joined.tolist()
    for column in ("rows", "values", "counts"):
        assert getattr(again, column).tolist() == getattr(counted, column).tolist()


def test_a_long_chain_in_any_order_takes_few_rounds() -> None:
    order = np.random.default_rng(0).permutation(100_000)
    assert not representatives([(order[1:], order[:-1])], len(order)).any()


@settings(max_examples=40)
@given(arrays=AXES)
def test_a_tally_counts_kinds(arrays: list[list[int]]) -> None:
    kind_of = np.array([0, 0, 1, 1, -1, 2, 3, 3, 3, 2, -1])  # the last entry is that of -1
    found = tally([np.array(a, dtype=np.int64) for a in arrays], kind_of)
    expected = [(row, kind, n) for row, a in enumerate(arrays) for kind, n in sorted(Counter(kind_of[a]).items())]
    assert list(zip(found.rows.tolist(), found.values.tolist(), found.counts.tolist(), strict=True)) == expected


@settings(max_examples=40)
@given(touched=st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=12))
def test_channels_have_one_number_where_they_touch_the_same_axes_equally_often(touched: list[list[int]]) -> None:
    pairs = sorted((axis, channel) for channel, axes in enumerate(touched) for axis in axes)
    axis_of, channels = (np.array([p[i] for p in pairs], dtype=np.int64) for i in (0, 1))
    kinds = list(dict.fromkeys(tuple(sorted(axes)) for axes in touched))
    expected = [kinds.index(tuple(sorted(axes))) for axes in touched]
    assert numbered(signatures(channels, axis_of, len(touched))).tolist() == expected


def test_the_first_distinct_reasons_reach_every_row() -> None:
    channel_of = np.array([0, 0, 1, 2, 2, 3])
    texts = ["z", "a", "z", "b", "c", "d", "e"]
    labels = [[0], [2], [1, 3], [3, 4], [4], [0, 3], [1]]
    notes = [Noted(np.array(part), text) for part, text in zip(labels, texts, strict=True)]
    rows, channels = np.array([0, 0, 1, 1, 3]), np.array([0, 1, 2, 2, 3])
    expected = [("z", "a", "d"), ("z", "b", "c"), (), ()]
    assert reasons_by_row(notes, channel_of, rows, channels, 4, most=3) == expected
    assert reasons_by_row([], channel_of, rows, channels, 4, most=3) == [()] * 4


def test_what_is_known_of_a_tensor_goes_with_it() -> None:
    known: ByTensor[str] = ByTensor()
    tensor, other = torch.zeros(2), torch.zeros(2)
    known[tensor] = "before"
    known[tensor] = "after"
    assert (known.get(tensor), known.get(other)) == ("after", None)
    view = tensor.view(2)
    known[view] = "view"
    del tensor, view
    assert not known._entries

"""Integers with provenance: their values are those of ``int``, and what they forget is pinned or noted."""

from __future__ import annotations

import copy
import math
import operator
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secateur.graph.components import component_map
from secateur.graph.traced_size import Source, TracedFloat, TracedSize
from secateur.graph.tracer import Tracer


@pytest.fixture
def tracer() -> Tracer:
    model = nn.Linear(3, 12)
    return Tracer(model, component_map(model, None))


def size_of(tracer: Tracer, labels: slice = slice(0, 12)) -> TracedSize:
    """A size that counts some labels of the weight's output axis."""
    chosen = tracer.trace.axes[0].labels[labels]
    return TracedSize(len(chosen), Source(chosen, 1, 1, tracer))


BINARY = [
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv, operator.mod, operator.pow,
    operator.lshift, operator.rshift, operator.and_, operator.or_, operator.xor, divmod,
    operator.eq, operator.ne, operator.lt, operator.ge,
]  # fmt: skip


@pytest.mark.parametrize("operation", BINARY)
@pytest.mark.parametrize("other", [1, 2, 4, 12])
def test_values_are_those_of_integers(tracer: Tracer, operation: Callable[..., object], other: int) -> None:
    size = size_of(tracer)
    assert operation(size, other) == operation(12, other)
    assert operation(other, size) == operation(other, 12)


def test_products_and_exact_quotients_are_followed(tracer: Tracer) -> None:
    made = 6 * size_of(tracer) // 4
    assert isinstance(made, TracedSize)
    assert (int(made), made.source.times, made.source.over) == (18, 6, 4)
    assert not tracer.facts.fixed
    assert not tracer.facts.mixed


def test_sums_of_sizes_are_followed(tracer: Tracer) -> None:
    made = size_of(tracer, slice(0, 4)) + size_of(tracer, slice(4, 9)) + 0
    assert isinstance(made, TracedSize)
    assert made == 9
    assert made.source.labels.tolist() == tracer.trace.axes[0].labels[:9].tolist()


@pytest.mark.parametrize(
    "use",
    [
        lambda n: n + 1, lambda n: n - 2, lambda n: 40 - n, lambda n: n // 5, lambda n: n % 5, lambda n: -n,
        lambda n: n >> 1, lambda n: divmod(n, 4), lambda n: n == 12, lambda n: 100 // n, lambda n: n * n,
        lambda n: int(n * 0.5), lambda n: round(n / 2), lambda n: math.ceil(n / 5), lambda n: math.floor(n**0.5),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_pins(tracer: Tracer, use: Callable[[int], object]) -> None:
    use(size_of(tracer))
    pinned = {int(label) for note in tracer.facts.fixed for label in note.labels}
    assert pinned == set(range(12))


def test_both_sizes_of_an_operation_are_pinned(tracer: Tracer) -> None:
    _ = size_of(tracer, slice(0, 4)) * size_of(tracer, slice(4, 9))
    assert {int(label) for note in tracer.facts.fixed for label in note.labels} == set(range(9))


@pytest.mark.parametrize("use", [lambda n: n / 2, lambda n: 1 / n, lambda n: n**-0.5, lambda n: n * 0.5, math.sqrt])
def test_numbers_are_noted(tracer: Tracer, use: Callable[[int], float]) -> None:
    assert use(size_of(tracer)) == pytest.approx(use(12))
    assert not tracer.facts.fixed
    assert tracer.facts.mixed
    assert "width used as a number" in tracer.facts.mixed[0].reason


def test_a_comparison_that_fails_pins_nothing(tracer: Tracer) -> None:
    assert size_of(tracer) != 13
    assert size_of(tracer) == size_of(tracer)
    assert not tracer.facts.fixed


def test_copies_are_plain(tracer: Tracer) -> None:
    size = size_of(tracer)
    for made in (copy.copy(size), copy.deepcopy(size), pickle.loads(pickle.dumps(size))):
        assert type(made) is int
        assert made == 12
    assert hash(size) == hash(12)
    assert {12: "found"}[size] == "found"


def test_numbers_of_sizes_are_floats(tracer: Tracer) -> None:
    made = size_of(tracer) / 2
    assert isinstance(made, TracedFloat)
    assert torch.ones(2) * made == pytest.approx(torch.full((2,), 6.0))

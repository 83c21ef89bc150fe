"""Integers with provenance: their values are those of ``int``, and what they forget is pinned or noted."""

from __future__ import annotations

import copy
import math
import operator
import pickle
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from secateur.graph.components import component_map
from secateur.graph.expression import Attribute, Count, Expression
from secateur.graph.source import Source
from secateur.graph.traced_size import TracedFloat, TracedSize, plain
from secateur.graph.tracer import Tracer


@pytest.fixture
def tracer() -> Tracer:
    model = nn.Linear(3, 12)
    return Tracer(model, component_map(model, None))


def size_of(tracer: Tracer, labels: slice = slice(0, 12)) -> TracedSize:
    """A size that counts some labels of the weight's output axis."""
    chosen = tracer.trace.axes[0].labels[labels]
    return TracedSize(len(chosen), Source.counting(chosen, tracer))


def attribute(tracer: Tracer, value: int, key: str = "width") -> TracedSize:
    """A size that is an attribute of the model."""
    return TracedSize(value, Source(Expression.of(Attribute(key, value)), tracer))


def value_if(size: TracedSize, kept: dict[str, int], share: Fraction = Fraction(1)) -> Fraction:
    """What a size becomes when attributes have these values and of all labels this share stays."""
    return size.source.size.value(
        lambda atom: Fraction(kept[atom.key]) if isinstance(atom, Attribute) else share * len(atom.labels)
    )


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
    assert plain(made) == 18
    assert value_if(made, {}, Fraction(1, 3)) == 6
    assert not tracer.facts.fixed
    assert not tracer.facts.mixed


def test_sums_of_sizes_are_followed(tracer: Tracer) -> None:
    made = size_of(tracer, slice(0, 4)) + size_of(tracer, slice(4, 9)) + 0
    assert isinstance(made, TracedSize)
    assert plain(made) == 9
    (count,) = made.source.size.atoms()
    assert isinstance(count, Count)
    assert count.labels.tolist() == tracer.trace.axes[0].labels[:9].tolist()


@pytest.mark.parametrize(
    "use",
    [
        lambda n: n // 5, lambda n: n % 5, lambda n: n >> 1, lambda n: divmod(n, 5), lambda n: n == 12,
        lambda n: 100 // n, lambda n: n * n * n * n * n * n * n * n * n,
        lambda n: int(n * 0.5), lambda n: round(n / 2), lambda n: math.ceil(n / 5), lambda n: math.floor(n**0.5),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_pins(tracer: Tracer, use: Callable[[int], object]) -> None:
    use(size_of(tracer))
    pinned = {int(label) for note in tracer.facts.fixed for label in note.labels}
    assert pinned == set(range(12))


@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        (lambda n, heads, width: n + 1, 7),
        (lambda n, heads, width: 40 - n, 34),
        (lambda n, heads, width: -n + 2 * n, 6),
        (lambda n, heads, width: n // heads, 3),
        (lambda n, heads, width: heads * width, 10),
        (lambda n, heads, width: (heads * width + n) // 2 - n, 2),
        (lambda n, heads, width: n * heads // n, 2),
        (lambda n, heads, width: sum([heads, width, n]), 13),
        (lambda n, heads, width: math.prod([heads, width, n]), 60),
    ],
)
def test_arithmetic_is_followed(tracer: Tracer, arithmetic: Callable[..., object], expected: int) -> None:
    made = arithmetic(size_of(tracer), attribute(tracer, 4, "heads"), attribute(tracer, 3, "width"))
    assert isinstance(made, TracedSize)
    assert plain(made) == arithmetic(12, 4, 3)
    assert value_if(made, {"heads": 2, "width": 5}, Fraction(1, 2)) == expected
    assert not tracer.facts.fixed
    assert not tracer.facts.held


def test_what_cannot_be_followed_holds_attributes(tracer: Tracer) -> None:
    assert attribute(tracer, 4, "heads") % 3 == 1
    assert attribute(tracer, 4, "blocks") == 4
    assert set(tracer.facts.held) == {"heads", "blocks"}
    assert "heads goes through mod" in tracer.facts.held["heads"]


def test_an_attribute_used_as_a_number_is_noted(tracer: Tracer) -> None:
    width = attribute(tracer, 16)
    assert math.isclose(np.sqrt(width), 4)
    assert math.isclose(width**-0.5, 0.25)
    assert {a.key for a, _ in tracer.facts.numbers} == {"width"}
    assert not tracer.facts.held


def test_sizes_that_compare_equal_must_stay_so(tracer: Tracer) -> None:
    first, second = size_of(tracer, slice(0, 4)), attribute(tracer, 4)
    assert first == second
    (equation,) = tracer.facts.equations
    assert equation.size.value(lambda atom: Fraction(2)) == 0
    assert equation.size.value(lambda atom: Fraction(3 if isinstance(atom, Attribute) else 2)) != 0


@pytest.mark.parametrize("use", [lambda n: n / 2, lambda n: 1 / n, lambda n: n**-0.5, lambda n: n * 0.5, math.sqrt])
def test_numbers_are_noted(tracer: Tracer, use: Callable[[int], float]) -> None:
    assert math.isclose(use(size_of(tracer)), use(12))
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

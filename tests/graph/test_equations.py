"""Equations between kept counts and attributes: what follows what, what must agree, and what must stay, exactly."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise, permutations
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import SecateurError
from secateur.graph.conditions import Condition, conditions_of, honoured
from secateur.graph.cost import Affine
from secateur.graph.equations import SizeEquations
from secateur.graph.expression import Attribute, Count, Expression
from secateur.graph.labels import NONE, Comparison, Facts, Labels, Relation, SizeEquation, Whole
from secateur.graph.size_checks import SizeChecks
from secateur.graph.solution import Solution
from secateur.importance import Random

X = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def attribute(name: str, value: int) -> Expression:
    return Expression.of(Attribute(name, value))


def count(labels: Labels) -> Expression:
    return Expression.of(Count(labels))


def minus(a: Expression, b: Expression) -> Expression:
    return a + -b


def times(a: Expression, number: Fraction | int) -> Expression:
    return a * Expression.of(Fraction(number))


class Known:
    """Facts of a trace: widths of fresh labels, each label a channel of its own, and equations."""

    def __init__(self) -> None:
        self.facts = Facts()
        self.stays: list[Labels] = []

    def width(self, channels: int) -> Labels:
        return self.facts.fresh(channels)

    def zero(self, *sizes: Expression, labels: Labels | None = None) -> Known:
        """These expressions are zero, for the reasons 'equation 0', 'equation 1', ..."""
        for size in sizes:
            reason = f"equation {len(self.facts.equations)}"
            self.facts.equations.append(SizeEquation(size, reason, labels))
        return self

    def solution(self) -> Solution:
        size = self.facts.size
        fixed = np.zeros(size, dtype=bool)
        for labels in (*self.stays, *(note.labels for note in self.facts.fixed)):
            fixed[labels] = True
        every = np.arange(size)
        return Solution(every, fixed, np.zeros(size, dtype=np.int64), every, np.array([size]))

    def settled(self) -> SizeEquations:
        """The equations, taken apart until nothing more is pinned."""
        equations = SizeEquations(self.facts)
        while equations.settle(self.solution()):
            continue
        return equations

    @property
    def pinned(self) -> dict[int, str]:
        """First reason by label."""
        return {int(label): note.reason for note in reversed(self.facts.fixed) for label in note.labels}


def followed(equations: SizeEquations) -> dict[str, tuple[list[int], Fraction]]:
    return {key: (found.labels.tolist(), found.ratio) for key, found in equations.following.items()}


# --- what follows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_definitions_are_followed_in_any_order(order: Sequence[int]) -> None:
    known = Known()
    width = known.width(12)
    a, b, c, d = attribute("a", 12), attribute("b", 6), attribute("c", 18), attribute("d", 2)
    definitions = [minus(count(width), a), minus(times(b, 2), a), minus(c, times(b, 3)), minus(times(d, 9), c)]
    found = known.zero(*(definitions[i] for i in order)).settled()
    ratios = {"a": Fraction(1), "b": Fraction(1, 2), "c": Fraction(3, 2), "d": Fraction(1, 6)}
    assert followed(found) == {name: (list(range(12)), ratio) for name, ratio in ratios.items()}
    assert not known.facts.fixed
    assert not found.counts


@pytest.mark.parametrize("swapped", [False, True])
def test_widths_that_share_an_attribute_keep_equally_many(swapped: bool) -> None:
    known = Known()
    first, second = known.width(12), known.width(4)
    definitions = [minus(count(first), attribute("a", 12)), minus(times(count(second), 3), attribute("a", 12))]
    found = known.zero(*definitions[:: -1 if swapped else 1]).settled()
    (equal,) = found.counts
    assert {(len(entry.labels), entry.weight) for entry in equal.entries} == {(12, 1), (4, 3)}
    expected = (second.tolist(), Fraction(3)) if swapped else (first.tolist(), Fraction(1))
    assert followed(found) == {"a": expected}
    assert not known.facts.fixed


def test_equal_counts_are_the_same_objects_every_time() -> None:
    known = Known()
    first, second = known.width(3), known.width(3)
    known.zero(minus(count(first), attribute("a", 3)), minus(count(second), attribute("a", 3)))
    equations, solution = SizeEquations(known.facts), known.solution()
    assert not equations.settle(solution)
    before = equations.counts
    assert not equations.settle(solution)
    assert [id(c) for c in before] == [id(c) for c in equations.counts]


def test_of_a_product_one_factor_follows_and_the_other_stays() -> None:
    known = Known()
    width = known.width(12)
    product = attribute("heads", 3) * attribute("each", 4)
    found = known.zero(minus(count(width), product)).settled()
    assert followed(found) == {"each": (width.tolist(), Fraction(1, 3))}
    assert not known.facts.fixed


def test_both_factors_follow_where_widths_of_their_own_define_them() -> None:
    known = Known()
    heads, each = known.width(3), known.width(4)
    product = attribute("heads", 3) * attribute("each", 4)
    known.zero(minus(count(known.width(12)), product))
    known.zero(minus(count(heads), attribute("heads", 3)), minus(count(each), attribute("each", 4)))
    assert followed(known.settled()) == {
        "heads": (heads.tolist(), Fraction(1)),
        "each": (each.tolist(), Fraction(1)),
    }
    # Whether their product agrees with the third width is for the checks to say.
    assert not known.facts.fixed


def test_of_a_quotient_the_divisor_stays() -> None:
    known = Known()
    width = known.width(4)
    quotient = attribute("all", 12).over(attribute("heads", 3))
    assert quotient is not None
    found = known.zero(minus(count(width), quotient)).settled()
    assert followed(found) == {"all": (width.tolist(), Fraction(3))}
    assert not known.facts.fixed


def test_the_rest_of_a_split_follows_the_pieces() -> None:
    known = Known()
    width = known.width(12)
    size = minus(minus(count(width), attribute("first", 4)), attribute("second", 8))
    known.facts.equations.append(SizeEquation(size, "split", width))
    known.zero(minus(count(width[:4]), attribute("first", 4)))
    assert followed(known.settled()) == {
        "first": (width[:4].tolist(), Fraction(1)),
        "second": (width[4:].tolist(), Fraction(1)),
    }
    assert not known.facts.fixed


# --- what stays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_contradiction_pins_with_its_reason(order: Sequence[int]) -> None:
    known = Known()
    width = known.width(12)
    a, b = attribute("a", 12), attribute("b", 12)
    definitions = [minus(count(width), a), minus(a, b), minus(b, Expression.of(12))]
    found = known.zero(*(definitions[i] for i in order)).settled()
    assert not found.following
    assert set(known.pinned) == set(range(12))
    assert all(reason.startswith("equation") for reason in known.pinned.values())


def test_why_an_attribute_is_held_is_told_of_the_width() -> None:
    known = Known()
    width = known.width(12)
    known.facts.held["a"] = "a goes through mod (here)"
    known.zero(minus(count(width), attribute("a", 12))).settled()
    assert set(known.pinned.values()) == {"equation 0; a goes through mod (here)"}


def test_an_attribute_that_two_ratios_define_pins_what_gives_them() -> None:
    known = Known()
    width = known.width(12)
    plus = attribute("a", 12) + Expression.of(4)
    found = known.zero(minus(count(width), attribute("a", 12)), minus(count(width), minus(plus, Expression.of(4))))
    assert followed(found.settled()) == {"a": (width.tolist(), Fraction(1))}
    known.zero(minus(times(count(width), 2), minus(plus, Expression.of(-8))))
    found.settled()
    assert set(known.pinned) == set(range(12))


def test_a_difference_of_two_attributes_holds_both() -> None:
    known = Known()
    width = known.width(12)
    size = minus(count(width), minus(attribute("more", 14), attribute("less", 2)))
    assert not known.zero(size).settled().following
    assert known.pinned == dict.fromkeys(range(12), "equation 0")


@pytest.mark.parametrize("backwards", [False, True])
def test_what_is_equal_to_what_stays_is_pinned_at_once(backwards: bool) -> None:
    known = Known()
    widths = [known.width(4) for _ in range(5)]
    known.stays = [widths[0]]
    links = [minus(count(a), count(b)) for a, b in pairwise(widths)]
    known.zero(*links[:: -1 if backwards else 1])
    assert SizeEquations(known.facts).settle(known.solution())
    assert set(known.pinned) == set(range(4, 20))


def test_none_of_the_labels_of_a_constant_axis_is_pinned() -> None:
    known = Known()
    width = np.concatenate([known.width(3), [NONE]])
    found = known.zero(minus(count(width), attribute("a", 4))).settled()
    assert followed(found) == {"a": (width.tolist(), Fraction(1))}


# --- linear time ------------------------------------------------------------------------------------------------------


def calls_made(run: Callable[[], object]) -> int:
    """How many Python functions a call calls."""
    made = 0

    def counted(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal made
        made += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        run()
    finally:
        sys.setprofile(before)
    return made


def chain_of_definitions(length: int, *, backwards: bool, pinned: bool = False) -> Known:
    known = Known()
    width = known.width(12)
    known.stays = [width] if pinned else []
    names = [attribute(f"a{i}", 12) for i in range(length)]
    links = [minus(count(width), names[0]), *(minus(a, b) for a, b in pairwise(names))]
    return known.zero(*links[:: -1 if backwards else 1])


def chain_of_widths(length: int, *, backwards: bool) -> Known:
    known = Known()
    widths = [known.width(4) for _ in range(length)]
    known.stays = [widths[0]]
    links = [minus(count(a), count(b)) for a, b in pairwise(widths)]
    return known.zero(*links[:: -1 if backwards else 1])


CHAINS: dict[str, Callable[[int], Known]] = {
    "forwards": lambda n: chain_of_definitions(n, backwards=False),
    "backwards": lambda n: chain_of_definitions(n, backwards=True),
    "pinned": lambda n: chain_of_definitions(n, backwards=True, pinned=True),
    "pinned widths": lambda n: chain_of_widths(n, backwards=False),
    "pinned widths, backwards": lambda n: chain_of_widths(n, backwards=True),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_settling_is_linear(chain: Callable[[int], Known]) -> None:
    few, many = (calls_made(chain(n).settled) for n in (20, 200))
    assert many < 11 * few


# --- identities -------------------------------------------------------------------------------------------------------


class Checked(Known):
    """What of some widths stays is given: as multiples of the fractions that ties keep."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, dict[int, int] | None] = {}

    def keeping(self, kept: dict[int, int] | None, channels: int = 12) -> Labels:
        labels = self.width(channels)
        self._kept[int(labels[0])] = kept
        return labels

    def checks(self) -> SizeChecks:
        equations, solution = SizeEquations(self.facts), self.solution()
        equations.settle(solution)
        return SizeChecks(self.facts, equations, solution, lambda labels: self._kept[int(labels[0])])


def test_an_identity_in_what_is_kept_holds() -> None:
    known = Checked()
    heads, width = known.keeping({0: 3}, 3), known.keeping({0: 12})
    known.zero(minus(count(width), count(heads) * attribute("each", 4)))
    assert known.checks().equations() == []
    assert not known.facts.fixed


@pytest.mark.parametrize("kept", [{1: 12}, {0: 6, -1: 6}], ids=["another tie", "a part that stays"])
def test_what_is_no_identity_is_pinned(kept: dict[int, int]) -> None:
    known = Checked()
    heads, width = known.keeping({0: 3}, 3), known.keeping(kept)
    known.zero(minus(count(width), count(heads) * attribute("each", 4)))
    assert known.checks().equations() == []
    assert known.pinned == dict.fromkeys(range(15), "sizes that can't all follow: equation 0")


def test_a_product_of_ties_is_no_linear_form_but_may_be_an_identity() -> None:
    known = Checked()
    a, b, c = known.keeping({0: 3}, 3), known.keeping({1: 4}, 4), known.keeping({1: 8}, 8)
    known.zero(minus(count(a) * count(c), times(count(a) * count(b), 2)))
    assert known.checks().equations() == []
    assert not known.facts.fixed


def test_a_cut_through_a_group_makes_blocks() -> None:
    known = Checked()
    even, odd = known.keeping(None, 12), known.keeping({-1: 4}, 4)
    known.zero(minus(times(count(even[:4]), 1), count(odd)))
    (cut,) = known.checks().equations()
    assert sorted(entry.labels.tolist() for entry in cut.entries) == [[i, i + 1, i + 2, i + 3] for i in (0, 4, 8, 12)]


def test_quotients_stay_whole_in_coarser_steps() -> None:
    known, asked = Checked(), list[tuple[int, int]]()
    width = known.keeping({0: 12})

    def coarsen(tie: int, parts: int) -> bool:
        asked.append((tie, parts))
        return True

    known.facts.wholes.append(Whole(times(count(width), Fraction(1, 4)), "an exact division"))
    assert known.checks().wholes(coarsen) == []
    assert asked == [(0, 3)]
    assert not known.facts.fixed
    assert known.checks().wholes(lambda tie, parts: False) == []
    assert set(known.pinned.values()) == {"sizes that can't all follow: an exact division"}


# --- comparisons ------------------------------------------------------------------------------------------------------


def conditions(size: Expression, relation: Relation, of: dict[int, Affine]) -> list[Condition]:
    """The condition of a comparison that is made twice, if it may break; ``of``: labels, by the first of them."""
    full = np.array([12, 8])
    comparison = Comparison(size, relation, "compared here")
    return list(conditions_of([comparison] * 2, {}, lambda arrays: [of[int(a[0])] for a in arrays], full // full, full))


def whole_group(group: int) -> Affine:
    return Affine(0, ((group, 1),), 1)


KEPT = {0: whole_group(0), 12: whole_group(1), NONE: Affine(1, (), 1)}
WIDE, NARROW = count(np.arange(12)), count(np.arange(12, 20))


@pytest.mark.parametrize(
    ("size", "relation", "expected"),
    [
        (minus(WIDE, Expression.of(8)), operator.gt, [9, 1]),
        (minus(WIDE, Expression.of(8)), operator.ge, [8, 1]),
        (minus(WIDE, Expression.of(1)), operator.ne, [2, 1]),
        (minus(times(NARROW, Fraction(1, 2)), Expression.of(3)), operator.ge, [1, 6]),
        (minus(minus(WIDE, NARROW), Expression.of(3)), operator.gt, [5, 1]),
        (minus(WIDE * NARROW, Expression.of(24)), operator.ge, [3, 8]),
        (minus(attribute("stays", 4), WIDE), operator.lt, [5, 1]),
    ],
)
def test_comparisons_hold_in_the_plan(size: Expression, relation: Relation, expected: list[int]) -> None:
    (found,) = conditions(size, relation, KEPT)
    sizes = np.array([12, 8])
    ties = [np.array([0]), np.array([1])]
    kept = honoured([found], np.array([1, 1]), ties, sizes, sizes)
    assert found.holds(kept)
    assert not any(found.holds(kept - np.eye(2, dtype=int)[i]) for i in range(2) if kept[i] > 1)
    assert kept.tolist() == expected


def test_tied_groups_grow_together() -> None:
    (found,) = conditions(minus(WIDE, Expression.of(6)), operator.gt, KEPT)
    kept = honoured([found], np.array([1, 1]), [np.array([0, 1])], np.array([12, 8]), np.array([4, 4]))
    assert kept.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("size", "relation"),
    [
        (minus(WIDE, Expression.of(0)), operator.gt),
        (minus(WIDE, Expression.of(13)), operator.lt),
        (minus(WIDE, Expression.of(13)), operator.ne),
        (minus(Expression.of(20), WIDE + NARROW), operator.ge),
    ],
)
def test_comparisons_that_always_hold_are_no_conditions(size: Expression, relation: Relation) -> None:
    assert conditions(size, relation, KEPT) == []


# --- a whole run ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A hidden layer of 12 channels between two others; the test says what is done with them."""

    def __init__(self, use: Callable[[Any, torch.Tensor], torch.Tensor], **attributes: Any) -> None:
        super().__init__()
        self.inner, self.outer, self.use = nn.Linear(6, 12), nn.Linear(12, 3), use
        for name, value in attributes.items():
            setattr(self, name, value)
        self.double()

    def forward(self, x: torch.Tensor) -> Any:
        return self.outer(self.use(self, torch.cos(self.inner(x))))


@pytest.mark.parametrize(
    ("use", "mixes"),
    [
        (lambda m, h: h.view(2, 5, m.width) * m.width**-0.5, True),
        (lambda m, h: h.view(2, 5, m.width) * m.scale**-0.5, False),
        (lambda m, h: h * m.width**-0.5, False),
    ],
    ids=["both", "two attributes", "a number alone"],
)
def test_an_attribute_that_is_a_size_and_a_number(use: Callable[[Any, Any], Any], mixes: bool) -> None:
    (group,) = secateur.trace(Block(use, width=12, scale=12), X).groups
    assert bool(group.mixing) is mixes


def test_a_comparison_in_the_code_is_kept_by_the_plan() -> None:
    model = Block(lambda m, h: h * 2 if h.shape[2] > 8 and h.shape[2] != 10 else h)
    graph = secateur.trace(model, X)
    plan = secateur.plan(graph, Random(seed=0)(graph, model), {"inner": 0.9})
    assert len(plan.groups["inner"]) == 9
    secateur.verify(model, secateur.apply(model, plan), plan)


@pytest.mark.parametrize(
    ("use", "most"),
    [
        (lambda h, n: h[..., : 2 * n - 8], 8),
        (lambda h, n: h.split(2 * n - 8, -1)[0], 8),
        (lambda h, n: h / (n - 3) ** 0.5, 4),
        (lambda h, n: h / (5 - n), 6),
    ],
    ids=["cut beyond the end", "one piece", "root of a difference", "negative difference"],
)
def test_what_a_difference_must_stay_is_kept_by_the_plan(use: Callable[[Any, int], Any], most: int) -> None:
    model = Block(lambda m, h: use(h, h.shape[2]))
    graph = secateur.trace(model, X)
    plan = secateur.plan(graph, Random(seed=0)(graph, model), {"inner": 0.9})
    assert len(plan.groups["inner"]) == most
    secateur.verify(model, secateur.apply(model, plan), plan)


def test_an_axis_that_is_made_of_length_one_has_no_labels() -> None:
    def use(m: Any, h: torch.Tensor) -> torch.Tensor:
        h = h + torch.ones(1, dtype=h.dtype).repeat(m.all // m.two)
        return h.unflatten(-1, (-1, m.one)).reshape(2, 5, m.width)

    model = Block(use, width=12, all=24, two=2, one=1)
    graph = secateur.trace(model, X)
    plan = secateur.plan(graph, Random(seed=0)(graph, model), {"inner": 0.99})
    assert len(plan.groups["inner"]) == 1
    secateur.verify(model, secateur.apply(model, plan), plan)


class Shared:
    def __init__(self) -> None:
        self.width, self.inside = 12, {"sizes": [12, 3]}


def test_everything_is_put_back_when_the_code_raises_in_the_middle() -> None:
    def fails(m: Any, h: torch.Tensor) -> torch.Tensor:
        m.width, m.made = m.width * 2, h.shape[-1]
        m.settings.width = h.shape[-1]
        m.settings.inside["sizes"].append(m.width)
        m.options["new"] = m.options.pop("width")
        m.sizes[0] = h.shape[-1]
        del m.scale
        raise ValueError("in the middle")

    settings, sizes, space = Shared(), [12, (3, 4)], SimpleNamespace(width=12)
    model: Any = Block(fails, width=12, scale=4, settings=settings, sizes=sizes, options={"width": 12}, space=space)
    options, inside = model.options, settings.inside
    with pytest.raises(SecateurError, match="in the middle"):
        secateur.trace(model, X)
    assert model.settings is settings
    assert model.sizes is sizes
    assert model.options is options
    assert model.space is space
    assert settings.inside is inside
    assert (model.width, model.scale, sizes, options) == (12, 4, [12, (3, 4)], {"width": 12})
    assert (vars(settings), vars(space)) == ({"width": 12, "inside": {"sizes": [12, 3]}}, {"width": 12})
    assert not hasattr(model, "made")
    values = [model.width, model.scale, sizes[0], options["width"], settings.width, inside["sizes"][0], space.width]
    assert {type(value) for value in values} == {int}

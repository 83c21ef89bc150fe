from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateur.errors import PlanError, ScoreError
from secateur.graph.cost import Affine
from secateur.graph.graph import AttributeSize
from secateur.graph.groups import Consumer
from secateur.plan import PruningPlan, plan
from tests.handmade import Chain, GraphSketch, GroupSketch, linear_chain, random_scores


def scores_of(**values: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(v, dtype=np.float64) for name, v in values.items()}


def one_group(size: int, **options: Any) -> GraphSketch:
    group = GroupSketch("g", size, {("c.w", 0): None}, **options)
    return GraphSketch({"c.w": (size, 3)}, [group])


def test_the_top_scoring_channels_stay() -> None:
    made = plan(one_group(5).graph(), scores_of(g=[0.1, 0.9, 0.3, 0.5, 0.2]), 0.4)
    assert made.groups["g"].tolist() == [1, 2, 3]
    assert made.kept[("c.w", 0)].tolist() == [1, 2, 3]
    assert made.coefficients == {"g": 1 - 3 / 5}
    assert made.kept_shape("c.w") == (3, 3)
    assert made.removed("c.w", 0).tolist() == [0, 4]
    assert made.removed("c.w", 1).tolist() == []


def test_of_equal_scores_the_lower_indices_stay() -> None:
    assert plan(one_group(6).graph(), scores_of(g=np.zeros(6)), 0.5).groups["g"].tolist() == [0, 1, 2]


def test_every_block_keeps_as_many_channels() -> None:
    graph = one_group(6, blocks=2).graph()
    assert plan(graph, scores_of(g=[5, 6, 7, 1, 2, 3]), 0.4).groups["g"].tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize(("coefficient", "kept"), [(0.0, 10), (0.04, 10), (0.06, 9), (0.05, 10), (0.95, 1), (0.999, 1)])
def test_rounds_to_the_nearest_unit_and_keeps_at_least_one(coefficient: float, kept: int) -> None:
    assert len(plan(one_group(10).graph(), random_scores(one_group(10).graph()), coefficient).groups["g"]) == kept


def test_a_unit_may_hold_several_channels() -> None:
    graph = one_group(12, units=3).graph()
    assert [len(plan(graph, random_scores(graph), c).groups["g"]) for c in (0.1, 0.4, 0.9)] == [12, 8, 4]


def test_a_channel_takes_all_its_indices_of_every_axis() -> None:
    flattened = np.arange(12).reshape(3, 4)
    group = GroupSketch("g", 3, {("c.w", 0): None, ("c.v", 1): flattened + 2}, consumers=frozenset({("c.v", 1)}))
    made = plan(GraphSketch({"c.w": (3,), "c.v": (2, 16)}, [group]).graph(), scores_of(g=[3, 1, 2]), 1 / 3)
    assert made.kept[("c.v", 1)].tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert made.kept_shape("c.v") == (2, 12)


def test_groups_not_named_keep_all() -> None:
    graph = linear_chain([4, 8, 8, 2]).graph()
    made = plan(graph, random_scores(graph), {"c1.0": 0.5})
    assert made.coefficients == {"c0.0": 0.0, "c1.0": 0.5}
    assert made.consumers == (Consumer("c2.0.weight", 1),)
    assert set(made.kept) == {(m.parameter, m.axis) for g in graph.groups for m in g.members}


def test_an_empty_plan_says_so() -> None:
    graph = linear_chain([4, 8, 2]).graph()
    assert plan(graph, random_scores(graph), 0).is_empty
    assert not plan(graph, random_scores(graph), 0.5).is_empty


def test_attributes_and_mixing_follow_what_changes() -> None:
    sketch = GraphSketch(
        {"c.w": (4,), "c.v": (4,)},
        [
            GroupSketch("a", 4, {("c.w", 0): None}, mixing=("layer_norm",)),
            GroupSketch("b", 4, {("c.v", 0): None}, mixing=("softmax",)),
        ],
        attributes=(
            AttributeSize("c.conv.groups", Affine(1, ((0, 2),))),
            AttributeSize("c.flat.unflattened_size[0]", Affine(0, ((0, 1),))),
            AttributeSize("c.other.groups", Affine(0, ((1, 1),))),
        ),
    )
    made = plan(sketch.graph(), random_scores(sketch.graph()), {"a": 0.5})
    assert made.attributes == {"c.conv.groups": 5, "c.flat.unflattened_size[0]": 2}
    assert made.mixing == {"a": ("layer_norm",)}


def test_the_entry_point_goes_along_but_not_into_json() -> None:
    graph = linear_chain([4, 8, 2]).graph()
    made = plan(graph, random_scores(graph), 0.5)
    assert made.entry_point is graph.entry_point
    assert PruningPlan.from_json(made.to_json()).entry_point is None


def test_a_plan_cannot_be_changed() -> None:
    graph = linear_chain([4, 8, 2]).graph()
    made = plan(graph, random_scores(graph), 0.5)
    with pytest.raises(ValueError, match="read-only"):
        made.groups["c0.0"][0] = 7
    with pytest.raises(AttributeError):
        made.consumers = ()  # type: ignore[misc]


def test_printing_names_every_group() -> None:
    sketch = GraphSketch(
        {"c.w": (4,), "c.v": (8,)},
        [GroupSketch("a", 4, {("c.w", 0): None}, mixing=("layer_norm",)), GroupSketch("b", 8, {("c.v", 0): None})],
    )
    assert str(plan(sketch.graph(), random_scores(sketch.graph()), {"a": 0.5})).splitlines() == [
        "Pruning plan: 1 of 2 channel groups shrink",
        "  a  keeps     2 of     4  ( 50.0% leave)  mixing: layer_norm",
        "  b  keeps     8 of     8  (  0.0% leave)",
    ]


# Wrong input


@pytest.mark.parametrize("coefficient", [1.0, -0.1, float("nan"), float("inf")])
def test_a_coefficient_outside_its_range(coefficient: float) -> None:
    graph = one_group(4).graph()
    with pytest.raises(PlanError, match=r"coefficient of group 'g' must lie in \[0, 1\)"):
        plan(graph, random_scores(graph), {"g": coefficient})


@pytest.mark.parametrize("coefficient", ["half", None, True])
def test_a_coefficient_that_is_no_number(coefficient: Any) -> None:
    graph = one_group(4).graph()
    with pytest.raises(PlanError, match="coefficient of group 'g' must be a number"):
        plan(graph, random_scores(graph), coefficient)


def test_an_unknown_group() -> None:
    graph = one_group(4).graph()
    with pytest.raises(PlanError, match="no channel group is called 'h'"):
        plan(graph, random_scores(graph), {"h": 0.5})


def test_tied_groups_need_one_fraction() -> None:
    sketch = GraphSketch(
        {"c.w": (4,), "c.v": (8,)},
        [
            GroupSketch("a", 4, {("c.w", 0): None}, tie=0),
            GroupSketch("b", 8, {("c.v", 0): None}, tie=0, units=4),
        ],
    )
    graph = sketch.graph()
    made = plan(graph, random_scores(graph), 0.5)
    assert {name: len(kept) for name, kept in made.groups.items()} == {"a": 2, "b": 4}
    with pytest.raises(PlanError, match=r"groups 'a' and 'b' are tied .* keep 2/4 of one and 4/4 of the other"):
        plan(graph, random_scores(graph), {"a": 0.5})


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "group 'g' has no scores"),
        ({"g": np.ones(3)}, r"group 'g' needs 4 scores, one per channel; given: shape \(3,\)"),
        ({"g": np.ones((4, 1))}, r"given: shape \(4, 1\)"),
        ({"g": np.array([1, 2, np.nan, np.inf])}, "2 of the 4 scores of group 'g' are not finite.* channel 2: nan"),
        ({"g": ["a", "b", "c", "d"]}, "scores of group 'g' are not numbers"),
        ({"g": np.ones(4), "h": np.ones(4)}, "scores were given for 'h', which is no group of this graph"),
    ],
)
def test_scores_that_do_not_fit(scores: Any, message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        plan(one_group(4).graph(), scores, 0.5)


# Fitting a model


def chain_plan() -> PruningPlan:
    graph = linear_chain([4, 8, 2]).graph()
    return plan(graph, random_scores(graph), 0.5)


def test_a_plan_fits_its_model() -> None:
    chain_plan().check_fits(Chain([4, 8, 2]))


class Named(nn.Module):
    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)


def test_a_plan_for_another_model_names_the_first_differences() -> None:
    with pytest.raises(
        PlanError, match=r"another model than this Chain: c0\.0\.weight has shape \(9, 4\), the plan's has"
    ):
        chain_plan().check_fits(Chain([4, 9, 2]))
    with pytest.raises(PlanError, match=r"c0\.0\.weight \(8, 4\) of the plan is not in the model; .*; and 3 more"):
        chain_plan().check_fits(Named(x=torch.ones(3), y=torch.ones(3)))
    model = Chain([4, 8, 2])
    model.register_buffer("scale", torch.ones(3))
    with pytest.raises(PlanError, match=r"scale \(3,\) is not in the plan"):
        chain_plan().check_fits(model)


def test_a_model_that_ties_what_the_plan_does_not() -> None:
    made = PruningPlan({"a": (4,), "b": (4,)}, {("a", 0): np.arange(2)}, {"g": np.arange(2)}, {"g": 4})
    made.check_fits(Named(a=nn.Parameter(torch.ones(4)), b=nn.Parameter(torch.ones(4))))
    weight = nn.Parameter(torch.ones(4))
    with pytest.raises(PlanError, match="a and b are one tensor in the model, two in the plan"):
        made.check_fits(Named(a=weight, b=weight))


def test_tied_names_answer_like_the_first() -> None:
    made = PruningPlan({"a": (4,)}, {("a", 0): np.array([1, 2])}, {"g": np.arange(2)}, {"g": 4}, tied={"b": "a"})
    assert made.kept_shape("b") == (2,)
    assert made.removed("b", 0).tolist() == [0, 3]
    weight = nn.Parameter(torch.ones(4))
    made.check_fits(Named(a=weight, b=weight))
    with pytest.raises(PlanError, match=r"b \(4,\) of the plan is not in the model"):
        made.check_fits(Named(a=weight))


# JSON


@given(
    widths=st.lists(st.integers(1, 12), min_size=3, max_size=5),
    coefficient=st.floats(0, 0.99),
    seed=st.integers(0, 100),
)
def test_json_round_trip_is_exact(widths: list[int], coefficient: float, seed: int) -> None:
    graph = linear_chain(widths).graph()
    made = plan(graph, random_scores(graph, seed), coefficient)
    again = PruningPlan.from_json(made.to_json())
    assert again == made
    assert again.to_json() == made.to_json()
    assert again.coefficients == made.coefficients
    assert all(
        np.array_equal(again.kept[key], made.kept[key]) and again.kept[key].dtype == np.int64 for key in made.kept
    )


def test_json_keeps_every_field() -> None:
    made = PruningPlan(
        {"a": (4, 3)},
        {("a", 0): np.array([1, 2])},
        {"g": np.arange(2)},
        {"g": 4},
        consumers=(Consumer("a", 0),),
        mixing={"g": ("softmax",)},
        attributes={"m.groups": 2, "f.unflattened_size[0]": 3},
        tied={"b": "a"},
    )
    again = PruningPlan.from_json(made.to_json())
    assert (again.consumers, again.mixing, again.attributes, again.tied, again.shapes) == (
        made.consumers,
        made.mixing,
        made.attributes,
        made.tied,
        made.shapes,
    )


def test_plans_that_differ_are_not_equal() -> None:
    graph = linear_chain([4, 8, 2]).graph()
    assert plan(graph, random_scores(graph), 0.5) != plan(graph, random_scores(graph), 0.25)
    assert chain_plan() != "a plan"


def _set(*path: Any) -> Callable[[dict[str, Any]], object]:
    """An edit of the JSON data: set the item at path[:-1] to path[-1]."""

    def edit(data: dict[str, Any]) -> None:
        target: Any = data
        for key in path[:-2]:
            target = target[key]
        target[path[-2]] = path[-1]

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set("format", "other"), 'no object with "format": "secateur-plan"'),
        (_set("version", 2), "a pruning plan of version 2; this Secateur reads version 1"),
        (lambda d: d.pop("shapes"), '"shapes" is missing'),
        (_set("shapes", []), '"shapes" is not an object'),
        (_set("shapes", "c0.0.weight", [8, -4]), r"""\"shapes\" of 'c0.0.weight' is not a list of lengths"""),
        (_set("groups", "c0.0", {"size": 8}), 'not an object with "size" and "kept"'),
        (_set("groups", "c0.0", "size", 2.5), "not a whole number: 2.5"),
        (_set("groups", "c0.0", "size", True), "not a whole number: True"),
        (_set("groups", "c0.0", "kept", []), "not a list of at least one index"),
        (_set("groups", "c0.0", "kept", [1, 1]), "not a list of ascending indices below 8"),
        (_set("groups", "c0.0", "kept", [7, 8]), "not a list of ascending indices below 8"),
        (_set("kept", "other", {}), """"kept" names 'other', which is not in "shapes\""""),
        (_set("kept", "c0.0.weight", [1]), "not an object from axis to indices"),
        (_set("kept", "c0.0.weight", "2", [1]), "axis 2; the parameter has 2 axes"),
        (_set("kept", "c0.0.weight", "first", [1]), "axis 'first'; the parameter has 2 axes"),
        (_set("kept", "c0.0.weight", "0", [0.5]), "axis 0, is not a list of at least one index"),
        (_set("consumers", {}), '"consumers" is not a list'),
        (lambda d: d.pop("consumers"), '"consumers" is missing'),
        (_set("consumers", [["other", 0]]), r"""holds \['other', 0\], not a parameter"""),
        (_set("consumers", [["c0.0.bias", 1]]), "axis 1; the parameter has 1 axes"),
        (_set("mixing", {"other": []}), """"mixing" names 'other', which is not in "groups\""""),
        (_set("mixing", {"c0.0": [1]}), "is not a list of strings"),
        (_set("attributes", {"m.groups": "2"}), """"attributes" of 'm.groups' is not a whole number"""),
        (_set("tied", {"x": "y"}), """"tied" of 'x' names 'y', which is not in "shapes\""""),
    ],
)
def test_malformed_json_says_what_is_wrong(edit: Callable[[dict[str, Any]], object], message: str) -> None:
    data = json.loads(chain_plan().to_json())
    edit(data)
    with pytest.raises(PlanError, match=message):
        PruningPlan.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", '{"format": '])
def test_text_that_is_no_plan(text: str) -> None:
    with pytest.raises(PlanError, match="not a pruning plan"):
        PruningPlan.from_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format": "secateur-plan", "version": 1, "shapes": {"w": [3]}, '
        '"groups": {"w": {"size": 3, "kept": [100000000000000000000000000000]}}}',
    ],
)
def test_json_that_overflows(text: str) -> None:
    with pytest.raises(PlanError):
        PruningPlan.from_json(text)

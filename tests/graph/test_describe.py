from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from secateur.graph.describe import as_data, compact_members, describe
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Flow, Member, Role, Unprunable
from tests.handmade import GraphSketch, GroupSketch, linear_chain


def agent() -> DependencyGraph:
    """Two components that meet in ``c0.1``, with something of everything."""
    graph = linear_chain([8, 6, 4, 6, 3], per_component=2).graph()
    reason = "output of the entry point"
    stuck = [Unprunable(f"c1.{i}.bias", 0, 3, 3, (reason,)) for i in range(20)]
    return replace(
        graph,
        flows=(Flow("c0", "c1"),),
        unprunable=(
            *stuck,
            Unprunable("c0.0.weight", 1, 5, 8, ("aten.fft_fft has no rule (c0, agent.py:12)", "input")),
        ),
        missing_rules=("aten.fft_fft",),
    )


def section(text: str, title: str) -> list[list[str]]:
    """The words of every line of the section with this title, up to the next empty line."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    end = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
    return [line.split() for line in lines[start:end]]


def test_components_with_sizes_group_counts_and_flows() -> None:
    rows = section(describe(agent()), "Components")
    assert ["c0", str(8 * 6 + 6 + 6 * 4 + 4), str(8 * 6 + 6 * 4), "2", "c1"] in rows
    assert ["c1", str(4 * 6 + 6 + 6 * 3 + 3), str(4 * 6 + 6 * 3), "2"] in rows


def test_the_total_stands_below_the_components() -> None:
    table = describe(agent()).split("\n\n")[1]
    assert table.split() == ["total", "133", "114", "3"]


def test_interface_and_internal_groups_with_size_and_members() -> None:
    text = describe(agent())
    interfaces = section(text, "Interface groups (their parameters belong to several components): 1")
    assert ["c0.1", "4", "c0,", "c1", "c0.1.(weight[0],", "bias[0])", "c1.0.weight[1]"] in interfaces
    internal = section(text, "Internal groups: 2")
    assert ["c0.0", "6", "c0.0.(weight[0],", "bias[0])", "c0.1.weight[1]"] in internal
    assert ["c1.0", "6", "c1.0.(weight[0],", "bias[0])", "c1.1.weight[1]"] in internal


def test_a_deep_models_layers_share_a_row() -> None:
    places = [f"meets a norm (aten.native_layer_norm in layers.{i}.norm at model.py:7)" for i in range(40)]
    stuck = tuple(Unprunable(f"layers.{i}.norm.weight", 0, 8, 8, (place,)) for i, place in enumerate(places))
    rows = section(describe(replace(agent(), unprunable=stuck)), "Can't be pruned")
    text = " ".join(word for row in rows[3:] for word in row)
    assert "meets a norm (aten.native_layer_norm at" in text
    assert text.count("meets a norm") == 1
    assert "... and 32 more" in text


def test_equal_reasons_are_one_row() -> None:
    rows = section(describe(agent()), "Can't be pruned")
    line = next(row for row in rows if row[:5] == ["output", "of", "the", "entry", "point"])
    assert line[5] == "20"
    text = " ".join(word for row in rows for word in row)
    assert "... and 12 more" in text
    assert "c0.0.weight[1] (5 of 8)" in text
    assert "aten.fft_fft has no rule (c0, agent.py:12); input 1" in text


def test_missing_rules_are_named() -> None:
    assert "Operators without a rule, met in the trace: aten.fft_fft" in describe(agent())


def test_what_is_not_there_is_said_in_a_line() -> None:
    text = describe(linear_chain([4, 3, 2]).graph())
    assert "Interface groups: none" not in text  # the two layers are two components
    text = describe(linear_chain([4, 3, 2], per_component=2).graph())
    assert "Interface groups: none" in text
    assert "Can't be pruned: nothing" in text
    assert "Operators without a rule" not in text


def test_blocks_steps_and_mixing_are_notes_of_the_group() -> None:
    members = {("net.qkv.weight", 0): None, ("net.proj.weight", 1): None}
    group = GroupSketch("qkv", 12, members, blocks=3, units=2, mixing=("layer_norm (net.norm)",))
    text = describe(
        GraphSketch({"net.qkv.weight": (12, 4), "net.proj.weight": (4, 12)}, [group], ["net.qkv.weight"]).graph()
    )
    assert "3 equal blocks" in text
    assert "in steps of 6" in text
    assert "mixed by layer_norm (net.norm)" in " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_plain_ascii_no_wider_than_asked_and_always_the_same(width: int) -> None:
    text = describe(agent(), width=width)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= width
    assert text == describe(agent(), width=width)
    assert not any(line != line.rstrip() for line in text.splitlines())


def member(parameter: str, axis: int, multiplicity: int = 1) -> Member:
    return Member(parameter, axis, Role.PRODUCER, "net", np.zeros((2, multiplicity), dtype=np.int64))


def test_members_of_one_module_are_gathered_and_long_lists_cut() -> None:
    assert compact_members([member("a.weight", 0), member("a.bias", 0), member("b.weight", 1, 49)]) == (
        "a.(weight[0], bias[0]), b.weight[1] x49"
    )
    assert compact_members([member("scale", 0), member("shift", 0)]) == "scale[0], shift[0]"
    assert compact_members([member(f"m{i}.weight", 0) for i in range(5)], limit=2) == (
        "m0.weight[0], m1.weight[0], ... and 3 more"
    )


def test_members_of_many_layers_are_gathered() -> None:
    layers = [member(f"net.{i}.norm.{name}", 0) for i in range(9) for name in ("weight", "bias")]
    assert compact_members([member("embed.weight", 1), *layers]) == (
        "embed.weight[1], net.*.norm.(weight[0], bias[0]) (9 modules)"
    )
    assert compact_members(layers[:2]) == "net.0.norm.(weight[0], bias[0])"


def test_many_places_of_mixing_are_counted() -> None:
    mixing = ("layer_norm (a at m.py:1)", "layer_norm (b at m.py:1)", "softmax (c at m.py:2)")
    group = GroupSketch("a", 4, {("n.a.weight", 0): None, ("n.b.weight", 1): None}, mixing=mixing)
    graph = GraphSketch({"n.a.weight": (4, 4), "n.b.weight": (4, 4)}, [group], ["n.a.weight"]).graph()
    assert "layer_norm (2 places); softmax (c at m.py:2)" in " ".join(describe(graph).split())


def test_as_data_holds_everything_and_goes_through_json() -> None:
    data = json.loads(json.dumps(as_data(agent())))
    assert data["parameters"] == 133
    assert data["components"][0]["name"] == "c0"
    assert data["components"][0]["macs"] == 72
    interface = next(group for group in data["groups"] if group["is_interface"])
    assert interface["name"] == "c0.1"
    assert interface["components"] == ["c0", "c1"]
    assert interface["members"][-1] == {
        "parameter": "c1.0.weight", "axis": 1, "role": "consumer", "component": "c1", "multiplicity": 1
    }  # fmt: skip
    assert len(data["unprunable"]) == 21
    assert data["flows"] == [{"source": "c0", "target": "c1"}]
    assert data["missing_rules"] == ["aten.fft_fft"]

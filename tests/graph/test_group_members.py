"""Members of some groups, written out: every axis, its role, and which indices leave with a channel."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch

from secateur.graph import DependencyGraph, Group, trace
from secateur.plan import plan
from secateur.surgery import apply
from tests.models.sequences import Attention
from tests.models.zoo import CASES
from tests.removal import largest_difference, outputs


@lru_cache
def graph_of(name: str) -> DependencyGraph:
    return next(case for case in CASES if case.name == name).graph()


def members(group: Group) -> dict[str, str]:
    """``parameter[axis] xmultiplicity`` to the first letter of the role."""
    return {str(m): m.role.value[0] for m in group.members}


def indices(group: Group, parameter: str, axis: int) -> list[list[int]]:
    (member,) = [m for m in group.members if (m.parameter, m.axis) == (parameter, axis)]
    return member.indices.tolist()


def reasons(graph: DependencyGraph, parameter: str, axis: int) -> str:
    (item,) = [u for u in graph.unprunable if (u.parameter, u.axis) == (parameter, axis)]
    return "; ".join(item.reasons)


# --- attention ---


def test_queries_and_keys_do_not_touch_values() -> None:
    graph = graph_of("attention-separate")
    assert members(graph.group("q")) == {"q.weight[0]": "p", "q.bias[0]": "p", "k.weight[0]": "p", "k.bias[0]": "p"}
    assert members(graph.group("v")) == {"v.weight[0]": "p", "out.weight[1]": "c"}
    assert graph.group("q").tie != graph.group("v").tie
    assert graph.group("q").units == graph.group("v").units == 4
    assert graph.group("q").block_of.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_pruning_values_leaves_queries_and_keys_whole() -> None:
    model = Attention("separate").double().eval()
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    graph = trace(model, x)
    small = apply(model, plan(graph, {g.name: np.arange(g.size, dtype=float) for g in graph.groups}, {"v": 0.5}))
    shapes = {name: tuple(p.shape) for name, p in small.named_parameters()}
    assert shapes["q.weight"] == shapes["k.weight"] == (12, 12)
    assert shapes["v.weight"] == (6, 12)
    assert shapes["out.weight"] == (12, 6)


@pytest.mark.parametrize("name", ["attention-chunk", "attention-split", "attention-one-view", "attention-shapes"])
def test_a_fused_layer_has_queries_and_keys_in_one_group_and_values_in_another(name: str) -> None:
    graph = graph_of(name)
    together, values = graph.group("qkv"), graph.group("qkv#2")
    assert members(together) == {"qkv.weight[0] x2": "p", "qkv.bias[0] x2": "p"}
    assert members(values) == {"qkv.weight[0]": "p", "qkv.bias[0]": "p", "out.weight[1]": "c"}
    # Channel c of q leaves with channel c of k, 12 rows further down; v has the last 12 rows to itself.
    assert indices(together, "qkv.weight", 0) == [[c, 12 + c] for c in range(12)]
    assert indices(values, "qkv.weight", 0) == [[24 + c] for c in range(12)]
    assert indices(values, "out.weight", 1) == [[c] for c in range(12)]
    # The pieces shrink by equal numbers (the layer is cut in three), by other channels if need be.
    assert together.tie == values.tie


def test_whole_heads_leave_where_their_width_is_given() -> None:
    group = graph_of("attention-whole-heads").group("q")
    assert members(group) == {
        **{f"{name} x4": "p" for name in ("q.weight[0]", "q.bias[0]", "k.weight[0]", "k.bias[0]", "v.weight[0]")},
        "out.weight[1] x4": "c",
    }
    assert indices(group, "k.weight", 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_sizes_given_as_numbers_are_named_and_nothing_breaks() -> None:
    graph = graph_of("layer-norm-by-number")
    assert not graph.groups
    for key in (("inner.0.weight", 0), ("gain", 0)):
        assert "has a size given as a number" in reasons(graph, *key)
        assert "sizes.py" in reasons(graph, *key)


@pytest.mark.parametrize("name", ["grouped-query-interleave", "grouped-query-expand"])
def test_grouped_queries_leave_with_their_shared_key(name: str) -> None:
    graph = graph_of(name)
    assert members(graph.group("q")) == {"q.weight[0] x2": "p", "k.weight[0]": "p"}
    assert members(graph.group("v")) == {"v.weight[0]": "p", "out.weight[1] x2": "c"}
    # Heads 0 and 1 of q read head 0 of k, heads 2 and 3 head 1; every head is four wide.
    assert indices(graph.group("q"), "q.weight", 0) == [
        [8 * (c // 4) + c % 4, 8 * (c // 4) + 4 + c % 4] for c in range(8)
    ]


def test_rotary_pairs_stay_together_in_every_head() -> None:
    graph = graph_of("rotary")
    assert indices(graph.group("q"), "q.weight", 0) == [[c, c + 3, c + 6, c + 9] for c in range(3)]
    assert indices(graph.group("q"), "angles", 1) == [[c, c + 3] for c in range(3)]
    assert graph.group("v").size == 12


def test_torch_attention_loses_heads_and_the_stream_shrinks_alike() -> None:
    graph = graph_of("torch-attention")
    heads, stream = graph.group("attention"), graph.group("embed")
    assert members(heads) == {
        "attention.in_proj_weight[0] x12": "p",
        "attention.in_proj_bias[0] x12": "p",
        "attention.out_proj.weight[1] x4": "c",
    }
    assert heads.tie == stream.tie
    assert (heads.units, stream.units, stream.step) == (2, 2, 4)


# --- cutting, joining, moving ---


def test_mean_and_log_variance_leave_together() -> None:
    group = graph_of("vae-mean").group("enc.2")
    assert members(group) == {"enc.2.weight[0] x2": "p", "enc.2.bias[0] x2": "p", "dec.0.weight[1]": "c"}
    assert indices(group, "enc.2.weight", 0) == [[c, 6 + c] for c in range(6)]


def test_skips_land_where_they_are_joined() -> None:
    graph = graph_of("unet")
    # The decoder reads [up2 | stem]; the wide decoder [down | up1], in the order of the concatenations.
    assert indices(graph.group("stem.0"), "dec2.0.weight", 1) == [[c] for c in range(6)]
    assert indices(graph.group("up2"), "dec2.0.weight", 1) == [[6 + c] for c in range(6)]
    assert indices(graph.group("up1"), "dec1.0.weight", 1) == [[c] for c in range(8)]
    assert indices(graph.group("down.0"), "dec1.0.weight", 1) == [[8 + c] for c in range(8)]


def test_a_dense_net_remembers_every_feature() -> None:
    graph = graph_of("densenet")
    stem = graph.group("stem")
    consumers = {m.parameter for m in stem.members if m.role.value == "consumer"}
    assert consumers == {*(f"layers.{i}.conv1.weight" for i in range(3)), "transition.0.weight"}
    first = graph.group("layers.0.conv2")
    assert indices(first, "layers.2.conv1.weight", 1) == [[6 + c] for c in range(4)]
    norms = {f"layers.2.norm1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert norms <= {m.parameter for m in first.members}


def test_flattened_maps_take_their_positions_along() -> None:
    graph = graph_of("conv-autoencoder")
    assert indices(graph.group("down.2"), "code.weight", 1)[1] == [4, 5, 6, 7]
    assert indices(graph.group("grow"), "grow.weight", 0)[2] == [8, 9, 10, 11]
    assert indices(graph.group("grow"), "up.0.weight", 0) == [[c] for c in range(8)]


def test_pixel_shuffle_moves_whole_blocks() -> None:
    graph = graph_of("pixel-shuffle")
    assert indices(graph.group("0"), "0.weight", 0)[1] == [4, 5, 6, 7]
    assert indices(graph.group("3"), "6.weight", 1)[1] == [4, 5, 6, 7]


@pytest.mark.parametrize("name", ["channel-shuffle", "channel-shuffle-shapes", "channel-shuffle--1"])
def test_a_channel_shuffle_between_groups(name: str) -> None:
    graph = graph_of(name)
    # Channel i of each half lands at 2i and 2i + 1; the next grouped layer has halves of six, so that i, i + 3 meet.
    assert indices(graph.group("first"), "first.weight", 0) == [[i, i + 3, i + 6, i + 9] for i in range(3)]
    assert graph.group("second").blocks == 2


def test_mirror_images_leave_in_pairs() -> None:
    assert indices(graph_of("flip-meets-itself").group("enc"), "enc.weight", 0) == [[c, 11 - c] for c in range(6)]


def test_a_flip_reverses_what_its_consumer_loses() -> None:
    group = graph_of("flip").group("enc")
    assert indices(group, "head.weight", 1) == [[11 - c] for c in range(12)]


def test_a_roll_pins_what_goes_round_the_end() -> None:
    graph = graph_of("roll")
    assert indices(graph.group("enc"), "enc.weight", 0) == [[c] for c in range(9)]
    assert indices(graph.group("enc"), "head.weight", 1) == [[c + 3] for c in range(9)]
    assert "rolled round the end by 3" in reasons(graph, "enc.weight", 0)


def test_a_cut_at_a_number_pins_what_lies_before_it() -> None:
    graph = graph_of("slices-by-number")
    assert indices(graph.group("enc"), "enc.weight", 0) == [[16 + c] for c in range(8)]
    assert "cut by a slice at index 16" in reasons(graph, "enc.weight", 0)


# --- sharing ---


def test_one_weight_used_twice_is_producer_and_consumer() -> None:
    assert members(graph_of("tied-layers").group("enc")) == {
        "enc.weight[0]": "p",
        "enc.bias[0]": "p",
        "first.weight[0]": "p",
        "first.weight[1]": "c",
        "first.bias[0]": "p",
        "second.bias[0]": "p",
        "head.weight[1]": "c",
    }
    assert graph_of("tied-layers").tied == {"second.weight": "first.weight"}


def test_a_transposed_tie_is_both() -> None:
    graph = graph_of("tied-transposed")
    assert members(graph.group("enc")) == {"enc.weight[0]": "b", "enc.bias[0]": "p", "code.weight[1]": "b"}
    assert members(graph.group("code")) == {"code.weight[0]": "b", "code.bias[0]": "p"}


@pytest.mark.parametrize("name", ["tied-rows", "tied-storage"])
def test_ties_are_found_by_storage(name: str) -> None:
    graph = graph_of(name)
    assert graph.tied == {"right.weight": "left.weight"}
    assert set(members(graph.group("left"))) == {
        "left.weight[0]",
        "left.bias[0]",
        "right.bias[0]",
        "head.weight[1]",
        "other.weight[1]",
    }


def test_a_tied_output_layer_pins_the_vocabulary_only() -> None:
    graph = graph_of("tied-embedding")
    assert members(graph.group("embed"))["embed.weight[1]"] == "b"
    assert "row of an embedding table" in reasons(graph, "embed.weight", 0)


def test_buffers_follow() -> None:
    group = graph_of("channel-buffers").group("enc")
    assert {"scale[0]", "shift[1]", "mask[0]"} <= set(members(group))


def test_a_recurrent_layer_loses_the_same_unit_of_every_gate() -> None:
    group = graph_of("lstm").group("rnn")
    assert indices(group, "rnn.weight_hh_l0", 0) == [[c, 8 + c, 16 + c, 24 + c] for c in range(8)]
    assert indices(group, "rnn.weight_hh_l0", 1) == [[c] for c in range(8)]


def test_an_outer_product_says_which_side_stays() -> None:
    graph = graph_of("outer-product")
    assert indices(graph.group("left"), "head.weight", 1)[2] == [8, 9, 10, 11]
    assert "merged into one dimension with another pruned axis" in reasons(graph, "right.weight", 0)


def test_in_place_writes_follow_the_view() -> None:
    group = graph_of("in-place-by-share").group("b")
    assert indices(group, "head.weight", 1) == [[8 + c] for c in range(8)]
    assert indices(group, "c.weight", 0) == [[8 + c] for c in range(8)]


# --- any run's inputs give the same outputs ---


def test_a_pruned_model_takes_other_sizes() -> None:
    """Batch and number of tokens are not part of the graph: the smaller model takes any."""
    model = Attention("shapes").double().eval()
    graph = trace(model, torch.randn(2, 4, 5, dtype=torch.float64))
    chosen = plan(graph, {g.name: np.arange(g.size, dtype=float) for g in graph.groups}, 0.5)
    small = apply(model, chosen)
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    whole = outputs(lambda m: m(x), small)
    single = outputs(lambda m: torch.cat([m(row[None]) for row in x]), small)
    assert whole[0].shape == (3, 7, 2)
    assert largest_difference(whole, single) < 1e-12

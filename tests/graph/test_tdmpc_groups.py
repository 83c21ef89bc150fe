"""A controller without ``forward``: exactly the groups that its drawing shows, component by component."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from secateur.errors import TraceError
from secateur.graph import DependencyGraph, Role, trace
from secateur.surgery import apply
from tests.models.case import unsettle
from tests.models.control import ACTION, LATENT, WorldModel, rollout
from tests.removal import counted_macs, counted_parameters, largest_difference, masked, outputs, random_plan

PARTS = ("encoder", "dynamics", "reward", "pi", "Q1", "Q2")

LATENT_MEMBERS = {
    "encoder.2.weight[0]": "producer",
    "encoder.2.bias[0]": "producer",
    "dynamics.4.weight[0]": "producer",
    "dynamics.4.bias[0]": "producer",
    "dynamics.0.weight[1]": "consumer",
    "reward.0.weight[1]": "consumer",
    "pi.0.weight[1]": "consumer",
    "Q1.0.weight[1]": "consumer",
    "Q2.0.weight[1]": "consumer",
}

HIDDEN = {
    "encoder.0": (10, {"encoder.0.weight[0]", "encoder.0.bias[0]", "encoder.2.weight[1]"}),
    "dynamics.0": (14, {"dynamics.0.weight[0]", "dynamics.0.bias[0]", "dynamics.2.weight[1]"}),
    "dynamics.2": (15, {"dynamics.2.weight[0]", "dynamics.2.bias[0]", "dynamics.4.weight[1]"}),
    "reward.0": (9, {"reward.0.weight[0]", "reward.0.bias[0]", "reward.2.weight[1]"}),
    "pi.0": (8, {"pi.0.weight[0]", "pi.0.bias[0]", "pi.2.weight[1]"}),
    "Q1.0": (16, {"Q1.0.weight[0]", "Q1.0.bias[0]", "Q1.2.weight[1]"}),
    "Q1.2": (11, {"Q1.2.weight[0]", "Q1.2.bias[0]", "Q1.4.weight[1]"}),
    "Q2.0": (16, {"Q2.0.weight[0]", "Q2.0.bias[0]", "Q2.2.weight[1]"}),
    "Q2.2": (11, {"Q2.2.weight[0]", "Q2.2.bias[0]", "Q2.4.weight[1]"}),
}

NORMED = {
    "Q1.0": (16, {"Q1.0.weight[0]", "Q1.0.bias[0]", "Q1.1.weight[0]", "Q1.1.bias[0]", "Q1.3.weight[1]"}),
    "Q1.3": (11, {"Q1.3.weight[0]", "Q1.3.bias[0]", "Q1.5.weight[1]"}),
    "Q2.0": (16, {"Q2.0.weight[0]", "Q2.0.bias[0]", "Q2.1.weight[0]", "Q2.1.bias[0]", "Q2.3.weight[1]"}),
    "Q2.3": (11, {"Q2.3.weight[0]", "Q2.3.bias[0]", "Q2.5.weight[1]"}),
}


def world_model(*, frozen: bool = False, normed_values: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = WorldModel(normed_values=normed_values).double().eval()
    unsettle(model)
    model.encoder.requires_grad_(not frozen)
    return model


def check_groups(graph: DependencyGraph, hidden: Mapping[str, tuple[int, set[str]]]) -> None:
    """One interface group, the latent; every other group one hidden layer of one component."""
    (latent,) = graph.interfaces
    assert latent.size == LATENT
    assert {str(m): m.role.value for m in latent.members} == LATENT_MEMBERS
    assert latent.components == PARTS
    assert (latent.blocks, latent.units, latent.mixing) == (1, LATENT, ())
    internal = [group for group in graph.groups if not group.is_interface]
    assert {g.name: (g.size, {str(m) for m in g.members}) for g in internal} == hidden
    assert all(g.components == (g.name.split(".")[0],) for g in internal)
    assert all(g.blocks == 1 and g.units == g.size for g in internal)
    assert len(graph.ties) == len(graph.groups)
    assert [c.name for c in graph.components] == list(PARTS)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen-encoder"])
def test_exactly_the_expected_groups(frozen: bool) -> None:
    graph = trace(world_model(frozen=frozen), run=rollout())
    check_groups(graph, HIDDEN)
    assert not any(group.mixing for group in graph.groups)


@pytest.mark.parametrize("steps", [2, 5])
def test_more_steps_change_nothing(steps: int) -> None:
    check_groups(trace(world_model(), run=rollout(steps)), HIDDEN)


def test_one_step_leaves_two_latents() -> None:
    """The dynamics read the encoder's latent only and the values the dynamics' only: nothing makes them agree."""
    graph = trace(world_model(), run=rollout(steps=1))
    assert {g.name: g.size for g in graph.interfaces} == {"encoder.2": LATENT, "dynamics.4": LATENT}
    assert graph.group("encoder.2").components == ("encoder", "dynamics", "reward")
    assert graph.group("dynamics.4").components == ("dynamics", "pi", "Q1", "Q2")


def test_layer_norms_are_named() -> None:
    graph = trace(world_model(normed_values=True), run=rollout())
    check_groups(graph, {**{n: g for n, g in HIDDEN.items() if not n.startswith("Q")}, **NORMED})
    mixing = {g.name: g.mixing for g in graph.groups if g.mixing}
    assert set(mixing) == {"Q1.0", "Q2.0"}
    assert all(
        "layer_norm" in reasons[0] and name.replace(".0", ".1") in reasons[0] for name, reasons in mixing.items()
    )


def test_latent_indices_are_aligned_across_components() -> None:
    """Channel c is index c of every axis: the latent comes before the action in each concatenation."""
    (latent,) = trace(world_model(), run=rollout()).interfaces
    for member in latent.members:
        assert member.indices.ravel().tolist() == list(range(LATENT))


def test_flows_follow_the_data() -> None:
    flows = {(f.source, f.target) for f in trace(world_model(), run=rollout()).flows}
    after_latent = {(source, target) for source in ("encoder", "dynamics") for target in ("dynamics", "reward")}
    values = {("dynamics", "Q1"), ("dynamics", "Q2"), ("dynamics", "pi"), ("pi", "Q1"), ("pi", "Q2")}
    # The dynamics' own output goes back to it: no edge between components.
    assert flows == (after_latent | values) - {("dynamics", "dynamics")}


def test_actions_and_observations_stay() -> None:
    graph = trace(world_model(), run=rollout())
    stay = {(u.parameter, u.axis): (u.count, u.size) for u in graph.unprunable}
    assert stay["encoder.0.weight", 1] == (7, 7)
    assert stay["pi.2.weight", 0] == (ACTION, ACTION)
    for consumer in ("dynamics", "reward", "Q1", "Q2"):
        assert stay[f"{consumer}.0.weight", 1] == (ACTION, LATENT + ACTION)


def test_actions_that_stay_inside_can_shrink_and_protecting_them_helps() -> None:
    model = world_model()
    graph = trace(model, run=rollout(by_policy=True))
    assert {g.name: g.size for g in graph.interfaces} == {"encoder.2": LATENT, "pi.2": ACTION}
    check_groups(trace(model, run=rollout(by_policy=True), protect=["pi.2"]), HIDDEN)
    check_groups(trace(model, run=rollout(by_policy=True), protect=[model.get_submodule("pi.2")]), HIDDEN)


def test_a_protected_latent_leaves_the_hidden_layers() -> None:
    graph = trace(world_model(), run=rollout(), protect=["encoder.2"])
    assert not graph.interfaces
    assert {g.name for g in graph.groups} == set(HIDDEN)
    reasons = [u.reasons for u in graph.unprunable if (u.parameter, u.axis) == ("Q2.0.weight", 1)]
    assert any("protected: encoder.2" in reason for reason in reasons[0])


def test_components_can_be_given() -> None:
    model = world_model()
    graph = trace(model, run=rollout(), components={"critic": ["Q1", model.get_submodule("Q2")], "model": "dynamics"})
    assert [c.name for c in graph.components] == ["encoder", "model", "reward", "pi", "critic"]
    (latent,) = graph.interfaces
    assert latent.components == ("encoder", "model", "reward", "pi", "critic")
    assert graph.group("Q1.2").components == graph.group("Q2.0").components == ("critic",)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen-encoder"])
@pytest.mark.parametrize("normed", [False, True], ids=["plain", "normed-values"])
def test_pruned_equals_masked_and_costs_what_was_predicted(frozen: bool, normed: bool) -> None:
    model, run = world_model(frozen=frozen, normed_values=normed), rollout()
    graph = trace(model, run=run)
    for seed in range(3):
        chosen = random_plan(graph, seed, keep=[g.name for g in graph.groups if g.mixing])
        small = apply(model, chosen)
        expected = outputs(run, masked(model, graph, chosen))
        assert largest_difference(outputs(run, small), expected) < 1e-9
        predicted = graph.cost({name: len(kept) for name, kept in chosen.groups.items()})
        assert predicted.parameters == counted_parameters(small)
        assert predicted.macs == counted_macs(run, small)
        assert type(small) is WorldModel
        assert all(p.requires_grad != (frozen and n.startswith("encoder")) for n, p in small.named_parameters())


def test_every_call_of_the_rollout_is_counted() -> None:
    """MACs by component, by hand: the encoder once, dynamics and reward three times, the values once."""
    cost = trace(world_model(), run=rollout(steps=3, batch=5)).cost()
    by_hand = {
        "encoder": 5 * (7 * 10 + 10 * 12),
        "dynamics": 3 * 5 * (15 * 14 + 14 * 15 + 15 * 12),
        "reward": 3 * 5 * (15 * 9 + 9),
        "pi": 5 * (12 * 8 + 8 * 3),
        "Q1": 5 * (15 * 16 + 16 * 11 + 11),
        "Q2": 5 * (15 * 16 + 16 * 11 + 11),
    }
    assert {name: part.macs for name, part in cost.by_component.items()} == by_hand
    assert cost.macs == sum(by_hand.values())
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in world_model().named_children()}
    assert {name: part.parameters for name, part in cost.by_component.items()} == parameters


def test_consumers_come_in_the_order_of_their_first_use() -> None:
    graph = trace(world_model(), run=rollout())
    order = [c.parameter.removesuffix(".weight") for c in graph.consumers if c.axis == 1]
    assert order == [
        *("encoder.0", "encoder.2", "dynamics.0", "dynamics.2", "dynamics.4", "reward.0", "reward.2"),
        *("pi.0", "pi.2", "Q1.0", "Q1.2", "Q1.4", "Q2.0", "Q2.2", "Q2.4"),
    ]


def test_a_model_without_forward_can_not_take_example_inputs() -> None:
    with pytest.raises(TraceError, match="forward") as caught:
        trace(world_model(), torch.randn(2, 7, dtype=torch.float64))
    assert isinstance(caught.value.__cause__, NotImplementedError)


def test_members_name_their_component_and_role() -> None:
    (latent,) = trace(world_model(), run=rollout()).interfaces
    assert all(m.component == m.parameter.split(".")[0] for m in latent.members)
    assert {m.component for m in latent.members_with(Role.CONSUMER)} == {"dynamics", "reward", "pi", "Q1", "Q2"}
    assert {m.component for m in latent.members_with(Role.PRODUCER)} == {"encoder", "dynamics"}


def test_the_entry_point_runs_once() -> None:
    """The entry point is called exactly once, with the model itself."""
    model, seen = world_model(), list[Any]()
    inner = rollout()

    def run(given: nn.Module) -> Any:
        seen.append(given)
        return inner(given)

    trace(model, run=run)
    assert len(seen) == 1
    assert seen[0] is model

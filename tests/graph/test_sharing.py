"""Parts of a model that other live models hold too: warned of, and nothing else is."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn

from secateur.errors import SecateurWarning
from secateur.graph import trace
from secateur.graph.sharing import warn_of_sharing

X = torch.ones(2, 6)


class Critic(nn.Module):
    """Values on top of somebody's encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.value = nn.Linear(20, 1)


def actor() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(6, 20), nn.ReLU()), nn.Linear(20, 3))


def message(model: nn.Module) -> str:
    """The warning, or nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_sharing(model)
    return "".join(str(w.message) for w in caught)


def test_a_shared_submodule_is_named_with_who_holds_it() -> None:
    model = actor()
    critic = Critic(model[0])
    with pytest.warns(
        SecateurWarning, match=r"Sequential shares parts with modules outside it: '0' \(also in a Critic\)"
    ):
        trace(model, X)
    assert critic.encoder is model[0]


def test_a_shared_parameter_is_named() -> None:
    model, other = actor(), nn.Linear(20, 3)
    other.weight = model.get_parameter("1.weight")
    assert "'1.weight' (also in a Linear)" in message(model)


def test_many_shared_parts_are_counted() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    other = nn.Sequential(*list(model)[:5], nn.Linear(4, 1))
    first = ", ".join(f"'{i}' (also in a Sequential)" for i in range(3))
    assert f"{first} and 2 more." in message(model)
    assert len(other) == 6


def test_a_module_that_holds_the_whole_model_is_no_other() -> None:
    model = actor()
    whole = nn.ModuleDict({"actor": model})
    assert message(model) == ""
    assert message(whole) == ""


def test_a_model_made_of_parts_of_another_is_a_part_of_it() -> None:
    agent = nn.ModuleDict({"actor": actor(), "critic": nn.Linear(20, 1), "target": nn.Linear(20, 1)})
    view = nn.ModuleDict({"actor": agent["actor"], "critic": agent["critic"]})
    assert message(view) == ""
    mixed = nn.ModuleDict({"body": agent.get_submodule("actor.0"), "critic": agent["critic"]})
    assert "'body' (also in a Sequential)" in message(mixed)


def test_parts_shared_inside_the_model_are_its_own() -> None:
    model = actor()
    both = nn.ModuleDict({"actor": model, "critic": Critic(model[0])})
    head = nn.Linear(20, 3)
    head.weight = model.get_parameter("1.weight")
    both["head"] = head
    assert message(both) == ""


def held_by_a_variable(model: nn.Sequential) -> Any:
    return model[0], model[1].weight


def as_an_optimizer(parameters: Iterable[nn.Parameter]) -> Any:
    """Held as an optimiser holds them: in a list, and as the keys of their states."""
    listed = list(parameters)
    return [{"params": listed, "lr": 0.1}], {p: {"step": 1} for p in listed}


def held_by_an_optimizer(model: nn.Sequential) -> Any:
    return as_an_optimizer(model.parameters())


def held_by_an_optimizer_in_part(model: nn.Sequential) -> Any:
    return as_an_optimizer(model[1].parameters())


def held_by_a_mapping(model: nn.Sequential) -> Any:
    return {"encoder": model[0]}, {"weight": model[1].weight}, dict(model.named_parameters())


def held_by_a_pending_gradient(model: nn.Sequential) -> Any:
    return model(X).sum()


def held_by_its_own_attributes(model: nn.Sequential) -> Any:
    vars(model[0])["helper"] = model[0].forward
    vars(model[1])["parts"] = [model[0], model.get_parameter("0.0.weight")]


def held_by_a_model_of_the_past(model: nn.Sequential) -> Any:
    critic = Critic(model[0])
    vars(critic)["cycle"] = [critic]  # so that only the collector frees it


@pytest.mark.parametrize(
    "hold",
    [
        held_by_a_variable,
        held_by_an_optimizer,
        held_by_an_optimizer_in_part,
        held_by_a_mapping,
        held_by_a_pending_gradient,
        held_by_its_own_attributes,
        held_by_a_model_of_the_past,
    ],
)
def test_what_else_holds_parts_is_no_model(hold: Any) -> None:
    model = actor()
    held = hold(model)
    assert message(model) == ""
    del held


def test_models_that_nothing_else_holds_cost_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(*objects: Any) -> Any:
        raise AssertionError("a walk over all objects")

    lstm = nn.LSTM(4, 5, num_layers=2)  # keeps its parameters in a list, too
    attention = nn.TransformerEncoderLayer(8, 2)
    tied = actor()
    tied.append(nn.Linear(20, 3))
    tied[2].weight = tied[1].weight
    optimised = actor()
    optimizer = as_an_optimizer(optimised.parameters())
    for name in ("get_objects", "get_referrers"):
        monkeypatch.setattr(gc, name, walk)
    for model in (lstm, attention, tied, optimised, actor()):
        warn_of_sharing(model)
    assert optimizer

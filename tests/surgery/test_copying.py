"""Deep copies of modules, held against ``copy.deepcopy``, and lists of modules against torch's own."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.graph.walk import modules_in, named_modules, named_parameters, parameters_in
from secateur.surgery.copying import deep_copy


class Own(nn.Module):
    """Copied in its own way."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Own:
        made = Own()
        made.was_copied = True  # type: ignore[assignment]
        return made


class Everything(nn.Module):
    """Shared parts, a part that holds the whole, containers of all kinds, nothing registered under a name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.again = self.first
        self.attention = nn.MultiheadAttention(4, 2)
        self.own = Own()
        self.register_module("none", None)
        self.register_buffer("count", torch.tensor(3))
        self.tied = self.first.weight
        self.listed: list[Any] = [self.first, (1, 2, [3])]
        self.listed.append(self.listed)
        self.pair = (self.listed, torch.ones(2))
        self.plain = (1, "two", 3.0)
        self.named = OrderedDict(a={1, 2}, b=frozenset({3}))
        self.back = [self]


@pytest.fixture
def model() -> Everything:
    torch.manual_seed(0)
    return Everything()


def test_a_copy_is_deepcopys(model: Everything) -> None:
    made, expected = deep_copy(model, {}), copy.deepcopy(model)
    assert made is not model
    assert vars(made).keys() == vars(expected).keys()
    assert list(made.state_dict()) == list(expected.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(made.state_dict().values(), expected.state_dict().values(), strict=True)
    )
    assert made.again is made.first
    assert made.first is not model.first
    assert made.tied is made.first.weight
    assert made.own.was_copied
    assert made.back == [made]
    assert made.listed[0] is made.first
    assert made.listed[2] is made.listed
    assert made.pair[0] is made.listed
    assert made.pair[1] is not model.pair[1]
    assert made.plain is model.plain
    assert made.named == model.named
    assert type(made.named) is OrderedDict
    assert made.named["a"] is not model.named["a"]


def test_what_the_memo_holds_is_taken(model: Everything) -> None:
    other = nn.Linear(3, 4)
    made = deep_copy(model, {id(model.first): other})
    assert made.first is other
    assert made.again is other
    assert made.listed[0] is other


def test_what_a_run_left_behind_goes_along_without_its_history() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.MultiheadAttention(4, 2))
    model.last = model[0](torch.ones(2, 3))
    model[1].seen = {"weights": [model.last * 2]}
    made = deep_copy(model, {})
    for kept, before in ((made.last, model.last), (made[1].seen["weights"][0], model[1].seen["weights"][0])):
        assert kept.grad_fn is None
        assert torch.equal(kept, before)
    assert model.last.grad_fn is not None


@pytest.mark.parametrize("all_names", [False, True])
def test_modules_are_in_torchs_order(model: Everything, all_names: bool) -> None:
    expected = list(model.named_modules(remove_duplicate=not all_names))
    assert named_modules(model, all_names=all_names) == expected
    if not all_names:
        assert modules_in(model) == list(model.modules())


def test_parameters_are_in_torchs_order(model: Everything) -> None:
    assert list(named_parameters(model).items()) == list(model.named_parameters())
    assert [id(p) for p in parameters_in(model)] == [id(p) for p in model.parameters()]


class Stubborn(nn.Module):
    """Copies its parameters whatever the memo holds."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
        return Stubborn(self.weight.detach().clone())


def test_a_part_that_copies_itself_without_its_memo_is_named() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.held = nn.Linear(3, 8), Stubborn(torch.ones(2, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.wide(x) @ self.held.weight.t()

    model, x = Model(), torch.ones(1, 3)
    graph = secateur.trace(model, x)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    with pytest.raises(secateur.errors.PlanError, match=r"'held\.weight' isn't shrunk in the copy"):
        secateur.apply(model, plan)
    assert model.held.weight.shape == (2, 8)
    secateur.apply(model, plan, inplace=True)
    assert model.held.weight.shape == (2, 4)
    assert model(x).shape == (1, 2)


def test_parameters_with_more_dots_in_their_names_than_there_are_modules() -> None:
    class Dotted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._parameters["first.weight"] = nn.Parameter(torch.ones(8, 3))
            self._parameters["second.weight"] = nn.Parameter(torch.ones(2, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = self._parameters.values()
            assert first is not None
            assert second is not None
            return (x @ first.t()).relu() @ second.t()

    model, x = Dotted(), torch.ones(1, 3)
    result = secateur.prune(model, x, target=secateur.Sparsity(0.5, tolerance=0.1))
    assert [tuple(p.shape) for p in result.model.parameters()] == [(4, 3), (2, 4)]

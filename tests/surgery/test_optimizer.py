from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from secateur.errors import PlanError
from secateur.plan import PruningPlan, plan
from secateur.surgery import apply
from secateur.surgery.parameters import kept_copy
from tests.handmade import Chain, keeping, linear_chain, random_scores

WIDTHS = [5, 8, 6, 3]
Make = Callable[..., torch.optim.Optimizer]


def chain_plan() -> PruningPlan:
    graph = linear_chain(WIDTHS).graph()
    return plan(graph, random_scores(graph), 0.5)


def trained(make: Make, steps: int = 3) -> tuple[Any, torch.optim.Optimizer]:
    model: Any = Chain(WIDTHS)
    optimizer = make(model.parameters())
    for _ in range(steps):
        train(model, optimizer)
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(7, 5)).pow(2).sum().backward()
    optimizer.step()


def states(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    return {
        name: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in optimizer.state[p].items()}
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize(
    "make",
    [
        torch.optim.Adam,
        lambda p: torch.optim.AdamW(p, amsgrad=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.5),
    ],
    ids=["adam", "amsgrad", "momentum", "rmsprop"],
)
def test_state_is_cut_like_the_parameters(make: Make, inplace: bool) -> None:
    model, optimizer = trained(make)
    made, before = chain_plan(), states(model, optimizer)
    small = apply(model, made, inplace=inplace, optimizer=optimizer)
    after = states(small, optimizer)
    assert after.keys() == before.keys()
    for name, state in before.items():
        axes = made.shrunk_axes(name)
        expected = {k: kept_copy(v, axes) if isinstance(v, torch.Tensor) and v.dim() else v for k, v in state.items()}
        assert after[name].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(after[name][key], value, rtol=0, atol=0)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in small.parameters()]
    assert len(optimizer.state) == len(before)
    weights = [p.detach().clone() for p in small.parameters()]
    train(small, optimizer)
    assert all(not torch.equal(p, w) for p, w in zip(small.parameters(), weights, strict=True))


def test_without_inplace_the_dense_model_is_no_longer_trained() -> None:
    model, optimizer = trained(torch.optim.Adam)
    before = [p.detach().clone() for p in model.parameters()]
    small = apply(model, chain_plan(), optimizer=optimizer)
    train(small, optimizer)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_factored_state_is_cut_along_its_own_axes() -> None:
    model, optimizer = trained(torch.optim.Adafactor)
    made, before = chain_plan(), states(model, optimizer)
    small = apply(model, made, optimizer=optimizer)
    name = "c1.0.weight"
    axes = made.shrunk_axes(name)
    row, column = (states(small, optimizer)[name][key] for key in ("row_var", "col_var"))
    assert torch.equal(row, before[name]["row_var"][torch.tensor(axes[0])])
    assert torch.equal(column, before[name]["col_var"][:, torch.tensor(axes[1])])
    train(small, optimizer)


def test_several_parameter_groups_and_foreign_parameters_stay() -> None:
    model: Any = Chain(WIDTHS)
    other = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(
        [{"params": model.c0.parameters(), "lr": 0.1}, {"params": other.parameters(), "lr": 0.2}], lr=1.0
    )
    small = apply(model, chain_plan(), optimizer=optimizer)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.2]
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in small.c0.parameters()]
    assert [id(p) for p in optimizer.param_groups[1]["params"]] == [id(p) for p in other.parameters()]


def test_an_optimizer_without_state_yet() -> None:
    model, optimizer = trained(torch.optim.Adam, steps=0)
    small = apply(model, chain_plan(), optimizer=optimizer)
    assert len(optimizer.state) == 0
    train(small, optimizer)


def test_a_scheduler_goes_on_working() -> None:
    model, optimizer = trained(lambda p: torch.optim.SGD(p, lr=1.0))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    small = apply(model, chain_plan(), inplace=True, optimizer=optimizer)
    train(small, optimizer)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


# Wrong input: one clear error, model and optimiser untouched


@pytest.mark.parametrize("inplace", [False, True])
def test_an_optimizer_of_other_parameters(inplace: bool) -> None:
    model: Any = Chain(WIDTHS)
    with pytest.raises(PlanError, match="the optimizer holds none of the parameters of this Chain"):
        apply(model, chain_plan(), inplace=inplace, optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0))
    assert model.c0[0].weight.shape == (8, 5)


def test_something_that_is_no_optimizer() -> None:
    with pytest.raises(PlanError, match=r"optimizer must be a torch.optim.Optimizer, not list"):
        apply(Chain(WIDTHS), chain_plan(), optimizer=[])  # type: ignore[arg-type]


@pytest.mark.parametrize("inplace", [False, True])
def test_state_that_belongs_to_no_single_parameter(inplace: bool) -> None:
    model: Any = Chain(WIDTHS)
    optimizer = torch.optim.LBFGS(model.parameters())
    x = torch.randn(7, 5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(x).pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(PlanError, match=r"state can't lose channels: '\w+' of 'c0\.0\.weight' .*make a new one"):
        apply(model, chain_plan(), inplace=inplace, optimizer=optimizer)
    assert model.c0[0].weight.shape == (8, 5)
    optimizer.step(closure)


def test_state_of_another_shape() -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.state[model.weight]["statistics"] = torch.zeros(4, 4)
    made = keeping(model, {("weight", 1): [0, 1]})
    with pytest.raises(PlanError, match=r"'statistics' of 'weight' has shape \(4, 4\), the parameter \(3, 4\)"):
        apply(model, made, optimizer=optimizer)
    optimizer.state[model.weight]["statistics"] = [torch.zeros(3, 4)]
    with pytest.raises(PlanError, match="'statistics' of 'weight' is a list of tensors"):
        apply(model, made, optimizer=optimizer)


@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize("given", [False, True], ids=["kept by the model", "and given"])
def test_an_optimizer_that_the_model_keeps_goes_on_with_the_smaller_state(inplace: bool, given: bool) -> None:
    model, optimizer = trained(torch.optim.Adam)
    model.optimizer = optimizer
    before = {name: {k: v.clone() for k, v in optimizer.state[p].items()} for name, p in model.named_parameters()}
    pruning = chain_plan()
    small = apply(model, pruning, inplace=inplace, optimizer=optimizer if given else None)
    assert (small.optimizer is optimizer) == (inplace or given)
    now = states(small, small.optimizer)
    assert now.keys() == before.keys()
    for name, state in now.items():
        for key, value in state.items():
            kept = before[name][key]
            torch.testing.assert_close(value, kept if kept.dim() == 0 else kept_copy(kept, pruning.shrunk_axes(name)))
    train(small, small.optimizer)


def test_a_dense_model_that_keeps_its_optimizer_is_left_as_it_is() -> None:
    model, optimizer = trained(torch.optim.Adam)
    model.optimizer = optimizer
    before = states(model, model.optimizer)
    apply(model, chain_plan())
    torch.testing.assert_close(states(model, model.optimizer), before)
    train(model, model.optimizer)

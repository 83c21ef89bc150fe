"""What distillation compares: exact errors, the right channels of narrower outputs, and what it must not guess."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.errors import CalibrationError, PlanError, SecateurWarning, TraceError
from secateur.recovery import Distillation, DistillReport, distill
from tests.recovery.distill_cases import WorldModel, minibatch, pruned, rollout, same, weights, world_model

EXACT = 1e-12


def compared(small: nn.Module, model: nn.Module, data: Any, **options: Any) -> DistillReport:
    """A report whose ``before`` is the comparison of the two models as they are."""
    return Distillation(steps=1, **options).run(small, model, data)


def relative(dense: list[Tensor], small: list[Tensor]) -> float:
    """By definition: rows of channels, mean squared error over the mean of the channels' variances."""
    a, b = (np.concatenate([t.detach().double().numpy() for t in tensors]) for tensors in (dense, small))
    return float(np.square(a - b).mean() / a.var(axis=0).mean())


class Pair(nn.Module):
    """A convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(2, 3, 1)
        self.read = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.read(self.maps(x).relu().mean((2, 3)))
        return out


def test_errors_of_every_target_are_exact() -> None:
    model, other = Pair(), Pair()
    with torch.no_grad():
        model.maps.weight[1] += 30  # and so the means: that they differ between channels is no variance
    data = [torch.randn(5, 2, 4, 4), torch.randn(9, 2, 4, 4) + 1]
    maps = [[m.maps(x).movedim(1, -1).reshape(-1, 3) for x in data] for m in (model, other)]
    outputs = [[m(x) for x in data] for m in (model, other)]
    before = compared(other, model, data).before
    assert before == pytest.approx(
        {"maps": relative(*maps), "read": relative(*outputs), "return value": relative(*outputs)}, rel=1e-5
    )


def test_what_does_not_vary_is_held_against_its_mean_square_and_zero_against_one() -> None:
    model: Any = nn.ModuleDict({"constant": nn.Linear(2, 2), "zero": nn.Linear(2, 2)})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model["constant"].bias.fill_(3.0)
    small = copy.deepcopy(model)
    with torch.no_grad():
        small["constant"].bias.fill_(4.0)
        small["zero"].bias.fill_(0.5)
    x = torch.randn(6, 2)
    report = compared(small, model, lambda m: [m["constant"](x), m["zero"](x)])
    expected = {"constant": 1 / 9, "zero": 0.25, "return value[0]": 1 / 9, "return value[1]": 0.25}
    assert report.before == pytest.approx(expected, rel=1e-6)


# --- narrower outputs are compared with the channels that are left ------------------------------------------------


class Convolutions(nn.Module):
    """The interface is a map, then flattened: a channel is one of five, then nine neighbours of forty-five."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 5, 2), nn.ReLU())
        self.flat = nn.Sequential(nn.Conv2d(5, 5, 1), nn.Flatten())
        self.head = nn.Linear(45, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.flat(self.stem(x)))
        return out


class Split(nn.Module):
    """The first component makes heads, each of which loses channels of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(-1, (3, 4)))
        self.out = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.heads(x).flatten(1))
        return out


class Recurrent(nn.Module):
    """A component that returns several tensors, and a latent that goes round."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.memory = nn.GRU(8, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.memory(self.embed(x))[0])
        return out


def forward_of(*shape: int) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64) for _ in range(2)]


NARROWER: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str]]] = {
    "maps": (Convolutions, (4, 2, 4, 4), {"stem", "flat", "head", "return value"}),
    "heads": (Split, (5, 4), {"heads", "out", "return value"}),
}


@pytest.mark.parametrize(("build", "shape", "targets"), NARROWER.values(), ids=list(NARROWER))
def test_the_right_channels_are_compared(
    build: Callable[[], nn.Module], shape: tuple[int, ...], targets: set[str]
) -> None:
    """Nothing reads what is removed, so that what is left is the same: other channels would make a large error."""
    model, data = build().double(), forward_of(*shape)
    small, plan = pruned(model, lambda m: m(data[0]), 0.5, exactly=True)
    report = compared(small, model, data, plan=plan)
    assert set(report.before) == targets
    assert max(report.before.values()) < EXACT
    assert report.left_out == {}


def test_a_recurrent_component_with_several_outputs() -> None:
    model, data = Recurrent().double(), forward_of(4, 5, 3)
    small, plan = pruned(model, lambda m: m(data[0]), 0.5, exactly=True)
    assert len(plan.kept["memory.weight_ih_l0", 1]) == 4
    report = compared(small, model, data, plan=plan)
    assert set(report.before) == {"embed", "memory[0]", "memory[1]", "head", "return value"}
    assert max(report.before.values()) < EXACT


def test_a_latent_that_goes_round_in_a_model_without_forward() -> None:
    model = world_model().double()
    observations, actions = torch.randn(7, 6, dtype=torch.float64), torch.randn(3, 7, 2, dtype=torch.float64)
    small, plan = pruned(model, lambda m: rollout(m, observations, actions), 0.5, exactly=True)
    assert plan.kept_shape("encoder.2.weight") == (6, 24)
    report = compared(small, model, [lambda m: rollout(m, observations, actions)], plan=plan)
    assert set(report.before) == {"encoder", "dynamics", "reward", "pi", "return value[0]", "return value[1]"}
    assert max(report.before.values()) < EXACT


def test_an_interface_that_the_run_returns() -> None:
    """The plan is of an entry point that kept the latent inside; the data returns it."""
    model = world_model().double()
    x = torch.randn(7, 6, dtype=torch.float64)
    small, plan = pruned(model, lambda m: m.pi(m.encoder(x)), 0.5, exactly=True)
    report = compared(small, model, lambda m: m.encoder(x), plan=plan)
    assert report.before["return value"] < EXACT
    assert sorted(report.left_out) == ["dynamics", "pi", "reward"]


# --- what is left out, with its reason ----------------------------------------------------------------------------


def test_without_a_plan_a_narrower_interface_is_left_out() -> None:
    model, run = world_model(), minibatch(20, seed=1)
    small, _ = pruned(model, run, 0.5)
    with pytest.warns(SecateurWarning, match=r"encoder: shape \(20, 6\) for \(20, 12\) in the dense model; give plan="):
        distill(small, model, [run], steps=3)
    report = compared(small, model, [run])
    assert set(report.left_out) == {"encoder", "dynamics"}
    assert set(report.before) == {"reward", "pi", "return value[0]", "return value[1]"}


def test_components_that_the_data_does_not_reach_are_named() -> None:
    model = world_model()
    x = torch.randn(5, 6)
    small = WorldModel()

    def act(m: Any) -> Any:
        return m.pi(m.encoder(x))

    with pytest.warns(SecateurWarning, match="dynamics: the calibration data calls none of its modules"):
        distill(small, model, act, steps=1)
    report = compared(small, model, act)
    assert set(report.left_out) == {"dynamics", "reward"}


class Attention(nn.Module):
    """Queries and keys are scaled by surgery, because their product is divided by the root of their width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(6, 24), nn.Linear(24, 72), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        b, n, c = h.shape
        q, k, v = self.qkv(h).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(heads.transpose(1, 2).reshape(b, n, c))
        return out


def test_what_surgery_has_scaled_is_left_out() -> None:
    model, x = Attention(), torch.randn(4, 5, 6)
    small, plan = pruned(model, lambda m: m(x), 0.5)
    assert plan.scale
    report = compared(small, model, [x], plan=plan)
    assert report.left_out == {"qkv": "surgery has scaled it, to make up for a division by the root of its width"}
    assert set(report.before) == {"embed", "out", "return value"}


class Either(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6)

    def forward(self, x: Tensor, *, first: bool) -> Tensor:
        out: Tensor = self.a(x) if first else self.b(x)
        return out


class Sometimes(nn.Module):
    """A component whose output's channels are one thing or another."""

    def __init__(self) -> None:
        super().__init__()
        self.either, self.one, self.other = Either(), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.one(self.either(x, first=True)) + self.other(self.either(x, first=False))
        return out


def test_channels_that_differ_between_calls_are_left_out() -> None:
    model, data = Sometimes().double(), forward_of(5, 4)
    small, plan = pruned(model, lambda m: m(data[0]), 0.5, exactly=True)
    assert plan.kept["either.a.weight", 0].tolist() != plan.kept["either.b.weight", 0].tolist()
    report = compared(small, model, data, plan=plan)
    assert report.left_out == {"either": "its channels are other ones in other calls"}
    assert max(report.before.values()) < EXACT


# --- which modules are targets ------------------------------------------------------------------------------------


class Listed(nn.Module):
    """A list of networks, and an object that is used by another method than ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
        self.policy = Policy()

    def forward(self, x: Tensor) -> list[Tensor]:
        return [*(value(x) for value in self.values), self.policy.act(x)]


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 1)

    def act(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x)).tanh()
        return out


def test_the_outermost_modules_that_are_called_are_the_targets() -> None:
    model = Listed()
    report = compared(copy.deepcopy(model), model, [torch.randn(4, 3)])
    returned = {f"return value[{i}]" for i in range(3)}
    assert set(report.before) == {"values.0", "values.1", "policy.body", "policy.head"} | returned


def test_components_of_the_users_own() -> None:
    model = Listed()
    components = {"readout": ["policy.head", "values"], "hidden": "policy.body.0"}
    report = compared(copy.deepcopy(model), model, [torch.randn(4, 3)], components=components)
    named = {name for name in report.before if not name.startswith("return")}
    assert named == {"values.0", "values.1", "policy.head", "policy.body.0"}
    with pytest.raises(TraceError, match="the model has no module or parameter 'polcy'"):
        compared(copy.deepcopy(model), model, [torch.randn(4, 3)], components={"a": "polcy"})


def test_writing_into_an_output_does_not_change_what_was_made() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    small, x = copy.deepcopy(model), torch.randn(6, 3)
    with torch.no_grad():
        small[0].bias -= 10  # nothing is left of it after the ReLU
        expected = 100 / float(model[0](x).double().var(dim=0, correction=0).mean())
    assert compared(small, model, [x]).before["0"] == pytest.approx(expected, rel=1e-5)


# --- random numbers and state -------------------------------------------------------------------------------------


def test_both_models_see_the_same_random_numbers() -> None:
    model = world_model()

    def noisy(m: Any) -> Any:
        return rollout(m, torch.randn(6, 6) * float(np.random.rand()), torch.randn(3, 6, 2))

    report = compared(copy.deepcopy(model), model, [noisy, noisy])
    assert max(report.before.values()) == 0


class Remembering(nn.Module):
    """The latent stays in the model between calls."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(3 + 4, 4)
        self.latent = torch.zeros(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.latent = self.step(torch.cat([x, self.latent.expand(len(x), 4)], 1)).tanh()
        return self.latent


def test_every_run_begins_with_the_models_own_state() -> None:
    model, small = Remembering(), Remembering()
    data = [lambda m: [m(x) for x in torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(0))]]
    initial = model.latent
    report = Distillation(steps=30, learning_rate=0.02).run(small, model, data)
    assert model.latent is initial
    assert torch.equal(small.latent, torch.zeros(1, 4))
    assert report.error_after < 0.3 * report.error_before


# --- two models that can't be compared ----------------------------------------------------------------------------


def calls_more(small: nn.Module) -> Callable[[Any], Any]:
    return lambda m: [m.pi(x) for x in torch.ones(2 if m is small else 1, 2, 12)].pop()


def calls_less(small: nn.Module) -> Callable[[Any], Any]:
    return lambda m: [m.pi(x) for x in torch.ones(1 if m is small else 2, 2, 12)].pop()


def calls_another(small: nn.Module) -> Callable[[Any], Any]:
    return lambda m: (m.pi, m.encoder)[m is small](torch.ones(2, (12, 6)[m is small]))


def other_rows(small: nn.Module) -> Callable[[Any], Any]:
    return lambda m: m.pi(torch.ones(3 if m is small else 2, 12))


def returns_more(small: nn.Module) -> Callable[[Any], Any]:
    return lambda m: [m.pi(torch.ones(2, 12))] * (2 if m is small else 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (calls_more, r"the dense model makes 'return value' where the smaller makes 'pi'"),
        (calls_less, r"the dense model makes 'pi' where the smaller makes 'return value'"),
        (calls_another, r"the dense model makes 'pi' where the smaller makes 'encoder'"),
        (other_rows, r"'pi' has shape \(3, 2\) in the smaller model, where .* make \(2, 2\)"),
        (returns_more, r"the dense model makes 'return value' where the smaller makes 'return value\[0\]'"),
    ],
)
def test_models_that_make_different_calls(make: Callable[[nn.Module], Any], message: str) -> None:
    model, small = world_model(), world_model()
    with pytest.raises(CalibrationError, match=message):
        compared(small, model, [make(small)])


def test_a_call_more_at_the_end() -> None:
    model, small = world_model(), world_model()
    with pytest.raises(CalibrationError, match="the smaller model makes 'pi' more often than the other"):
        compared(small, model, lambda m: [m.pi(torch.ones(2, 12)) for _ in range(2 if m is small else 1)] and None)


def test_other_rows_with_a_plan() -> None:
    model, run = world_model(), minibatch(4, seed=0)
    small, plan = pruned(model, run, 0.5)
    x = torch.ones(5, 6)
    with pytest.raises(CalibrationError, match=r"'encoder' has shape \(4, 6\) in the smaller model"):
        compared(small, model, lambda m: m.encoder(x[1:] if m is small else x), plan=plan)


def test_a_dense_model_that_does_not_repeat_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.recovery.lesson.HELD_BYTES", 0)
    model, small, rows = world_model(), world_model(), iter([2, 2, 2, 2, 3, 3, 3])
    with pytest.raises(CalibrationError, match="two runs of the dense model on the same data differ"):
        compared(small, model, lambda m: m.pi(torch.ones(2 if m is small else next(rows), 12)))


def test_values_that_are_not_finite() -> None:
    model: Any = world_model()
    small = copy.deepcopy(model)
    with torch.no_grad():
        model.reward[0].weight[0, 0] = float("nan")
    with pytest.raises(CalibrationError, match=r"the dense model's 'reward' isn't finite"):
        compared(small, model, [minibatch(3, seed=0)])


def test_nothing_to_compare() -> None:
    model = world_model()
    with pytest.raises(
        CalibrationError, match=r"nothing that can be compared \(encoder: the calibration data calls none"
    ):
        compared(copy.deepcopy(model), model, lambda m: None)


def test_a_minibatch_with_nothing_to_compare() -> None:
    class Headed(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(4, width), nn.Linear(width, 2)

    def encoded(model: Any) -> None:
        model.encoder(torch.ones(3, 4))

    dense, small = Headed(6), Headed(3)
    before = weights(small)
    runs = [lambda model: model.head(model.encoder(torch.eye(4))), encoded]
    with pytest.raises(CalibrationError, match="nothing of minibatch 1, counted from 0, can be compared"):
        Distillation(steps=2).run(small, dense, runs)
    assert same(weights(small), before)


def test_plans_and_models_that_do_not_belong_together() -> None:
    model, run = world_model(), minibatch(4, seed=0)
    small, plan = pruned(model, run, 0.5)
    with pytest.raises(PlanError, match=r"the smaller model wasn't made with this plan: encoder\.0\.weight should be"):
        compared(copy.deepcopy(model), model, [run], plan=plan)
    with pytest.raises(PlanError, match="the plan was made for another model than this WorldModel"):
        compared(small, world_model(width=20), [run], plan=plan)
    for known in (plan, None):
        with pytest.raises(PlanError, match="distill needs the dense model beside the smaller one"):
            compared(model, model, [run], plan=known)
    assert isinstance(small, WorldModel)
    assert secateur.distill is distill

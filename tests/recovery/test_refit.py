"""Refit against exact answers: redundant channels, explicit least squares, loops, random data, and every error."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from secateur.errors import CalibrationError, PlanError, SecateurWarning
from secateur.plan import PruningPlan
from secateur.recovery import refit, refit_consumers
from tests.recovery.refit_cases import hand_plan, make_redundant, sliced

DOUBLE = torch.float64


# --- redundant channels are recovered exactly ---------------------------------------------------------------------


@dataclass
class Case:
    """A producer and a consumer; ``kept`` indices of its consumer axis, ``period`` channels per conv group."""

    producer: Callable[[], Any]
    consumer: Callable[[], Any]
    shape: tuple[int, ...]
    kept: Sequence[int]
    axis: int = 1
    period: int | None = None

    def build(self) -> tuple[Any, Any, PruningPlan]:
        model: Any = nn.Sequential(self.producer(), self.consumer()).to(DOUBLE)
        width = model[0].weight.shape[0]
        period = self.period or width
        channels = [c for c in range(width) if (c % period if self.axis == 1 else c) in self.kept]
        by_group = {g: [c for c in channels if c // period == g] for g in range(width // period)}
        pool = {c: by_group[c // period] for c in range(width) if c not in channels}
        make_redundant(model[0], channels, pool=pool)
        kept = {("0.weight", 0): channels, ("1.weight", self.axis): list(self.kept)}
        if model[0].bias is not None:
            kept["0.bias", 0] = channels
        plan = hand_plan(model, kept, [("1.weight", self.axis)])
        return model, sliced(model, plan), plan


EXACT = {
    "linear": Case(lambda: nn.Linear(5, 6), lambda: nn.Linear(6, 3), (20, 5), [0, 2, 5]),
    "linear, no bias": Case(lambda: nn.Linear(5, 6), lambda: nn.Linear(6, 3, bias=False), (20, 4, 5), [0, 2, 5]),
    "conv1d": Case(lambda: nn.Conv1d(2, 6, 3), lambda: nn.Conv1d(6, 4, 3, stride=2, dilation=2), (9, 2, 15), [1, 2, 3]),
    "conv2d": Case(
        lambda: nn.Conv2d(2, 6, 3, bias=False),
        lambda: nn.Conv2d(6, 4, (3, 2), stride=(1, 2), padding=(0, 1)),
        (9, 2, 9, 9),
        [1, 3],
    ),
    "conv2d, grouped": Case(
        lambda: nn.Conv2d(3, 8, 3),
        lambda: nn.Conv2d(8, 4, 3, padding=1, groups=2),
        (9, 3, 9, 9),
        [1, 3],
        period=4,
    ),
    "conv3d": Case(lambda: nn.Conv3d(2, 5, 2), lambda: nn.Conv3d(5, 3, 2, stride=2), (12, 2, 6, 6, 6), [0, 4]),
    "transposed 1d": Case(
        lambda: nn.Conv1d(2, 5, 3),
        lambda: nn.ConvTranspose1d(5, 3, 4, stride=3, padding=1, output_padding=1),
        (20, 2, 12),
        [0, 4],
        axis=0,
    ),
    "transposed 2d": Case(
        lambda: nn.Conv2d(2, 5, 1),
        lambda: nn.ConvTranspose2d(5, 3, (3, 2), stride=(2, 1), dilation=(1, 2), output_padding=(1, 0)),
        (20, 2, 5, 6),
        [0, 4],
        axis=0,
    ),
    "transposed 2d, grouped": Case(
        lambda: nn.Conv2d(3, 8, 1),
        lambda: nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2, bias=False),
        (20, 3, 5, 6),
        [0, 3, 4, 6],
        axis=0,
        period=4,
    ),
    "transposed 3d": Case(
        lambda: nn.Conv3d(2, 4, 1), lambda: nn.ConvTranspose3d(4, 3, 2, stride=2), (20, 2, 3, 2, 3), [0, 3], axis=0
    ),
}


@pytest.mark.parametrize("case", EXACT.values(), ids=list(EXACT))
def test_redundant_channels_are_recovered(case: Case) -> None:
    model, small, plan = case.build()
    data = [torch.randn(case.shape, dtype=DOUBLE) for _ in range(3)]
    x = torch.randn(case.shape, dtype=DOUBLE)
    assert (small(x) - model(x)).abs().max() > 1e-3
    report = refit_consumers(small, model, plan, data, ridge=1e-13)
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-8)
    (consumer,) = report.refitted
    assert consumer.error_before > 1e-3
    assert consumer.error_after < 1e-10


def test_outputs_pruned_together_with_inputs() -> None:
    """A whole conv group leaves with its outputs, and channels of the other: targets are the kept outputs only."""
    model: Any = nn.Sequential(nn.Conv1d(3, 8, 1), nn.ConvTranspose1d(8, 6, 3, groups=2), nn.Conv1d(6, 2, 1)).to(DOUBLE)
    make_redundant(model[0], [5, 7], pool={4: [5, 7], 6: [5, 7]})
    outputs = [3, 5]
    plan = hand_plan(
        model,
        {
            ("0.weight", 0): [5, 7],
            ("0.bias", 0): [5, 7],
            ("1.weight", 0): [5, 7],
            ("1.weight", 1): [0, 2],
            ("1.bias", 0): outputs,
            ("2.weight", 1): outputs,
        },
        [("1.weight", 0)],
        {"1.groups": 1},
    )
    small: Any = sliced(model, plan)
    x = torch.randn(30, 3, 9, dtype=DOUBLE)
    refit(small, model, plan, [x], ridge=1e-13)
    torch.testing.assert_close(small[:2](x), model[:2](x)[:, outputs], rtol=0, atol=1e-8)


# --- any data: the ridge solution, by explicit least squares ------------------------------------------------------


def ridge_oracle(module: Any, old: Tensor, inputs: Tensor, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Explicit rows: a module's output is linear in its weight, so each weight element is a column of unit response."""
    units = torch.eye(old.numel(), dtype=DOUBLE).reshape(-1, *old.shape)
    with torch.no_grad():
        module.bias.zero_()
        responses, owners = [], []
        for unit in units:
            module.weight.copy_(unit)
            responses.append(channels_last(module(inputs)))
            owners.append(channels_last(module(torch.ones_like(inputs))).any(0))
    design, wanted, owned = torch.stack(responses, dim=-1), channels_last(targets), torch.stack(owners)
    weight, bias = old.flatten().clone(), torch.empty(wanted.shape[1], dtype=DOUBLE)
    for output in range(wanted.shape[1]):
        own = owned[:, output]
        columns = design[:, output, own]
        centred = columns - columns.mean(0)
        scale = (ridge * centred.square().sum(0).mean()).sqrt()
        ones = torch.ones(len(columns), 1, dtype=DOUBLE)
        system = torch.cat([torch.cat([columns, ones], 1), scale * torch.eye(int(own.sum()) + 1, dtype=DOUBLE)[:-1]])
        rhs = torch.cat([wanted[:, output], scale * old.flatten()[own]])
        solution = torch.linalg.lstsq(system, rhs[:, None], driver="gelsd").solution[:, 0]
        weight[own], bias[output] = solution[:-1], solution[-1]
    return weight.reshape(old.shape), bias


def channels_last(values: Tensor) -> Tensor:
    return values.movedim(1, -1).flatten(0, -2) if values.ndim > 2 else values


ORACLE = {
    "linear": Case(lambda: nn.Linear(5, 6), lambda: nn.Linear(6, 3), (40, 5), [0, 2, 5]),
    "conv2d, grouped": Case(
        lambda: nn.Conv2d(3, 8, 1),
        lambda: nn.Conv2d(8, 4, 2, padding=1, stride=2, groups=2),
        (6, 3, 6, 5),
        [1, 3],
        period=4,
    ),
    "transposed 1d": Case(
        lambda: nn.Conv1d(3, 5, 1), lambda: nn.ConvTranspose1d(5, 3, 3, stride=2), (6, 3, 9), [0, 4], axis=0
    ),
}


@pytest.mark.parametrize("ridge", [1e-2, 1.0])
@pytest.mark.parametrize("case", ORACLE.values(), ids=list(ORACLE))
def test_equals_explicit_ridge_regression(case: Case, ridge: float) -> None:
    model, _, plan = case.build()
    for parameter in model.parameters():
        nn.init.normal_(parameter)  # nothing is redundant
    model.insert(1, nn.ReLU())
    plan = hand_plan(
        model,
        {(name.replace("1.", "2."), axis): list(kept) for (name, axis), kept in plan.kept.items()},
        [("2.weight", case.axis)],
    )
    small: Any = sliced(model, plan)
    data = [torch.randn(case.shape, dtype=DOUBLE) for _ in range(2)]
    x = torch.cat(data)
    other: Any = sliced(model, plan)
    expected = ridge_oracle(other[2], small[2].weight.detach(), small[:2](x), model(x), ridge)
    before = (small(x) - model(x)).square().sum().detach()
    (consumer,) = refit_consumers(small, model, plan, data, ridge=ridge).refitted
    torch.testing.assert_close(small[2].weight.detach(), expected[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(small[2].bias.detach(), expected[1], rtol=0, atol=1e-9)
    wanted, after = channels_last(model(x)).detach(), (small(x) - model(x)).square().sum().detach()
    variance = (wanted - wanted.mean(0)).square().sum()
    assert consumer.error_before == pytest.approx(float(before / variance))
    assert consumer.error_after == pytest.approx(float(after / variance))
    assert (consumer.rows, consumer.error_after < consumer.error_before) == (len(wanted), True)


def test_large_offsets_do_not_matter() -> None:
    """The ridge is measured on centred inputs: a mean of 1000 leaves the fit what it is for a mean of zero."""
    model, small, plan = EXACT["linear"].build()
    model[0].bias.data[:] = 1000
    small = sliced(model, plan)
    data = [torch.randn(200, 5, dtype=DOUBLE)]
    refit(small, model, plan, data, ridge=1e-6)
    assert (small(data[0]) - model(data[0])).abs().max() < 1e-2


# --- sequences of consumers ---------------------------------------------------------------------------------------


def mlp(widths: Sequence[int], keep: int, *, dtype: torch.dtype = DOUBLE) -> tuple[Any, Any, PruningPlan]:
    """Linear layers with ReLU between them, at module indices 0, 2, 4 ..., each hidden width cut to ``keep``."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).to(dtype)
    kept: dict[tuple[str, int], list[int]] = {}
    for index in range(0, len(model) - 2, 2):
        channels = list(range(keep))
        kept |= {
            (f"{index}.weight", 0): channels,
            (f"{index}.bias", 0): channels,
            (f"{index + 2}.weight", 1): channels,
        }
    plan = hand_plan(model, kept, [(f"{i}.weight", 1) for i in range(2, len(model), 2)])
    return model, sliced(model, plan), plan


def test_later_consumers_are_fitted_to_what_refitted_ones_give_them() -> None:
    model, small, plan = mlp([6, 12, 10, 4], 5)
    x = torch.randn(200, 6, dtype=DOUBLE)
    steps: list[tuple[str, int, int]] = []
    report = refit_consumers(small, model, plan, [x], ridge=1e-6, on_step=lambda *step: steps.append(step))
    hidden = small[:4](x).detach()  # with the second layer already refitted
    target = model(x).detach()
    design = torch.cat([hidden, torch.ones(200, 1, dtype=DOUBLE)], 1)
    best = torch.linalg.lstsq(design, target).solution
    torch.testing.assert_close(small(x), design @ best, rtol=0, atol=1e-5)
    assert report.passes == 2
    assert steps == [("2.weight", 1, 2), ("4.weight", 2, 2)]
    assert "2 consumers refitted in 2 passes, 0 skipped" in str(report)


def test_few_passes_fit_to_the_dense_models_channels() -> None:
    """With one pass for two consumers, the second sees the first's dense outputs, as far as they stay."""
    model, small, plan = mlp([6, 12, 10, 4], 5)
    x = torch.randn(200, 6, dtype=DOUBLE)
    report = refit_consumers(small, model, plan, [x], ridge=1e-6, passes=1)
    assert (report.passes, len(report.refitted)) == (1, 2)
    kept = torch.tensor(plan.kept["4.weight", 1])
    design = torch.cat([model[:4](x).detach()[:, kept], torch.ones(200, 1, dtype=DOUBLE)], 1)
    best = torch.linalg.lstsq(design, model(x).detach()).solution
    torch.testing.assert_close(small[4].weight.detach(), best[:-1].T, rtol=0, atol=1e-4)


def test_more_passes_fit_better_and_a_deep_chain_needs_few() -> None:
    model, _, plan = mlp([8, *[24] * 8, 4], 16)
    x = torch.randn(400, 8, dtype=DOUBLE)
    errors = {}
    for passes in (1, 4, 16):
        small = sliced(model, plan)
        report = refit_consumers(small, model, plan, [x], passes=passes)
        assert report.passes == min(passes, 8)
        errors[passes] = float((small(x) - model(x)).square().mean().detach())
    assert errors[16] < errors[4] < errors[1]


@pytest.mark.parametrize("passes", [0, -1])
def test_too_few_passes(passes: int) -> None:
    model, small, plan = mlp([6, 12, 10, 4], 5)
    with pytest.raises(CalibrationError, match="passes must be at least 1"):
        refit_consumers(small, model, plan, [torch.randn(20, 6, dtype=DOUBLE)], passes=passes)


def test_branches_share_a_pass() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(x).relu()
            return self.a(x), self.b(x)

    model = Heads().to(DOUBLE)
    keep = [0, 1, 2]
    axes = [("stem.weight", 0), ("stem.bias", 0), ("a.weight", 1), ("b.weight", 1)]
    plan = hand_plan(model, dict.fromkeys(axes, keep), axes[2:])
    report = refit_consumers(sliced(model, plan), model, plan, [torch.randn(50, 4, dtype=DOUBLE)])
    assert (report.passes, len(report.refitted)) == (1, 2)


class Rollout(nn.Module):
    """A latent model without ``forward``: encode, then step several times with actions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.dynamics, self.reward = nn.Linear(3, 6), nn.Linear(6 + 2, 6), nn.Linear(6, 1)

    def rollout(self, observation: Tensor, actions: Tensor) -> Tensor:
        latent, rewards = self.encoder(observation), []
        for action in actions:
            latent = self.dynamics(torch.cat([latent, action], -1))
            rewards.append(self.reward(latent))
        return torch.stack(rewards)


def rollout_case() -> tuple[Rollout, Any, PruningPlan]:
    model, kept = Rollout().to(DOUBLE), [0, 1, 4]
    pool = {2: kept, 3: kept, 5: kept}
    mixes = torch.randn(3, 3, dtype=DOUBLE)
    for layer in (model.encoder, model.dynamics):  # the redundancy survives a step
        for mix, channel in zip(mixes, pool, strict=True):
            layer.weight.data[channel] = mix @ layer.weight.data[kept]
            layer.bias.data[channel] = mix @ layer.bias.data[kept]
    axes = [(f"{m}.{p}", 0) for m in ("encoder", "dynamics") for p in ("weight", "bias")]
    plan = hand_plan(
        model,
        {**dict.fromkeys(axes, kept), ("dynamics.weight", 1): [*kept, 6, 7], ("reward.weight", 1): kept},
        [("dynamics.weight", 1), ("reward.weight", 1)],
    )
    return model, sliced(model, plan), plan


def test_a_function_that_loops_over_a_recurrent_module() -> None:
    model, small, plan = rollout_case()
    generator = torch.Generator().manual_seed(0)
    data = [
        (torch.randn(8, 3, dtype=DOUBLE, generator=generator), torch.randn(5, 8, 2, dtype=DOUBLE, generator=generator))
        for _ in range(6)
    ]

    def calibration(m: Any) -> None:
        for observation, actions in data:
            m.rollout(observation, actions)

    report = refit_consumers(small, model, plan, calibration, ridge=1e-13)
    assert [c.rows for c in report.refitted] == [6 * 5 * 8] * 2
    torch.testing.assert_close(small.rollout(*data[0]), model.rollout(*data[0]), rtol=0, atol=1e-8)


def live_bytes() -> int:
    return sum(o.nbytes for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter) and o.layout == torch.strided)


def test_memory_does_not_grow_with_rows() -> None:
    model, small, plan = mlp([64, 64, 64], 32)
    live: list[int] = []

    def calibration(m: nn.Module) -> None:
        for step in range(40):
            m(torch.randn(256, 64, dtype=DOUBLE))
            if step % 10 == 9 and m is small:
                live.append(live_bytes())

    refit(small, model, plan, calibration)
    assert len(live) == 4
    assert max(live) <= live[0]


# --- random data, modes and what stays untouched ------------------------------------------------------------------


def noisy(m: nn.Module) -> None:
    for _ in range(4):
        width = int(np.random.randint(20, 30))
        m(torch.randn(width, 6, dtype=DOUBLE) + float(np.random.rand()))


def test_random_numbers_are_those_of_each_run_alone() -> None:
    results = []
    for replayed in (False, True):
        torch.manual_seed(7)
        np.random.seed(7)
        model, small, plan = mlp([6, 12, 4], 5)
        recording = Recording()
        if replayed:
            state = torch.get_rng_state(), np.random.get_state()
            noisy(recording)
            torch.set_rng_state(state[0])
            np.random.set_state(state[1])
        report = refit_consumers(small, model, plan, recording.inputs if replayed else noisy)
        results.append((small[2].weight.detach(), report.refitted[0].rows, torch.rand(1), np.random.rand()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]


class Recording(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.inputs.append(x)
        return x


def test_a_loader_that_shuffles_with_its_own_generator() -> None:
    model, small, plan = EXACT["linear"].build()
    dataset = TensorDataset(torch.randn(64, 5, dtype=DOUBLE))
    loader = DataLoader(dataset, 8, shuffle=True, generator=torch.Generator().manual_seed(0))
    refit(small, model, plan, loader, ridge=1e-13)
    torch.testing.assert_close(small(dataset.tensors[0]), model(dataset.tensors[0]), rtol=0, atol=1e-8)


def test_dense_model_modes_flags_and_dtypes_stay() -> None:
    model, _, without_norm = mlp([6, 12, 4], 5, dtype=torch.float32)
    model.append(nn.BatchNorm1d(4))
    plan = hand_plan(model, {k: list(v) for k, v in without_norm.kept.items()}, [("2.weight", 1)])
    small: Any = sliced(model, plan)
    small[2].weight.requires_grad_(False)
    small[0].eval()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    same = small[0].weight, small[2].weight
    returned = refit(small, model, plan, [torch.randn(50, 6)])
    assert id(returned) == id(small)
    assert (small[0].weight, small[2].weight) == same
    assert (small[2].weight.dtype, small[2].weight.requires_grad, small[2].bias.requires_grad) == (
        torch.float32,
        False,
        True,
    )
    assert [m.training for m in small] == [False, True, True, True]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks for both in (model, small) for m in both.modules())
    assert all(p.grad is None for both in (model, small) for p in both.parameters())


def test_in_place_activations_after_the_consumer() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(self.b(self.a(x)).relu_())
            return out

    model = InPlace().to(DOUBLE)
    make_redundant(model.a, [0, 1, 2], pool={3: [0, 1], 4: [0, 2], 5: [1, 2]})
    axes = [("a.weight", 0), ("a.bias", 0), ("b.weight", 1)]
    plan = hand_plan(model, {axis: [0, 1, 2] for axis in axes}, [("b.weight", 1)])
    small, x = sliced(model, plan), torch.randn(40, 5, dtype=DOUBLE)
    refit(small, model, plan, [x], ridge=1e-13)
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-8)


def test_channels_that_are_always_zero_keep_their_weights() -> None:
    model, small, plan = mlp([6, 12, 4], 5)
    for both in (model, small):
        both[0].weight.data.zero_(), both[0].bias.data.fill_(-1)
    before = small[2].weight.detach().clone()
    refit(small, model, plan, [torch.randn(50, 6, dtype=DOUBLE)])
    assert torch.equal(small[2].weight, before)
    torch.testing.assert_close(small[2].bias, model[2].bias)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_channels_that_never_vary_keep_their_weights(dtype: torch.dtype) -> None:
    """A LayerNorm over one kept channel makes a constant: centred, its Gram matrix is rounding, of either sign."""
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 9), nn.Tanh(), nn.Linear(9, 2))
    model = model.to(dtype)
    model[1].bias.data.uniform_(0.5, 1)
    cut = ["0.weight", "0.bias", "1.weight", "1.bias"]
    plan = hand_plan(model, {**{(name, 0): [3] for name in cut}, ("3.weight", 1): [3]}, [("3.weight", 1)])
    small: Any = sliced(model, plan)
    data = torch.randn(4000, 6, dtype=dtype)
    small[1].normalized_shape = (1,)
    before = small[3].weight.detach().clone()
    refit(small, model, plan, [data], steps=0)
    assert torch.equal(small[3].weight, before)
    torch.testing.assert_close(small[:4](data).mean(0), model[:4](data).mean(0))


def test_consumers_that_cannot_be_refitted_are_named() -> None:
    model, _, plan = mlp([4, 6, 6, 3], 4)

    class Functional(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.linear(input, self.weight, self.bias)

    model[2] = Functional(6, 6).to(DOUBLE)
    small: Any = sliced(model, plan)
    before = small[2].weight.detach().clone()
    with pytest.warns(SecateurWarning, match=r"as surgery left them: 2\.weight\[1\]: not the weight of a Linear"):
        refit(small, model, plan, [torch.randn(40, 4, dtype=DOUBLE)])
    assert torch.equal(small[2].weight, before)


# --- wrong input --------------------------------------------------------------------------------------------------


def refit_mlp(calibration: Any, *, ridge: float = 1e-4) -> None:
    model, small, plan = mlp([6, 12, 10, 4], 5)
    before = [threading.active_count(), *(t.clone() for t in model.state_dict().values())]
    try:
        refit(small, model, plan, calibration(model, small), ridge=ridge)
    finally:
        assert threading.active_count() == before[0]
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before[1:], strict=True))
        assert not any(m._forward_hooks for both in (model, small) for m in both.modules())
        assert all(m.training for both in (model, small) for m in both.modules())


def x(rows: int = 50) -> Tensor:
    return torch.randn(rows, 6, dtype=DOUBLE)


def more_calls(model: nn.Module, small: nn.Module) -> Callable[[nn.Module], Any]:
    return lambda m: [m(x()) for _ in range(3 if m is small else 2)]


def fewer_calls(model: nn.Module, small: nn.Module) -> Callable[[nn.Module], Any]:
    return lambda m: [m(x()) for _ in range(1 if m is small else 2)]


def other_rows(model: nn.Module, small: nn.Module) -> Callable[[nn.Module], None]:
    return lambda m: m(x(20 if m is small else 50))


def fails_on_small(model: nn.Module, small: nn.Module) -> Callable[[nn.Module], None]:
    def run(m: nn.Module) -> None:
        m(x())
        if m is small:
            raise ValueError("no such room")
        m(x())

    return run


def fails_on_dense_later(model: nn.Module, small: nn.Module) -> Callable[[nn.Module], None]:
    calls = []

    def run(m: nn.Module) -> None:
        m(x())
        calls.append(m)
        if m is model and len(calls) > 1:
            raise ValueError("no such room")
        m(x())

    return run


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (more_calls, r"the smaller model calls '2' more often than the other; calibration must make the same calls"),
        (fewer_calls, r"the dense model calls '2' more often than the other; calibration must make the same calls"),
        (other_rows, r"a call of '2' has 50 rows in the dense model and 20 in the smaller; calibration must"),
        (fails_on_small, r"failed on the smaller model: ValueError: no such room"),
        (fails_on_dense_later, r"failed on the dense model: ValueError: no such room"),
        (lambda *_: [], r"the calibration data is empty"),
        (lambda *_: lambda m: None, r"never reaches '2', '4', which consumes pruned channels"),
        (lambda *_: [torch.full((1, 6), float("nan"), dtype=DOUBLE)], r"'2' reads or makes values that aren't finite"),
        (lambda *_: torch.ones(1, 6), r"single Tensor"),
    ],
)
def test_wrong_calibration(calibration: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        refit_mlp(calibration)


def test_a_function_that_runs_the_dense_model_when_given_the_smaller() -> None:
    with pytest.raises(CalibrationError, match="ran the dense model while it was given the other one"):
        refit_mlp(lambda model, small: lambda m: model(x()))


def test_an_interrupt_passes_through() -> None:
    def calibration(model: nn.Module, small: nn.Module) -> Callable[[nn.Module], None]:
        def run(m: nn.Module) -> None:
            m(x())
            if m is small:
                raise KeyboardInterrupt

        return run

    with pytest.raises(KeyboardInterrupt):
        refit_mlp(calibration)


def test_calls_in_another_order() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)

    model = Two()
    axes = [("stem.weight", 0), ("stem.bias", 0), ("a.weight", 1), ("b.weight", 1)]
    plan = hand_plan(model, {axis: [0, 1] for axis in axes}, axes[2:])
    small: Any = sliced(model, plan)

    def run(m: Any) -> None:
        hidden = m.stem(torch.ones(3, 4))
        for head in (m.b, m.a) if m is small else (m.a, m.b):
            head(hidden)

    with pytest.raises(CalibrationError, match="the dense model calls 'a' where the smaller calls 'b'; calibration"):
        refit(small, model, plan, run)


def test_few_rows_warn_and_the_ridge_carries() -> None:
    with pytest.warns(SecateurWarning, match=r"fewer calibration rows.*2\.weight \(3 rows, 5 inputs\)"):
        refit_mlp(lambda *_: [x(3)])


def test_without_a_ridge_dependent_inputs_are_an_error() -> None:
    with pytest.raises(CalibrationError, match="inputs of '2' are linearly dependent on the calibration data"):
        refit_mlp(lambda *_: [x(3)], ridge=0.0)


@pytest.mark.parametrize("ridge", [-1.0, float("nan")])
def test_a_negative_ridge(ridge: float) -> None:
    with pytest.raises(CalibrationError, match="ridge must be at least 0"):
        refit_mlp(lambda *_: [x()], ridge=ridge)


def test_models_that_are_not_the_plans() -> None:
    model, small, plan = mlp([6, 12, 10, 4], 5)
    with pytest.raises(PlanError, match="refit needs the dense model beside the smaller one"):
        refit(model, model, plan, [x()])
    with pytest.raises(PlanError, match="the plan was made for another model"):
        refit(small, small[:3], plan, [x()])
    with pytest.raises(PlanError, match=r"wasn't made with this plan: 0\.weight should be \(5, 6\), but is \(12, 6\)"):
        refit(mlp([6, 12, 10, 4], 5)[0], model, plan, [x()])

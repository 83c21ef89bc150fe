"""Distillation as training: one exact step, an optimum that is known, what must not change, time, and every error."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.errors import CalibrationError, PlanError, SecateurWarning
from secateur.experiments.autoencoder import train
from secateur.experiments.images import load_digits
from secateur.graph.randomness import RandomState
from secateur.plan import PruningPlan
from secateur.recovery import Distillation, distill, refit
from secateur.recovery.training import LARGEST_GRADIENT, fractions_of, fractions_until, shuffled_passes
from tests.recovery.distill_cases import Run, minibatch, pruned, rollout, same, weights, world_model

RUNS: list[Run] = [minibatch(32, seed) for seed in range(4)]


def refitted() -> tuple[nn.Module, nn.Module, PruningPlan]:
    """A world model of which every group has lost half, after refit; the dense one; the plan."""
    small, model, plan = refitted_once()
    return copy.deepcopy(small), copy.deepcopy(model), plan


@cache
def refitted_once() -> tuple[nn.Module, nn.Module, PruningPlan]:
    model = world_model()
    small, plan = pruned(model, RUNS[0], 0.5)
    refit(small, model, plan, RUNS, steps=0)
    return small, model, plan


# --- the training itself ------------------------------------------------------------------------------------------


def test_gradients_of_the_given_model_are_put_back() -> None:
    small, model, plan = refitted()
    given = [torch.randn_like(weight) for weight in small.parameters()]
    for weight, gradient in zip(small.parameters(), given, strict=True):
        weight.grad = gradient
    distill(small, model, RUNS, steps=2, plan=plan, learning_rate=1e-6)
    assert all(weight.grad is gradient for weight, gradient in zip(small.parameters(), given, strict=True))


def test_a_step_goes_down_the_gradient_of_the_stated_loss() -> None:
    """The first step of Adam moves every weight by the learning rate times g / (|g| + epsilon), g being clipped."""
    model, small = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2))
    data = [torch.randn(8, 3), torch.randn(4, 3)]
    dense = torch.cat([model(x) for x in data]).detach()
    before = [weight.detach().clone() for weight in small.parameters()]
    chosen = next(shuffled_passes(2, seed=5))
    # Both targets, the layer and the return value, are the same tensor.
    loss = (small(data[chosen]) - model(data[chosen]).detach()).square().mean() / dense.var(dim=0, correction=0).mean()
    gradients = torch.autograd.grad(loss, list(small.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > LARGEST_GRADIENT
    losses: list[float] = []
    distill(small, model, data, steps=1, seed=5, on_progress=lambda _, value: losses.append(value))
    for weight, given, gradient in zip(small.parameters(), before, gradients, strict=True):
        clipped = gradient / norm
        expected = given - 1e-3 * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-6)
    assert losses == pytest.approx([float(loss.detach())], rel=1e-5)


def test_a_linear_student_becomes_its_teacher() -> None:
    """The loss is convex, with one optimum: the dense weights."""
    model, small = (nn.Sequential(nn.Linear(5, 3)).double() for _ in range(2))
    data = [torch.randn(60, 5, dtype=torch.float64)]
    report = Distillation(steps=200, learning_rate=0.05, batch=20).run(small, model, data)
    assert report.error_before > 0.1
    assert report.error_after < 1e-6
    for found, expected in zip(small.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert report.minibatches == 3


def test_the_seed_decides_on_everything() -> None:
    small, model, plan = refitted()

    def trained(seed: int) -> dict[str, Tensor]:
        copied = copy.deepcopy(small)
        torch.manual_seed(int(time.time()))  # the global state must not matter
        noisy: list[Run] = [lambda m: rollout(m, torch.randn(8, 6), torch.randn(2, 8, 2)) for _ in range(3)]
        distill(copied, model, noisy, steps=5, plan=plan, learning_rate=1e-4, seed=seed)
        return weights(copied)

    assert same(trained(1), trained(1))
    assert not same(trained(1), trained(2))


def test_targets_that_do_not_fit_in_memory_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    small, model, plan = refitted()
    results = []
    for held in (2**29, 10_000, 0):
        monkeypatch.setattr("secateur.recovery.lesson.HELD_BYTES", held)
        results.append(copy.deepcopy(small))
        distill(results[-1], model, RUNS, steps=6, plan=plan, learning_rate=1e-4)
    assert same(weights(results[0]), weights(results[1]))
    assert same(weights(results[0]), weights(results[2]))
    assert not same(weights(results[0]), weights(small))


# --- it helps -----------------------------------------------------------------------------------------------------


def test_a_world_model_is_better_on_unseen_data_after_it() -> None:
    """75 % of the parameters gone, a part of the interface among them: refit leaves 0.44, 60 steps after it 0.20."""
    model, held_out = world_model(), minibatch(500, seed=99)
    runs = [minibatch(64, seed) for seed in range(16)]
    graph = secateur.trace(model, run=runs[0])
    scores = secateur.importance.Reconstruction(lambda m: [run(m) for run in runs])(graph, model)
    found = secateur.allocate(graph, scores, secateur.Sparsity(0.75, tolerance=0.02))
    plan = secateur.plan(graph, scores, found.coefficients)
    small = secateur.apply(model, plan)
    refit(small, model, plan, runs)
    error = secateur.metrics.DenseError(model, held_out)
    after_refit = error(small)
    distill(small, model, runs, steps=60, plan=plan, learning_rate=3e-3)
    assert error(small) < 0.6 * after_refit


def test_an_autoencoder_is_better_on_unseen_images_after_it() -> None:
    """90 % of the parameters gone: refit leaves 0.0053 of the outputs' variance, 60 steps after it 0.0033."""
    images = load_digits()
    model = train(images, epochs=10)
    result = secateur.prune(model, images.test[:2], target=0.9, calibration=[images.train])
    error = secateur.metrics.DenseError(model, [images.test])
    after_refit = error(result.model)
    distill(result.model, model, [images.train], steps=60, plan=result.plan, batch=128)
    assert error(result.model) < 0.75 * after_refit


# --- what does not change -----------------------------------------------------------------------------------------


class Normed(nn.Module):
    """With dropout, a batch norm, and a layer that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.frozen(self.first(x)).relu())
        return out


def test_only_weights_that_require_a_gradient_change() -> None:
    model, small = Normed(), Normed()
    small.first[1].eval()
    small.last.weight.grad = torch.ones(2, 6)
    data = [torch.randn(20, 4) + 3]
    dense, given = weights(model), weights(small)
    modes = [module.training for module in small.modules()]
    states = RandomState.capture()
    distill(small, model, data, steps=5)
    assert same(weights(model), dense)
    assert all(parameter.grad is None for parameter in model.parameters())
    changed = {name for name, tensor in weights(small).items() if not torch.equal(tensor, given[name])}
    assert changed == {"first.0.weight", "first.0.bias", "first.1.weight", "first.1.bias", "last.weight", "last.bias"}
    assert [module.training for module in small.modules()] == modes
    assert torch.equal(small.last.weight.grad, torch.ones(2, 6))
    assert small.first[0].weight.grad is None
    now = RandomState.capture()
    assert torch.equal(now.torch_cpu, states.torch_cpu)
    assert now.python == states.python
    assert np.array_equal(now.numpy[1], states.numpy[1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*model.modules(), *small.modules()))


def fails_in(step: int) -> Callable[[float, float], None]:
    counter = itertools.count(1)

    def on_progress(done: float, loss: float) -> None:
        if next(counter) == step:
            raise KeyboardInterrupt

    return on_progress


def test_an_interrupt_leaves_the_model_as_it_was() -> None:
    small, model, plan = refitted()
    given = weights(small)
    with pytest.raises(KeyboardInterrupt):
        distill(small, model, RUNS, steps=10, plan=plan, on_progress=fails_in(4))
    assert same(weights(small), given)
    assert not any(module._forward_hooks for module in small.modules())


def test_a_run_that_fails_midway_leaves_the_model_as_it_was() -> None:
    small, model, plan = refitted()
    given, calls = weights(small), itertools.count()

    def sometimes(m: nn.Module) -> Any:
        if next(calls) > 8:
            raise ValueError("the disk is gone")
        return RUNS[0](m)

    with pytest.raises(CalibrationError, match="calibration failed on the smaller model: ValueError: the disk is gone"):
        distill(small, model, [sometimes], steps=20, plan=plan)
    assert same(weights(small), given)


def test_what_diverges_leaves_the_model_as_it_was() -> None:
    small, model, plan = refitted()
    given = weights(small)
    message = r"training diverged in step \d+: the gradient isn't finite; use a smaller learning_rate than 1e\+20"
    with pytest.raises(CalibrationError, match=message):
        distill(small, model, RUNS, steps=5, plan=plan, learning_rate=1e20)
    assert same(weights(small), given)


def test_what_makes_it_worse_leaves_the_model_as_it_was() -> None:
    small, model, plan = refitted()
    given = weights(small)
    with pytest.warns(SecateurWarning, match=r"has not lowered the error \([0-9.]+\) in 2 steps, so that the weights"):
        distill(small, model, RUNS, steps=2, plan=plan, learning_rate=1.0)
    assert same(weights(small), given)
    report = Distillation(steps=2, plan=plan, learning_rate=1.0).run(small, model, RUNS)
    assert not report.improved
    assert report.after == report.before
    assert "not lowered: weights left as they were" in str(report)


# --- time ---------------------------------------------------------------------------------------------------------


def test_steps_are_evenly_spaced_and_end_at_zero_rate() -> None:
    small, model, plan = refitted()
    told: list[float] = []
    report = Distillation(steps=4, plan=plan, on_progress=lambda done, _: told.append(done)).run(small, model, RUNS)
    assert told == list(fractions_of(4)) == [0, 0.25, 0.5, 0.75]
    assert report.steps == 4


def test_every_pass_sees_every_minibatch() -> None:
    order = list(itertools.islice(shuffled_passes(5, seed=0), 15))
    assert [sorted(order[start : start + 5]) for start in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert order[:5] != order[5:10]


def test_fractions_of_the_time_until_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0, 107.0, 110.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert list(fractions_until(110.0)) == [0.0, 0.2, 0.7]


def test_a_deadline_that_has_passed_leaves_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    assert list(fractions_until(99.0)) == [0.0]


def test_seconds_are_those_of_the_whole_call() -> None:
    small, model, plan = refitted()
    started = time.perf_counter()
    report = Distillation(seconds=1.0, plan=plan).run(small, model, RUNS)
    assert 0.8 < report.seconds <= time.perf_counter() - started
    assert report.steps > 1
    assert Distillation(seconds=1e-6, plan=plan).run(small, model, RUNS).steps == 1


def test_the_report_reads_well() -> None:
    small, model, plan = refitted()
    x = torch.randn(9, 6)
    data: list[Run] = [lambda m: m.pi(m.encoder(x))]
    report = Distillation(steps=2, plan=plan, learning_rate=1e-5).run(small, model, data)
    text = str(report)
    assert text.startswith("2 steps (2 passes) in ")
    assert f"  pi: {report.before['pi']:.3g} -> {report.after['pi']:.3g}" in text
    assert "  left out reward: the calibration data calls none of its modules" in text
    assert report.error_before == pytest.approx(np.mean(list(report.before.values())))


# --- what is no sensible input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either seconds= or steps=, how long to distil; neither given"),
        ({"seconds": 1.0, "steps": 2}, "how long to distil; both given"),
        ({"seconds": 0.0}, "seconds must be positive, not 0.0"),
        ({"seconds": -1}, "seconds must be positive, not -1"),
        ({"seconds": float("nan")}, "seconds must be positive, not nan"),
        ({"seconds": float("inf")}, "seconds must be positive, not inf"),
        ({"steps": 0}, "steps must be a whole number, at least 1, not 0"),
        ({"steps": 2.5}, "steps must be a whole number, at least 1, not 2.5"),
        ({"steps": 1, "learning_rate": 0.0}, "learning_rate must be positive, not 0.0"),
        ({"steps": 1, "batch": 0}, "batch must be a whole number, at least 1, not 0"),
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(CalibrationError, match=message):
        distill(copy.deepcopy(model), model, [torch.ones(1, 2)], **options)


@pytest.mark.parametrize("data", [[], iter([]), torch.ones(3, 2)])
def test_no_data(data: Any) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(CalibrationError, match=r"the calibration data is empty|calibration is a single Tensor"):
        distill(copy.deepcopy(model), model, data, steps=1)


def test_nothing_to_train() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(CalibrationError, match="none of the smaller model's weights requires a gradient"):
        distill(copy.deepcopy(model).requires_grad_(False), model, [torch.ones(1, 2)], steps=1)


def test_weights_that_both_models_share() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    small = nn.Sequential(nn.Linear(2, 2), model[1])
    with pytest.raises(CalibrationError, match=r"the two models share 1\.weight, 1\.bias, which training would change"):
        distill(small, model, [torch.ones(1, 2)], steps=1)
    given = weights(model)
    distill(small[0], model[0], [torch.randn(5, 2)], steps=1)
    model[1].requires_grad_(False)
    distill(small, model, [torch.randn(5, 2)], steps=3)
    assert same(weights(model), given)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_function_that_allows_no_gradient(context: Callable[[], Any]) -> None:
    model, small, x = nn.Linear(2, 2), nn.Linear(2, 2), torch.randn(5, 2)

    def without(m: nn.Module) -> Any:
        with context():
            return m(x)

    with pytest.raises(CalibrationError, match="what the smaller model makes has no gradient"):
        distill(small, model, without, steps=1)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients(context: Callable[[], Any]) -> None:
    model, small, x = nn.Linear(2, 2), nn.Linear(2, 2), torch.randn(5, 2)
    given = weights(small)
    with context():
        distill(small, model, [x], steps=1)
    assert not same(weights(small), given)


def test_the_smaller_model_is_returned() -> None:
    small, model, plan = refitted()
    assert distill(small, model, RUNS, steps=50, plan=plan, learning_rate=1e-4) is small
    with pytest.raises(PlanError, match="distill needs the dense model beside the smaller one"):
        distill(model, model, RUNS, steps=1)

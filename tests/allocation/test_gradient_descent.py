"""Gradient descent on the coefficients: known optima, every way to give a loss, and the user's model untouched."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur
from secateur.allocation import Constraint, GradientDescent, Minimize, Sparsity, Uniform, allocate
from secateur.allocation.result import AllocationResult
from secateur.errors import CalibrationError, ConstraintError, ObjectiveError, SearchError
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray, plan
from secateur.surgery import apply
from tests.models.control import LATENT, WorldModel, rollout

Batch = tuple[Tensor, Tensor]


class Branches(nn.Module):
    """Two branches of equal cost, of which only one reaches the output."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.useful = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))
        self.useless = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x: Tensor) -> Tensor:
        useful: Tensor = self.useful(x)
        return useful + 0 * self.useless(x)


def squared_error(model: nn.Module, batch: Batch) -> Tensor:
    inputs, outputs = batch
    return F.mse_loss(model(inputs), outputs)


def batch_for(model: nn.Module, *shape: int) -> Batch:
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return inputs, model(inputs)


def scored(model: nn.Module, *inputs: Tensor, **settings: Any) -> tuple[DependencyGraph, dict[str, FloatArray]]:
    graph = secateur.trace(model, tuple(inputs), **settings)
    return graph, secateur.importance.Magnitude()(graph, model)


def pruned(model: nn.Module, graph: DependencyGraph, scores: Any, result: AllocationResult) -> nn.Module:
    return apply(result.dense(model), plan(graph, scores, result.coefficients))


def test_what_the_loss_does_not_need_leaves_first() -> None:
    model = Branches()
    batch = batch_for(model, 64, 6)
    graph, scores = scored(model, batch[0])
    result = allocate(graph, scores, Sparsity(0.45), strategy=GradientDescent(squared_error, [batch]), model=model)
    # All but one channel of the useless branch make 0.47 of the parameters.
    assert result.coefficients["useful.0"] <= 1 / 32
    assert result.coefficients["useless.0"] >= 0.9
    assert abs(result.sparsity - 0.45) <= 0.01
    assert squared_error(pruned(model, graph, scores, result), batch).item() < 1e-2
    assert result.best is None
    assert result.weights is None


def test_the_uniform_candidate_is_never_beaten_by_the_result() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4))
    batch = batch_for(model, 128, 5)
    graph, scores = scored(model, batch[0])
    losses = {}
    for strategy in (Uniform(), GradientDescent(squared_error, [batch])):
        result = allocate(graph, scores, Sparsity(0.5), strategy=strategy, model=model)
        losses[type(strategy)] = squared_error(pruned(model, graph, scores, result), batch).item()
    assert losses[GradientDescent] <= losses[Uniform]


def test_the_same_seed_gives_the_same_history() -> None:
    model = nn.Sequential(nn.Linear(6, 256), nn.Dropout(), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 3))
    inputs = torch.randn(64, 6)
    graph, scores = scored(model.eval(), inputs)

    def noisy(model: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = model(x + torch.randn_like(x))
        return out.square().mean()

    def solve(seed: int) -> AllocationResult:
        strategy = GradientDescent(noisy, [inputs], seed=seed)
        return allocate(graph, scores, Sparsity(0.5), strategy=strategy, model=model)

    first, second = solve(0), solve(0)
    assert first.history == second.history
    assert first.coefficients == second.coefficients
    assert solve(1).history != first.history


class Awkward(nn.Module):
    """Batch norm, dropout, tied weights, a frozen part and a buffer that counts calls."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.out = nn.Conv2d(8, 8, 1, bias=False)
        self.again = nn.Conv2d(8, 8, 1, bias=False)
        self.again.weight = self.out.weight
        self.last = nn.Linear(8, 2)
        self.conv.bias.requires_grad_(False)  # type: ignore[union-attr]
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = F.dropout(torch.relu(self.norm(self.conv(x))), training=self.training)
        out: Tensor = self.last(torch.relu(self.again(torch.relu(self.out(h)))).mean(dim=(2, 3)))
        return out


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_the_random_state_are_untouched(weights: bool, fails: bool) -> None:
    model = Awkward().train()
    model.norm.eval()
    inputs = torch.randn(16, 1, 6, 6)
    batch = inputs, torch.randn(16, 2)
    graph, scores = scored(model, inputs)
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    tensors = [id(t) for t in model.state_dict(keep_vars=True).values()]
    required = [p.requires_grad for p in model.parameters()]
    calls = 0

    def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal calls
        calls += 1
        if fails and calls == (85 if weights else 5):
            raise ZeroDivisionError
        return squared_error(model, batch)

    strategy = GradientDescent(loss_fn, [batch] * 10, steps=20, weights=weights, epochs=10)
    randomness = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    if fails:
        with pytest.raises(ObjectiveError, match="loss_fn failed: ZeroDivisionError"):
            allocate(graph, scores, Sparsity(0.4, tolerance=0.1), strategy=strategy, model=model)
    else:
        result = allocate(graph, scores, Sparsity(0.4, tolerance=0.1), strategy=strategy, model=model)
        pruning = plan(graph, scores, result.coefficients)
        secateur.verify(result.dense(model), pruned(model, graph, scores, result), pruning)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [id(t) for t in model.state_dict(keep_vars=True).values()] == tensors
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == required
    assert all(p.grad is None for p in model.parameters())
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    assert torch.equal(after[0], randomness[0])
    assert after[1:] == randomness[1:]


def test_a_model_without_forward_and_targets_of_its_components() -> None:
    torch.manual_seed(0)
    model, run = WorldModel().double(), rollout()
    graph = secateur.trace(model, run=run)
    scores = secateur.importance.Magnitude()(graph, model)
    with torch.no_grad():
        dense: Any = run(model)

    def loss_fn(model: nn.Module, _: None) -> Tensor:
        out: Any = run(model)
        return F.mse_loss(out["return"], dense["return"]) + F.mse_loss(out["action"], dense["action"])

    target = Sparsity(0.3, components={"dynamics": 0.4, "Q1": 0.5}, tolerance=0.03)
    results = {
        type(strategy): allocate(graph, scores, target, strategy=strategy, model=model)
        for strategy in (Uniform(), GradientDescent(loss_fn, [None]))
    }
    losses = {kind: loss_fn(pruned(model, graph, scores, r), None).item() for kind, r in results.items()}
    assert losses[GradientDescent] < 0.9 * losses[Uniform]
    found = results[GradientDescent]
    assert abs(found.component_sparsities["dynamics"] - 0.4) <= 0.03
    assert abs(found.component_sparsities["Q1"] - 0.5) <= 0.03
    assert found.kept["encoder.2"] <= LATENT


def test_a_convolutional_net() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 16, 3),
    ).eval()  # fmt: skip
    batch = batch_for(model, 32, 1, 6, 6)
    graph, scores = scored(model, batch[0])
    losses = []
    for strategy in (Uniform(), GradientDescent(squared_error, [batch])):
        result = allocate(graph, scores, Sparsity(0.5), strategy=strategy, model=model)
        losses.append(squared_error(pruned(model, graph, scores, result), batch).item())
    assert losses[1] <= losses[0]


def test_calibration_data_alone_gives_a_loss() -> None:
    model = Branches()
    inputs, _ = batch_for(model, 600, 6)
    graph, scores = scored(model, inputs[:2])
    functions = [lambda m, rows=rows: m(rows) for rows in inputs.split(200)]
    for calibration in ([inputs], functions):
        result = allocate(
            graph, scores, Sparsity(0.45), strategy=GradientDescent(), model=model, calibration=calibration
        )
        assert result.coefficients["useful.0"] <= 1 / 32


def test_an_objective_with_a_gradient_gives_a_loss() -> None:
    model = Branches()
    batch = batch_for(model, 64, 6)
    graph, scores = scored(model, batch[0])
    objectives: list[Callable[[nn.Module], Tensor] | Minimize] = [
        lambda m: -squared_error(m, batch),
        Minimize(lambda m: squared_error(m, batch)),
    ]
    for objective in objectives:
        result = allocate(graph, scores, Sparsity(0.45), strategy=GradientDescent(), model=model, objective=objective)
        assert result.coefficients["useful.0"] <= 1 / 32
        assert result.best is not None
        assert result.best in result.history
        assert len(result.history) <= 5


def test_coefficients_that_are_all_given_are_met() -> None:
    model = Branches(8)
    batch = batch_for(model, 16, 6)
    graph, scores = scored(model, batch[0])
    target = Sparsity(interfaces={"useful.0": 0.25, "useless.0": 0.5})
    result = allocate(graph, scores, target, strategy=GradientDescent(squared_error, [batch]), model=model)
    assert result.coefficients == {"useful.0": 0.25, "useless.0": 0.5}


def test_the_final_choice_is_the_objectives() -> None:
    model = Branches()
    batch = batch_for(model, 64, 6)
    graph, scores = scored(model, batch[0])

    def keeps_the_useless(model: Any) -> float:
        return float(model.useless[0].out_features)

    result = allocate(
        graph, scores, Sparsity(0.4), strategy=GradientDescent(squared_error, [batch]), model=model,
        objective=keeps_the_useless,
    )  # fmt: skip
    uniform = allocate(graph, scores, Sparsity(0.4))
    assert result.coefficients == uniform.coefficients


def test_joint_training_ends_in_a_small_model_that_works() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    inputs = torch.randn(512, 6)
    aims = torch.stack([inputs[:, 0], inputs[:, 1] * inputs[:, 2], inputs[:, 3].abs()], dim=1)
    batches = list(zip(inputs.split(64), aims.split(64), strict=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        for batch in batches:
            optimizer.zero_grad()
            squared_error(model, batch).backward()
            optimizer.step()
    graph, scores = scored(model, inputs)
    losses = {}
    for weights in (False, True):
        strategy = GradientDescent(squared_error, batches, weights=weights, epochs=10)
        result = allocate(graph, scores, Sparsity(0.6), strategy=strategy, model=model)
        small = pruned(model, graph, scores, result)
        losses[weights] = squared_error(small, (inputs, aims)).item()
        assert abs(result.sparsity - 0.6) <= 0.01
    assert losses[True] < 0.2 * losses[False]
    assert sum(p.numel() for p in small.parameters()) <= 0.41 * sum(p.numel() for p in model.parameters())
    # The trained state has zeros where removed channels are consumed, so that surgery changes nothing.
    assert torch.allclose(result.dense(model)(inputs), small(inputs), atol=1e-5)


def test_joint_training_is_measured_with_its_own_weights() -> None:
    model = Branches(8)
    inputs = torch.randn(32, 6)
    batches = [(inputs, torch.zeros(32, 3))] * 4
    graph, scores = scored(model, inputs)

    def error(model: nn.Module) -> float:
        return squared_error(model, batches[0]).item()

    strategy = GradientDescent(squared_error, batches, steps=5, weights=True, epochs=10, weight_learning_rate=0.05)
    target = Sparsity(0.4, tolerance=0.05)
    result = allocate(graph, scores, target, strategy=strategy, model=model, objective=Minimize(error))
    assert result.best is not None
    assert result.best.objective == pytest.approx(error(pruned(model, graph, scores, result)), rel=1e-4)
    assert result.history == (result.best,)
    impossible = [Constraint(error, at_most=1e-12)]
    with pytest.raises(ConstraintError, match="no candidate satisfies"):
        allocate(graph, scores, target, strategy=strategy, model=model, constraints=impossible)


def test_frozen_parameters_stay_and_tied_ones_stay_tied() -> None:
    model = Awkward()
    inputs = torch.randn(16, 1, 6, 6)
    graph, scores = scored(model.eval(), inputs)
    model.last.requires_grad_(False)
    strategy = GradientDescent(squared_error, [(inputs, torch.randn(16, 2))] * 4, steps=5, weights=True)
    result = allocate(graph, scores, Sparsity(0.4, tolerance=0.1), strategy=strategy, model=model)
    assert result.weights is not None
    assert set(result.weights) == set(model.state_dict())
    assert torch.equal(result.weights["out.weight"], result.weights["again.weight"])
    assert torch.equal(result.weights["conv.bias"], model.conv.bias)  # type: ignore[arg-type]
    small: Any = pruned(model, graph, scores, result)
    assert small.again.weight is small.out.weight


def solve(strategy: GradientDescent, **settings: Any) -> AllocationResult:
    model = Branches(8)
    graph, scores = scored(model, torch.randn(4, 6))
    return allocate(graph, scores, Sparsity(0.4, tolerance=0.05), strategy=strategy, model=model, **settings)


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (lambda m, x: m(x).sum().item(), "loss_fn must return a tensor of one number; it returned float"),
        (lambda m, x: m(x), r"it returned a tensor of shape \(4, 3\)"),
        (lambda m, x: m(x).sum() * float("nan"), "loss_fn gave nan"),
        (lambda m, x: m(x).sum().detach(), "loss_fn has no gradient .* use BlackBox or Sensitivity"),
        (lambda m, x: x.sum(), "loss_fn has no gradient by the model's parameters"),
    ],
)
def test_losses_that_cannot_be_used(loss_fn: Any, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        solve(GradientDescent(loss_fn, [torch.randn(4, 6)]))


def test_an_objective_without_a_gradient_says_what_to_use() -> None:
    with pytest.raises(ObjectiveError, match=r"the objective's float has no gradient.*loss_fn, batches.*BlackBox"):
        solve(GradientDescent(), objective=lambda m: 1.0)
    with pytest.raises(ObjectiveError, match=r"needs something with a gradient.*BlackBox or Sensitivity"):
        solve(GradientDescent())


def test_no_model_and_no_batches() -> None:
    model = Branches(8)
    graph, scores = scored(model, torch.randn(4, 6))
    with pytest.raises(ObjectiveError, match="model="):
        allocate(graph, scores, Sparsity(0.4), strategy=GradientDescent(squared_error, [1]))
    with pytest.raises(CalibrationError, match="GradientDescent was given no batches"):
        solve(GradientDescent(squared_error, []))


def test_weights_that_become_infinite_are_an_error() -> None:
    batch = torch.randn(4, 6), torch.randn(4, 3)
    strategy = GradientDescent(squared_error, [batch] * 20, steps=2, weights=True, weight_learning_rate=1e20)
    with pytest.raises(ObjectiveError, match=r"loss_fn gave (nan|inf); look at the data, or lower the learning rate"):
        solve(strategy)


def test_a_model_whose_parameters_are_all_frozen() -> None:
    model = Branches(8).requires_grad_(False)
    batch = batch_for(model, 4, 6)
    graph, scores = scored(model, batch[0])
    strategy = GradientDescent(squared_error, [batch], steps=2, weights=True)
    with pytest.raises(ObjectiveError, match="none of the model's parameters requires a gradient"):
        allocate(graph, scores, Sparsity(0.4, tolerance=0.05), strategy=strategy, model=model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_fn": squared_error}, "needs loss_fn and batches together"),
        ({"weights": True}, r"weights=True\) trains on your own loss"),
        ({"steps": 0}, "steps must be a whole number, at least 1; it is 0"),
        ({"candidates": 1.5}, "candidates must be a whole number"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"learning_rate": 0}, "learning_rate must be above 0; it is 0"),
        ({"weight_learning_rate": float("nan")}, "weight_learning_rate must be above 0"),
        ({"temperatures": (0.1, 0)}, "temperatures must be two numbers above 0"),
        ({"temperatures": 0.1}, "temperatures must be two numbers above 0; they are 0.1"),
        ({"temperatures": ("hot", 0.1)}, "temperatures must be two numbers above 0"),
        ({"learning_rate": "fast"}, "learning_rate must be above 0; it is 'fast'"),
        ({"weight_learning_rate": None}, "weight_learning_rate must be above 0; it is None"),
        ({"loss_fn": squared_error, "batches": 3}, "batches must be an iterable of what the loss is given, not 3"),
        ({"loss_fn": 3, "batches": []}, "loss_fn must be a function of the model and a batch, not 3"),
        ({"temperatures": (0.1,)}, "temperatures must be two numbers above 0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
    ],
)
def test_malformed_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        GradientDescent(**settings)


def test_a_one_shot_iterator_is_read_once() -> None:
    model = Branches(8)
    batch = batch_for(model, 16, 6)
    strategy = GradientDescent(squared_error, iter([batch]), steps=5)
    assert solve(strategy).coefficients == solve(strategy).coefficients

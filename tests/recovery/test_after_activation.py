"""Refit past the element-wise function that follows a consumer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateur
from secateur.calibration import as_calibration, survey
from secateur.calibration.following import Following
from secateur.errors import CalibrationError
from secateur.graph.groups import Consumer
from secateur.recovery import refit_consumers
from secateur.recovery.after_activation import Rows, step_after

Function = Callable[[Tensor], Tensor]


def sequential(function: nn.Module, *, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 8, bias=bias), function).double()


def functions_of(model: nn.Module, *inputs: Tensor) -> dict[str, Following]:
    graph = secateur.trace(model, inputs[0][:1])
    return dict(survey(model, graph.consumers, as_calibration(list(inputs))).following)


# --- which function follows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.ReLU(), torch.relu),
        (nn.ReLU(inplace=True), torch.relu),
        (nn.Sigmoid(), torch.sigmoid),
        (nn.GELU(approximate="tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (nn.ELU(alpha=0.5), lambda x: F.elu(x, alpha=0.5)),
        (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
        (nn.Softplus(beta=2.0), lambda x: F.softplus(x, beta=2.0)),
        (nn.Hardtanh(-0.5, 0.5), lambda x: F.hardtanh(x, -0.5, 0.5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_function_is_found_with_its_arguments(module: nn.Module, function: Function) -> None:
    found = functions_of(sequential(module), torch.randn(5, 6, dtype=torch.float64))["2.weight"]
    values = torch.linspace(-3, 3, 31, dtype=torch.float64)
    before = values.clone()
    assert torch.equal(found(values), function(before))
    assert torch.equal(values, before)


class Skip(nn.Module):
    """The second layer's output is read by a ReLU and again by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.second(torch.tanh(self.first(x)))
        return torch.as_tensor(self.third(torch.relu(hidden) + hidden))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: Skip(), id="two operators read it"),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
            id="a norm reads it",
        ),
        pytest.param(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8)), id="nothing reads it"),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Softmax(-1)), id="a softmax reads it"
        ),
    ],
)
def test_what_is_not_element_wise_is_no_such_function(model: Callable[[], nn.Module]) -> None:
    names = functions_of(model(), torch.randn(5, 6))
    assert {"second.weight", "2.weight"} & names.keys() == set()


class Recurrent(nn.Module):
    """One layer called three times; the last time with another function after it."""

    def __init__(self, last: Function) -> None:
        super().__init__()
        self.into, self.step, self.out = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self._last = last

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.into(x))
        for function in (torch.tanh, torch.tanh, self._last):
            hidden = function(self.step(hidden))
        return torch.as_tensor(self.out(hidden))


@pytest.mark.parametrize(("last", "is_one"), [(torch.tanh, True), (torch.relu, False)])
def test_every_call_must_have_the_same_function(last: Function, is_one: bool) -> None:
    assert ("step.weight" in functions_of(Recurrent(last), torch.randn(5, 6))) is is_one


# --- the steps --------------------------------------------------------------------------------------------------------


def error(function: Function, features: Tensor, targets: Tensor, matrix: Tensor, bias: Tensor) -> float:
    wanted = function(targets)
    made = function(features @ matrix.T + bias)
    return float((made - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Sigmoid(), nn.ELU()], ids=lambda m: type(m).__name__)
def test_many_steps_reach_the_optimum_that_another_method_finds(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    features = torch.randn(400, 5, generator=generator, dtype=torch.float64) @ mixing + 0.5
    targets = 2 * torch.randn(400, 3, generator=generator, dtype=torch.float64) + features[:, :3]
    found = functions_of(sequential(module), torch.randn(5, 6, dtype=torch.float64))["2.weight"]
    rows = Rows(2**20, torch.float64)
    rows.add(features[None], targets[None])
    mean = features.mean(0)
    gram = (features - mean).T @ (features - mean) / 400
    matrix = torch.linalg.lstsq(features - mean, targets - targets.mean(0)).solution.T
    bias = targets.mean(0) - matrix @ mean
    stepped = step_after(
        found, rows, torch.linalg.cholesky(gram)[None], mean[None], matrix[None], bias[None], steps=200
    )
    assert stepped is not None
    assert stepped.bias is not None
    assert stepped.error_before == pytest.approx(error(module, features, targets, matrix, bias), rel=1e-9)
    after = error(module, features, targets, stepped.matrix[0], stepped.bias[0])
    assert stepped.error_after == pytest.approx(after, rel=1e-9)
    assert after == pytest.approx(by_adam(module, features, targets, matrix, bias), rel=2e-3)
    assert after < 0.98 * stepped.error_before


def by_adam(function: Function, features: Tensor, targets: Tensor, matrix: Tensor, bias: Tensor) -> float:
    unknowns = [matrix.clone().requires_grad_(), bias.clone().requires_grad_()]
    optimiser = torch.optim.Adam(unknowns, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1500)
    wanted = function(targets)
    for _ in range(1500):
        optimiser.zero_grad()
        (function(features @ unknowns[0].T + unknowns[1]) - wanted).square().mean().backward()
        optimiser.step()
        schedule.step()
    return error(function, features, targets, *(u.detach() for u in unknowns))


def test_rows_beyond_the_limit_are_thinned_evenly() -> None:
    rows = Rows(largest=2 * 10 * 8, dtype=torch.float64)
    numbers = torch.arange(37, dtype=torch.float64)[None, :, None]
    for block in numbers.split(5, dim=1):
        rows.add(block, -block)
    held = [t for block in rows._blocks for t in block]
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in held)
    features, targets = rows.all()
    assert features.flatten().tolist() == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert torch.equal(targets, -features)


# --- the refit -------------------------------------------------------------------------------------------------------


def pruned(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, secateur.PruningPlan]:
    graph = secateur.trace(model, inputs[:1])
    scores = secateur.importance.Magnitude()(graph, model)
    plan = secateur.plan(graph, scores, 0.5)
    return secateur.apply(model, plan), plan


@pytest.mark.parametrize("bias", [True, False])
def test_the_outputs_come_nearer(bias: bool) -> None:
    model = sequential(nn.Sigmoid(), bias=bias)
    with torch.no_grad():
        dict(model.named_parameters())["2.weight"].mul_(8)
    inputs = torch.randn(500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = {}
    for steps in (0, 3, 10):
        small, plan = pruned(model, inputs)
        report = refit_consumers(small, model, plan, [inputs], steps=steps)
        with torch.no_grad():
            errors[steps] = float((small(inputs) - model(inputs)).square().sum())
    assert errors[10] < errors[3] < 0.97 * errors[0]
    (consumer,) = report.refitted
    assert consumer.following == "sigmoid"
    assert consumer.following_after < consumer.following_before
    assert "after sigmoid" in str(report)
    with torch.no_grad():
        variance = float((model(inputs) - model(inputs).mean(0)).square().sum())
    assert consumer.following_after == pytest.approx(errors[10] / variance, rel=1e-6)


def test_convolutions_in_conv_groups() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.Tanh(), nn.Conv2d(16, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).double()
    inputs = torch.randn(12, 3, 10, 10, dtype=torch.float64)
    errors = []
    for steps in (0, 10):
        small, plan = pruned(model, inputs)
        refit_consumers(small, model, plan, [inputs], steps=steps)
        with torch.no_grad():
            wanted = model[:4](inputs)[:, torch.tensor(plan.kept["2.weight", 0])]
            errors.append(float((small.get_submodule("2")(small[:2](inputs)).relu() - wanted).square().sum()))  # type: ignore[index]
    assert errors[1] < errors[0]


def test_few_rows_are_left_at_the_ridge_solution() -> None:
    model = sequential(nn.Sigmoid())
    inputs = torch.randn(20, 6, dtype=torch.float64)
    solutions = []
    for steps in (0, 10):
        small, plan = pruned(model, inputs)
        report = refit_consumers(small, model, plan, [inputs], steps=steps)
        solutions.append(dict(small.named_parameters())["2.weight"].detach())
        assert report.refitted[0].following == ""
    assert torch.equal(*solutions)


def test_the_user_may_be_in_inference_mode() -> None:
    model = sequential(nn.Sigmoid())
    inputs = torch.randn(500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = []
    for inference in (False, True):
        with torch.inference_mode(inference):
            small, plan = pruned(model, inputs)
            (consumer,) = refit_consumers(small, model, plan, [inputs]).refitted
            weights.append(dict(small.named_parameters())["2.weight"].detach().clone())
        assert consumer.following == "sigmoid"
    assert torch.equal(*weights)


def test_a_negative_number_of_steps_is_an_error() -> None:
    model = sequential(nn.ReLU())
    inputs = torch.randn(50, 6, dtype=torch.float64)
    small, plan = pruned(model, inputs)
    with pytest.raises(CalibrationError, match="steps must be at least 0, not -1"):
        refit_consumers(small, model, plan, [inputs], steps=-1)


def test_consumers_are_found_by_their_weights() -> None:
    model = sequential(nn.ReLU())
    calibration = as_calibration([torch.randn(5, 6, dtype=torch.float64)])
    found = survey(model, [Consumer("2.weight", 1)], calibration)
    assert [f.name for f in found.following.values()] == ["relu"]


def test_a_plan_that_removes_nothing_leaves_nothing_to_refit() -> None:
    model = sequential(nn.ReLU())
    inputs = torch.randn(50, 6, dtype=torch.float64)
    graph = secateur.trace(model, inputs[:1])
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.0)
    small = secateur.apply(model, plan)
    assert refit_consumers(small, model, plan, [inputs]).refitted == ()
    assert torch.equal(small(inputs), model(inputs))

"""The proof: it passes for true prunes, names what it proved, and fails for every kind of falsified one."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import secateur
from secateur.errors import PlanError, SecateurWarning, VerificationError
from secateur.graph import DependencyGraph, trace
from secateur.graph.cost import Cost, CostModel
from secateur.graph.rules import RULES
from secateur.plan import PruningPlan, plan
from secateur.surgery import apply
from secateur.verify import verify

Model = TypeVar("Model", bound=nn.Module)


class Flipped(nn.Module):
    """A hidden layer whose channels are turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12)
        self.second = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).tanh().flip(1))


class Sampling(nn.Module):
    """A variational autoencoder that draws noise as wide as its latent."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16))
        self.decoder = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return self.decoder(mean + torch.randn_like(mean) * (log_variance / 2).exp())


class LinearAttention(nn.Module):
    """Channels contracted with activations after a map that doesn't keep zero."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 12) for _ in range(3))
        self.out = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = F.elu(self.query(x)) + 1, F.elu(self.key(x)) + 1
        return self.out(q @ (k.transpose(1, 2) @ self.value(x)))


class InPlaceProduct(nn.Module):
    """A product that is added to what a tensor already holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12)
        self.second = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x[:, :3].clone()
        return out.addmm_(self.first(x).cos(), self.second.weight.T)


def random_plan(graph: DependencyGraph, coefficient: float = 0.5) -> PruningPlan:
    generator = np.random.default_rng(0)
    return plan(graph, {g.name: generator.random(g.size) for g in graph.groups}, coefficient)


def pruned(model: Model, x: torch.Tensor) -> tuple[Model, PruningPlan]:
    made = random_plan(trace(model, x))
    return apply(model, made), made


def double(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Flipped, (4, 5)),
        (LinearAttention, (2, 7, 6)),
        (InPlaceProduct, (4, 5)),
        (lambda: Sampling().eval(), (4, 6)),
        (Sampling, (4, 6)),
    ],
    ids=["flip", "linear attention", "in-place product", "sampling", "sampling with dropout"],
)
def test_pruned_equals_masked(model: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    dense, x = model().double(), double(shape)
    small, made = pruned(dense, x)
    before, random_state = {k: v.clone() for k, v in dense.state_dict().items()}, torch.get_rng_state()
    report = verify(dense, small, made)
    assert report.largest_difference <= 1e-9 == report.tolerance
    assert set(report.exact) == {group.name for group in trace(dense, x).groups}
    assert report.outputs == 1
    assert report.cost.parameters == sum(p.numel() for p in small.parameters())
    assert all(torch.equal(before[k], v) for k, v in dense.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_mixing_groups_are_named_and_the_others_still_proved() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    small, made = pruned(model, double((3, 5)))
    report = verify(model, small, made)
    assert report.mixing == ("0",)
    assert report.exact == ("2",)
    assert "shapes only: 0" in str(report)


def test_a_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten.flip", RULES["aten.tanh"])
    model, x = Flipped().double(), double((4, 5))
    small, made = pruned(model, x)
    with pytest.raises(VerificationError, match="outputs differ from those of the masked original"):
        verify(model, small, made)


def test_changed_weights_are_caught() -> None:
    model, x = Flipped().double(), double((4, 5))
    small, made = pruned(model, x)
    with torch.no_grad():
        small.second.weight[0, 0] += 1e-6
    with pytest.raises(VerificationError, match=r"'second\.weight' of the smaller model .* before refit"):
        verify(model, small, made)


def test_a_plan_that_splits_a_channel_is_caught() -> None:
    model, x = Flipped().double(), double((4, 5))
    made = random_plan(trace(model, x))
    kept = dict(made.kept)
    kept["second.weight", 1] = np.setdiff1d(np.arange(12), made.kept["second.weight", 1])
    false = dataclasses.replace(made, kept=kept)
    with pytest.raises(VerificationError, match="without what must leave together with it"):
        verify(model, apply(model, false), false)


def test_a_plan_for_another_model() -> None:
    small, made = pruned(Flipped().double(), double((4, 5)))
    with pytest.raises(PlanError):
        verify(Sampling().double(), small, made)


def test_a_size_that_the_code_checks_is_named() -> None:
    class Checks(Flipped):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            if len(self.second.weight.detach().numpy().T) < 12:
                raise ValueError("expected 12 channels")
            return self.second(h)

    model, x = Checks().double(), double((4, 5))
    small, made = pruned(model, x)
    with pytest.raises(VerificationError, match=r"entry point fails: expected 12 channels"):
        verify(model, small, made)


def test_an_entry_point_that_takes_another_path_each_time() -> None:
    model, x, calls = Flipped().double(), double((4, 5)), itertools.count()

    def run(m: Any) -> torch.Tensor:
        return m.second(m.first(x) * (1 + next(calls)))

    made = random_plan(trace(model, run=run))
    with pytest.raises(VerificationError, match="Flipped doesn't do the same twice: two runs compute different values"):
        verify(model, apply(model, made), made)


def test_a_plan_from_json_needs_an_entry_point() -> None:
    model, x = Flipped().double(), double((4, 5))
    small, made = pruned(model, x)
    read = PruningPlan.from_json(made.to_json())
    with pytest.raises(VerificationError, match="give verify example_inputs or run="):
        verify(model, small, read)
    assert verify(model, small, read, example_inputs=x).outputs == 1


def test_no_outputs_to_compare() -> None:
    model, x = Flipped().double(), double((4, 5))

    def run(m: nn.Module) -> None:
        m(x)

    with pytest.warns(SecateurWarning, match="no output keeps its size"):
        made = random_plan(trace(model, run=run))
    with pytest.warns(SecateurWarning, match="returns no numbers"):
        assert verify(model, apply(model, made), made).outputs == 0


class Changing(nn.Module):
    """Gives something else once it is smaller, in a way that the trace can't see; ``use`` makes the outputs of it."""

    def __init__(self, use: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second, self.use = nn.Linear(5, 32), nn.Linear(32, 3), use

    def forward(self, x: torch.Tensor) -> Any:
        h = self.first(x).relu()
        y = self.second(h)
        return self.use(-y if h.untyped_storage().nbytes() != 4 * 32 * h.element_size() else y)


@pytest.mark.parametrize(
    "use",
    [
        lambda y: y,
        lambda y: y * 1e-6,
        lambda y: (y.detach() * 0, y),
        lambda y: torch.complex(y, y),
        lambda y: (y.bfloat16(), y.float()),
        lambda y: y.bfloat16() * 0.03,
    ],
    ids=["plain", "small", "one of two", "complex", "mixed types", "small in bfloat16"],
)
def test_outputs_that_change_are_caught(use: Callable[[torch.Tensor], Any]) -> None:
    model, x = Changing(use), torch.randn(4, 5)
    small, made = pruned(model, x)
    with pytest.raises(VerificationError, match="outputs differ"):
        verify(model, small, made)


def test_an_argmax_is_not_counted() -> None:
    model, x = Changing(lambda y: (y.argmax(1), y[:, :0])), torch.randn(4, 5)
    small, made = pruned(model, x)
    with pytest.warns(SecateurWarning, match="returns no numbers"):
        assert verify(model, small, made).outputs == 0


def test_the_model_itself_is_no_smaller_one() -> None:
    model, x = Flipped(), torch.randn(4, 5)
    made = random_plan(trace(model, x))
    with pytest.raises(VerificationError, match="without inplace=True"):
        verify(model, model, made)


@pytest.mark.parametrize(
    "draw",
    [
        lambda h: torch.randperm(len(h))[:, None] * 0.1,
        lambda h: torch.multinomial(torch.ones(4), len(h), replacement=True)[:, None] * 0.1,
        lambda h: torch.distributions.Gamma(torch.ones(len(h), 1), torch.ones(len(h), 1)).sample(),
        lambda h: torch.poisson(torch.ones(len(h), 1)),
    ],
    ids=["permutation", "multinomial", "gamma", "poisson"],
)
def test_all_random_numbers_are_replayed(draw: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Drawing(Flipped):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = F.dropout(self.first(x), 0.5)
            return self.second(h) + draw(h)

    model, x = Drawing(), torch.randn(4, 5)
    small, made = pruned(model, x)
    assert verify(model, small, made).outputs == 1


def test_under_autocast() -> None:
    model, x = Flipped(), torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
        small, made = pruned(model, x)
        assert verify(model, small, made).outputs == 1


def test_a_model_that_keeps_state_between_calls() -> None:
    class Recurrent(Flipped):
        state: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x).tanh()
            self.state = h if self.state is None else 0.5 * self.state + h
            return self.second(self.state)

    model, x = Recurrent(), torch.randn(4, 5)
    small, made = pruned(model, x)
    verify(model, small, made)
    assert model.state is None


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d(12), nn.GroupNorm(3, 12, affine=False)])
def test_a_norm_without_parameters_knows_its_channels(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv1d(2, 12, 3), norm, nn.Conv1d(12, 3, 1))
    x = torch.randn(2, 2, 9)
    small, made = pruned(model, x)
    verify(model, small, made)
    assert getattr(small[1], "num_features", None) == 6 or getattr(small[1], "num_channels", None) == 6


def test_a_spectral_norm_in_training() -> None:
    model = nn.Sequential(nn.Linear(5, 12), nn.utils.parametrizations.spectral_norm(nn.Linear(12, 8)), nn.Linear(8, 2))
    small, made = pruned(model.train(), torch.randn(4, 5))
    verify(model, small, made)
    assert all(module.training for module in small.modules())


def test_single_precision_has_its_own_tolerance() -> None:
    model, x = Flipped(), torch.randn(4, 5)
    small, made = pruned(model, x)
    assert verify(model, small, made).tolerance == 1e-5


def test_outputs_that_are_not_finite_must_agree() -> None:
    model, x = Flipped().double(), double((4, 5))
    with torch.no_grad():
        model.second.bias[0] = float("nan")
    small, made = pruned(model, x)
    assert verify(model, small, made).largest_difference <= 1e-9


def test_an_output_that_is_near_zero_by_chance_is_measured_by_the_dense_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    inputs = torch.randn(1, 64)
    graph = secateur.trace(model, inputs)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    with torch.no_grad():  # what the kept channels give is moved to zero, what the dense model gives isn't
        last = dict(model.named_parameters())["4.bias"]
        last.sub_(secateur.apply(model, plan)(inputs)[0])
    with torch.no_grad():
        assert float(secateur.apply(model, plan)(inputs).abs()) < 1e-7
    report = secateur.verify(model, secateur.apply(model, plan), plan)
    assert report.largest_difference <= 1e-5


class Cancelling(nn.Module):
    """The difference of two large numbers that are nearly the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into = nn.Linear(32, 256)
        self.out = nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(torch.relu(self.into(x))) * 1e3
        return out - out.detach().round()


def test_an_output_that_rounding_moves_may_differ_by_as_much() -> None:
    model = Cancelling()
    inputs = torch.randn(4, 32)
    graph = secateur.trace(model, inputs)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    small = secateur.apply(model, plan)
    report = secateur.verify(model, small, plan)
    assert 1e-5 < report.largest_difference < report.tolerance <= 1e-3


class Selecting(nn.Module):
    """How many rows go on depends on their values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        h = h[h.sum(-1) > 0]
        return self.third(self.second(h).relu()).sum(0)


def selected() -> tuple[nn.Module, nn.Module, PruningPlan]:
    torch.manual_seed(0)
    model, x = Selecting().double(), double((64, 4))
    small, made = pruned(model, x)
    return model, small, made


def test_rows_that_depend_on_values_cost_what_the_smaller_models_do() -> None:
    model, small, made = selected()
    rows = []
    small.second.register_forward_hook(lambda module, given, result: rows.append(len(given[0])))  # type: ignore[union-attr]
    report = verify(model, small, made)
    dense = trace(model, run=made.entry_point).cost({name: len(kept) for name, kept in made.groups.items()})
    assert report.cost.macs == 64 * 4 * 8 + rows[0] * (8 * 8 + 8 * 2) != dense.macs
    assert report.cost.parameters == sum(p.numel() for p in small.parameters()) == dense.parameters


def test_wrong_macs_are_caught_where_rows_depend_on_values(monkeypatch: pytest.MonkeyPatch) -> None:
    model, small, made = selected()
    cost = CostModel.cost

    def wrong(self: CostModel, kept: Any) -> Cost:
        right = cost(self, kept)
        return right if (kept == self.full).all() else dataclasses.replace(right, macs=right.macs + 1)

    monkeypatch.setattr(CostModel, "cost", wrong)
    with pytest.raises(VerificationError, match="predicted macs"):
        verify(model, small, made)

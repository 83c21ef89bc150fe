"""What every criterion promises, and each criterion against an exact answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.errors import CalibrationError, ScoreError, SecateurWarning
from secateur.graph.graph import DependencyGraph
from secateur.importance import Activation, Criterion, Fisher, Magnitude, Random, Reconstruction, Taylor
from secateur.importance import criterion as by_axis
from secateur.importance.reconstruction import Elimination
from tests.handmade import Chain, GraphSketch, GroupSketch, linear_chain

WIDTHS = (5, 8, 6, 3)
DOUBLE = torch.float64


def chain() -> tuple[DependencyGraph, Chain]:
    return linear_chain(WIDTHS).graph(), Chain(WIDTHS).to(DOUBLE)


class ConvNet(nn.Module):
    """A grouped and a strided convolution, a flattened map, and a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 4, 3, groups=2, bias=False)
        self.flat, self.up = nn.Linear(4 * 4, 6), nn.ConvTranspose1d(6, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.flat(self.grouped(x).flatten(1)).relu()
        out: Tensor = self.up(x[..., None])
        return out


def conv_case() -> tuple[DependencyGraph, ConvNet]:
    model = ConvNet().to(DOUBLE)
    pairs = np.stack([np.arange(4), np.arange(4) + 4], axis=1)  # channel c is c in either conv group
    spread = {(f"{name}.{p}", 0): pairs for name in ("stem", "norm") for p in ("weight", "bias")}
    spread |= {("norm.running_mean", 0): pairs, ("norm.running_var", 0): pairs}
    groups = [
        GroupSketch("stem", 4, {**spread, ("grouped.weight", 1): None}, frozenset({("grouped.weight", 1)})),
        GroupSketch(
            "grouped",
            4,
            {("grouped.weight", 0): None, ("flat.weight", 1): np.arange(16).reshape(4, 4)},
            frozenset({("flat.weight", 1)}),
        ),
        GroupSketch(
            "flat",
            6,
            {("flat.weight", 0): None, ("flat.bias", 0): None, ("up.weight", 0): None},
            frozenset({("up.weight", 0)}),
            blocks=2,
        ),
    ]
    buffers = frozenset({"norm.running_mean", "norm.running_var"})
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items() if t.ndim}
    return GraphSketch(shapes, groups, buffers=buffers).graph(), model


CASES: dict[str, tuple[Callable[[], tuple[DependencyGraph, nn.Module]], tuple[int, ...]]] = {
    "chain": (chain, (30, 5)),
    "convolutions": (conv_case, (30, 2, 6, 6)),
}


def squared(model: nn.Module, batch: Tensor) -> Tensor:
    out: Tensor = model(batch)
    return out.square().mean()


CRITERIA: dict[str, Callable[[list[Tensor]], Criterion]] = {
    "Random": lambda data: Random(3),
    "Magnitude L1": lambda data: Magnitude(p=1),
    "Magnitude L2": lambda data: Magnitude(p=2),
    "Taylor": lambda data: Taylor(squared, data),
    "Fisher": lambda data: Fisher(squared, iter(data)),
    "Activation": lambda data: Activation(data),
    "Reconstruction": lambda data: Reconstruction(iter(data)),
}


# --- the conformance suite ----------------------------------------------------------------------------------------


def state_of(model: nn.Module) -> list[Any]:
    parameters = [(n, p.requires_grad, p.grad) for n, p in model.named_parameters()]
    modules = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return [parameters, modules]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("make", CRITERIA.values(), ids=list(CRITERIA))
def test_conformance(make: Callable[[list[Tensor]], Criterion], case: Any) -> None:
    build, shape = case
    graph, model = build()
    next(model.parameters()).requires_grad_(False)
    next(model.children()).eval()
    data = [torch.randn(shape, dtype=DOUBLE) for _ in range(2)]
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    before = state_of(model)
    generators = torch.get_rng_state(), random.getstate(), str(np.random.get_state())

    criterion = make(data)
    scores = criterion(graph, model)

    assert list(scores) == [g.name for g in graph.groups]
    for group in graph.groups:
        assert scores[group.name].shape == (group.size,)
        assert scores[group.name].dtype == np.float64
        assert np.isfinite(scores[group.name]).all()
        assert len(np.unique(scores[group.name])) > 1
    again = criterion(graph, model)
    assert all(np.array_equal(again[name], scores[name]) for name in scores)
    assert state_of(model) == before
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (random.getstate(), str(np.random.get_state())) == generators[1:]


@pytest.mark.parametrize("make", CRITERIA.values(), ids=list(CRITERIA))
def test_scores_follow_the_channels(make: Callable[[list[Tensor]], Criterion]) -> None:
    """A hidden layer with its channels in another order gets its scores in that order."""
    graph, built = chain()
    model: Any = built
    data = [torch.randn(30, 5, dtype=DOUBLE) for _ in range(2)]
    scores = make(list(data))(graph, model)["c0.0"]
    order = torch.randperm(8)
    first, second = model.c0[0], model.c1[0]
    for parameter in (first.weight, first.bias):
        parameter.data = parameter.data[order]
    second.weight.data = second.weight.data[:, order]
    if not isinstance(make(list(data)), Random):
        np.testing.assert_allclose(make(list(data))(graph, model)["c0.0"], scores[order.numpy()], rtol=1e-9)


# --- exact answers ------------------------------------------------------------------------------------------------


def slices(graph: DependencyGraph, model: nn.Module, group: int, channel: int) -> list[tuple[nn.Parameter, Tensor]]:
    """(parameter, mask) of everything that leaves with a channel, index by index."""
    parameters = dict(model.named_parameters())
    found = []
    for member in graph.groups[group].members:
        if member.parameter in parameters:
            mask = torch.zeros_like(parameters[member.parameter], dtype=torch.bool)
            for index in member.indices[channel]:
                mask.select(member.axis, int(index)).fill_(True)
            found.append((parameters[member.parameter], mask))
    return found


@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_is_the_mean_over_all_that_leaves(p: int) -> None:
    graph, model = conv_case()
    scores = Magnitude(p=p)(graph, model)
    for number, group in enumerate(graph.groups):
        for channel in range(group.size):
            values = torch.cat([w.detach()[mask] for w, mask in slices(graph, model, number, channel)])
            expected = values.abs().pow(p).mean() ** (1 / p)
            assert scores[group.name][channel] == pytest.approx(float(expected))


@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_is_the_same_a_few_rows_at_a_time(p: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, model = conv_case()
    whole = Magnitude(p=p)(graph, model)
    monkeypatch.setattr(by_axis, "_ELEMENTS_AT_ONCE", 40)
    for name, scores in Magnitude(p=p)(graph, model).items():
        np.testing.assert_allclose(scores, whole[name], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_of_low_precision_values_are_precise(dtype: torch.dtype) -> None:
    weight = torch.randn(2000, 300).to(dtype)
    sums = by_axis.sums_by_axis(linear_chain((3, 300, 2000)).graph(), {"c1.0.weight": weight}, torch.abs)
    np.testing.assert_allclose(sums["c1.0.weight", 1], weight.double().abs().sum(0), rtol=1e-6)


def first_order(graph: DependencyGraph, model: nn.Module, batch: Tensor) -> dict[str, NDArray[np.float64]]:
    """Change of the loss when a channel's elements shrink by a small fraction, over that fraction."""
    step, changes = 1e-6, {}
    with torch.no_grad():
        for number, group in enumerate(graph.groups):
            values = np.empty(group.size)
            for channel in range(group.size):
                losses = []
                for sign in (1, -1):
                    touched = slices(graph, model, number, channel)
                    kept = [w.clone() for w, _ in touched]
                    for w, mask in touched:
                        w[mask] *= 1 + sign * step
                    losses.append(float(squared(model, batch)))
                    for (w, _), value in zip(touched, kept, strict=True):
                        w.copy_(value)
                values[channel] = (losses[0] - losses[1]) / (2 * step)
            changes[group.name] = values
    return changes


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("criterion", "reduce"), [(Taylor, np.abs), (Fisher, np.square)])
def test_gradient_criteria_are_first_order_changes(criterion: Any, reduce: Any, frozen: bool) -> None:
    graph, model = conv_case()
    model.requires_grad_(not frozen).eval()
    batches = [torch.randn(6, 2, 6, 6, dtype=DOUBLE) for _ in range(3)]
    with torch.no_grad():
        scores = criterion(squared, batches)(graph, model)
    changes = [first_order(graph, model, batch) for batch in batches]
    for name, values in scores.items():
        expected = np.mean([reduce(change[name]) for change in changes], axis=0)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-12)


def test_a_part_the_loss_does_not_reach_scores_zero() -> None:
    graph, model = chain()
    first: Any = model.c0

    def loss(m: Any, x: Tensor) -> Tensor:
        out: Tensor = m.c0[0](x).square().sum()
        return out

    scores = Taylor(loss, [torch.randn(4, 5, dtype=DOUBLE)])(graph, model)
    assert (scores["c1.0"] == 0).all()
    assert (scores["c0.0"] > 0).all()
    assert first[0].weight.grad is None


def test_activation_is_the_mean_square_where_it_is_consumed() -> None:
    graph, model = conv_case()
    model.eval()
    data = [torch.randn(4, 2, 6, 6, dtype=DOUBLE), torch.randn(2, 2, 6, 6, dtype=DOUBLE)]
    scores = Activation(data)(graph, model)
    with torch.no_grad():
        stem = model.norm(model.stem(torch.cat(data))).relu()
        maps = model.grouped(stem)
        flat = model.flat(maps.flatten(1)).relu()
    per_channel = stem.square().mean(dim=(0, 2, 3))
    np.testing.assert_allclose(scores["stem"], per_channel[:4] + per_channel[4:])
    np.testing.assert_allclose(scores["grouped"], maps.square().flatten(2).sum(2).mean(0))
    np.testing.assert_allclose(scores["flat"], flat.square().mean(0))


@pytest.mark.parametrize("criterion", [Activation, Reconstruction])
def test_functions_are_minibatches_like_inputs(criterion: Any) -> None:
    graph, model = conv_case()
    data = [torch.randn(40, 2, 6, 6, dtype=DOUBLE), torch.randn(20, 2, 6, 6, dtype=DOUBLE)]
    expected = criterion(data)(graph, model)
    for calibration in ([lambda m: m(data[0]), lambda m: m(data[1])], [data[0], lambda m: m(data[1])]):
        scores = criterion(calibration)(graph, model)
        for name, values in expected.items():
            np.testing.assert_allclose(scores[name], values)


# --- Reconstruction -----------------------------------------------------------------------------------------------


def refit_cost(features: Tensor, weight: Tensor, removed: NDArray[np.int64], ridge: float, *, bias: bool) -> float:
    """Least squares with the removed features' weights zero, rows and all: what is lost at best."""
    centred = features - features.mean(0) if bias else features
    strength = (ridge * centred.square().sum(0).mean()).sqrt()
    rows = torch.cat([centred, strength * torch.eye(centred.shape[1], dtype=DOUBLE)])
    left = np.setdiff1d(np.arange(rows.shape[1]), removed)
    target = rows @ weight.T
    solution = torch.linalg.lstsq(rows[:, left], target, driver="gelsd").solution
    return float((target - rows[:, left] @ solution).square().sum())


def brute_force_order(
    size: int, cost: Callable[[list[int]], float], block_of: NDArray[np.int64] | None = None
) -> list[int]:
    blocks = np.zeros(size, dtype=np.int64) if block_of is None else block_of
    removed: list[int] = []
    for _ in range(size):
        given = np.bincount(blocks[removed], minlength=int(blocks.max()) + 1)
        turn = [c for c in range(size) if c not in removed and given[blocks[c]] == given.min()]
        removed.append(min(turn, key=lambda c: cost([*removed, c])))
    return removed


def order_of(scores: NDArray[np.float64]) -> list[int]:
    order: list[int] = np.argsort(scores).tolist()
    return order


def test_reconstruction_is_greedy_least_squares() -> None:
    graph, model = chain()
    data = torch.randn(40, 5, dtype=DOUBLE)
    scores = Reconstruction([data[:25], data[25:]], ridge=1e-2)(graph, model)
    hidden = data
    for layer, following in pairwise([model.c0, model.c1, model.c2]):
        first: Any = layer
        second: Any = following
        hidden = first[0](hidden).relu().detach()
        weight = second[0].weight.detach()

        def cost(removed: list[int], hidden: Tensor = hidden, weight: Tensor = weight) -> float:
            return refit_cost(hidden, weight, np.array(removed), 1e-2, bias=True)

        expected = brute_force_order(hidden.shape[1], cost)
        name = "c0.0" if layer is model.c0 else "c1.0"
        assert order_of(scores[name]) == expected
        assert sorted(scores[name]) == pytest.approx(np.arange(1, len(expected) + 1) / len(expected))


def test_reconstruction_of_channels_with_several_features() -> None:
    graph, model = conv_case()
    model.eval()
    data = torch.randn(24, 2, 6, 6, dtype=DOUBLE)
    scores = Reconstruction([data], ridge=1e-2)(graph, model)
    with torch.no_grad():
        stem = model.norm(model.stem(data)).relu()
        maps = model.grouped(stem).flatten(1)
        flat = model.flat(maps).relu()
    windows = stem.unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 2, 4 * 9)
    kernels = model.grouped.weight.detach().reshape(2, 2, 4 * 9)

    def taps(removed: list[int]) -> NDArray[np.int64]:
        return (np.array(removed)[:, None] * 9 + np.arange(9)).ravel()

    def stem_cost(removed: list[int]) -> float:
        halves = ((windows[:, half], kernels[half]) for half in range(2))
        return sum(refit_cost(h, w, taps(removed), 1e-2, bias=False) for h, w in halves)

    def maps_cost(removed: list[int]) -> float:
        pixels = (np.array(removed)[:, None] * 4 + np.arange(4)).ravel()
        return refit_cost(maps, model.flat.weight.detach(), pixels, 1e-2, bias=True)

    # One position and three outputs of the transposed convolution: each tap sees the input at one of them.
    stuffed = torch.zeros(24, 3, 6, 3, dtype=DOUBLE)
    for tap in range(3):
        stuffed[:, tap, :, tap] = flat
    up = model.up.weight.detach().permute(1, 0, 2).reshape(2, -1)

    def flat_cost(removed: list[int]) -> float:
        own = (np.array(removed)[:, None] * 3 + np.arange(3)).ravel()
        return refit_cost(stuffed.reshape(72, 18), up, own, 1e-2, bias=True)

    assert order_of(scores["stem"]) == brute_force_order(4, stem_cost)
    assert order_of(scores["grouped"]) == brute_force_order(4, maps_cost)
    assert order_of(scores["flat"]) == brute_force_order(6, flat_cost, np.array([0, 0, 0, 1, 1, 1]))


class TwoReaders(nn.Module):
    """One group read by two layers, one of which also reads an input that stays; a bare matrix reads the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6 + 2, 3, bias=False)
        self.inner, self.matrix = nn.Linear(4, 5), nn.Parameter(torch.randn(5, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = self.stem(x).relu()
        return self.a(h), self.b(torch.cat([x[:, :2], h], -1)), self.inner(x) @ self.matrix


def two_readers() -> tuple[DependencyGraph, TwoReaders]:
    model = TwoReaders().to(DOUBLE)
    read = {("a.weight", 1): None, ("b.weight", 1): np.arange(2, 8)[:, None]}
    groups = [
        GroupSketch("stem", 6, {("stem.weight", 0): None, ("stem.bias", 0): None, **read}, frozenset(read)),
        GroupSketch(
            "inner",
            5,
            {("inner.weight", 0): None, ("inner.bias", 0): None, ("matrix", 0): None},
            frozenset({("matrix", 0)}),
        ),
    ]
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    return GraphSketch(shapes, groups).graph(), model


def test_reconstruction_sums_over_consumers_and_lets_other_inputs_take_over() -> None:
    graph, model = two_readers()
    data = torch.randn(50, 4, dtype=DOUBLE)
    scores = Reconstruction([data], ridge=1e-3)(graph, model)
    hidden = model.stem(data).relu().detach()
    wide = torch.cat([data[:, :2], hidden], -1)

    def cost(removed: list[int]) -> float:
        own = np.array(removed)
        first = refit_cost(hidden, model.a.weight.detach(), own, 1e-3, bias=True)
        return first + refit_cost(wide, model.b.weight.detach(), own + 2, 1e-3, bias=False)

    assert order_of(scores["stem"]) == brute_force_order(6, cost)


def test_groups_without_a_watchable_consumer_get_magnitudes() -> None:
    graph, model = two_readers()
    data = [torch.randn(50, 4, dtype=DOUBLE)]
    magnitude = Magnitude()(graph, model)["inner"]
    assert order_of(Reconstruction(data)(graph, model)["inner"]) == order_of(magnitude)
    assert np.array_equal(Activation(data)(graph, model)["inner"], magnitude)


@pytest.mark.parametrize("panel", [1, 7, 50, 256])
def test_a_wide_layer_keeps_its_precision(panel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lazy updates over many eliminations agree with eliminating one channel at a time, literally."""
    monkeypatch.setattr("secateur.importance.reconstruction._PANEL", panel)
    rows, weight = torch.randn(400, 120, dtype=DOUBLE), torch.randn(30, 120, dtype=DOUBLE)
    inverse = torch.linalg.inv(rows.T @ rows + torch.eye(120, dtype=DOUBLE)).numpy()
    elimination = Elimination(inverse, (weight.T @ weight).numpy(), 120)
    w, h = weight.numpy().copy(), inverse.copy()
    left = np.ones(120, dtype=bool)
    for _ in range(119):
        costs = np.square(w).sum(0) / np.diag(h)
        np.testing.assert_allclose(elimination.costs()[left], costs[left], rtol=1e-6)
        j = int(np.argmin(np.where(left, costs, np.inf)))
        elimination.remove(j)
        left[j] = False
        w = w - np.outer(w[:, j], h[j]) / h[j, j]
        h = h - np.outer(h[:, j], h[j]) / h[j, j] + np.diag((np.arange(120) == j) * 1.0)


# --- wrong input --------------------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    with pytest.raises(ScoreError, match="norms p=1 and p=2, not p=3"):
        Magnitude(p=3)
    with pytest.raises(CalibrationError, match="ridge above 0, not 0"):
        Reconstruction([], ridge=0)
    with pytest.raises(CalibrationError, match="single Tensor"):
        Activation(torch.ones(2))


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda m, x: m(x), ScoreError, r"must return a scalar tensor, not a tensor of shape \(4, 3\)"),
        (lambda m, x: 1.0, ScoreError, r"must return a scalar tensor, not float"),
        (lambda m, x: m(x).sum().detach(), ScoreError, r"the loss doesn't depend on the model's parameters"),
        (lambda m, x: m(x).sum() * float("nan"), ScoreError, r"aren't finite for 'c0.0', 'c1.0'; look at the loss"),
    ],
)
@pytest.mark.parametrize("criterion", [Taylor, Fisher])
def test_bad_losses(criterion: Any, loss: Any, error: type[Exception], message: str) -> None:
    graph, model = chain()
    model.requires_grad_(False)
    with pytest.raises(error, match=message):
        criterion(loss, [torch.randn(4, 5, dtype=DOUBLE)])(graph, model)
    assert not any(p.requires_grad for p in model.parameters())


def test_no_batches() -> None:
    with pytest.raises(CalibrationError, match="Taylor was given no batches"):
        Taylor(squared, [])(*chain())


def test_weights_that_are_not_finite() -> None:
    graph, model = chain()
    next(model.parameters()).data[0, 0] = float("nan")
    with pytest.raises(ScoreError, match=r"Magnitude gives scores that aren't finite for 'c0\.0'; look at the"):
        Magnitude()(graph, model)


@pytest.mark.parametrize("criterion", [Activation, Reconstruction])
def test_bad_calibration(criterion: Any) -> None:
    graph, model = chain()
    with pytest.raises(CalibrationError, match=r"never reaches 'c1\.0', 'c2\.0'"):
        criterion(lambda m: m.c0[0](torch.ones(2, 5, dtype=DOUBLE)))(graph, model)
    with pytest.raises((CalibrationError, ScoreError), match="finite"):
        criterion([torch.full((20, 5), float("inf"), dtype=DOUBLE)])(graph, model)


def test_few_rows_warn() -> None:
    graph, model = chain()
    with pytest.warns(SecateurWarning, match=r"fewer calibration rows.*c1\.0\.weight \(3 rows, 8 inputs\)"):
        Reconstruction([torch.randn(3, 5, dtype=DOUBLE)])(graph, model)

"""Trace, criteria, plan, surgery and refit together, on models of every kind that refit knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.errors import CalibrationError
from secateur.graph import trace
from secateur.importance import Activation, Criterion, Fisher, Magnitude, Random, Reconstruction, Taylor
from secateur.plan import plan as make_plan
from secateur.recovery import refit_consumers
from secateur.surgery import apply


class UNet(nn.Module):
    """Strided, grouped and transposed convolutions, a skip by concatenation, batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(12, 12, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.out = nn.Conv2d(8 + 6, 2, 1)

    def forward(self, x: Tensor) -> Any:
        skip = self.norm(self.down(x)).relu()
        deep = self.mix(self.deep(skip).relu()).relu()
        return self.out(torch.cat([skip, self.up(deep).relu()], 1))


class Attention(nn.Module):
    """Hand-written attention: the queries and keys meet only each other."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.inner, self.outer = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Any:
        q, k, v = (m(x).unflatten(-1, (2, -1)).transpose(1, 2) for m in (self.q, self.k, self.v))
        h = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return h + self.outer(F.gelu(self.inner(h)))


class Agent(nn.Module):
    """Encoder, dynamics and two heads, exercised by a rollout; there is no ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 16), nn.ELU(), nn.Linear(16, 8))
        self.dynamics = nn.Sequential(nn.Linear(8 + 2, 16), nn.ELU(), nn.Linear(16, 8))
        self.pi = nn.Sequential(nn.Linear(8, 16), nn.ELU(), nn.Linear(16, 2))
        self.q = nn.Sequential(nn.Linear(8 + 2, 16), nn.ELU(), nn.Linear(16, 1))


def rollout(model: Any, observation: Tensor, steps: int = 4) -> Tensor:
    latent, values = model.encoder(observation), []
    for _ in range(steps):
        action = model.pi(latent).tanh()
        values.append(model.q(torch.cat([latent, action], -1)))
        latent = model.dynamics(torch.cat([latent, action], -1))
    return torch.cat(values, -1)


def forward(model: Any, x: Tensor) -> Tensor:
    out: Tensor = model(x)
    return out


Run = Callable[[nn.Module, Tensor], Tensor]
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Run]] = {
    "autoencoder": (
        lambda: nn.Sequential(
            nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 6), nn.ReLU(), nn.Linear(6, 10), nn.Sigmoid()
        ),
        (200, 10),
        forward,
    ),
    "u-net": (UNet, (16, 2, 8, 8), forward),
    "attention": (Attention, (40, 5, 8), forward),
    "agent": (Agent, (200, 4), rollout),
}


def squared_output(model: nn.Module, batch: Any) -> Tensor:
    run, x = batch
    out: Tensor = run(model, x)
    return out.square().mean()


CRITERIA: dict[str, Callable[[Run, Tensor], Criterion]] = {
    "Random": lambda run, x: Random(),
    "Magnitude": lambda run, x: Magnitude(),
    "Taylor": lambda run, x: Taylor(squared_output, [(run, x)]),
    "Fisher": lambda run, x: Fisher(squared_output, [(run, x)]),
    "Activation": lambda run, x: Activation(lambda m: run(m, x)),
    "Reconstruction": lambda run, x: Reconstruction(lambda m: run(m, x)),
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=list(CRITERIA))
@pytest.mark.parametrize(("build", "shape", "run"), MODELS.values(), ids=list(MODELS))
def test_refit_repairs_what_surgery_broke(build: Any, shape: tuple[int, ...], run: Run, criterion: Any) -> None:
    model = build().double().eval()
    x, unseen = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    graph = trace(model, run=lambda m: run(m, x[:2]))
    scores = criterion(run, x)(graph, model)
    assert all(np.isfinite(scores[g.name]).all() and scores[g.name].shape == (g.size,) for g in graph.groups)
    plan = make_plan(graph, scores, 0.25)
    small = apply(model, plan)

    def error() -> float:
        with torch.no_grad():
            return float((run(small, unseen) - run(model, unseen)).square().mean())

    broken = error()
    report = refit_consumers(small, model, plan, lambda m: run(m, x))
    assert error() < 0.9 * broken
    assert report.skipped == ()
    assert {c.parameter for c in report.refitted} == {c.parameter for c in plan.consumers}
    assert all(c.error_after <= c.error_before for c in report.refitted)


def test_tied_decoder_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.inner, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Any:
            h = self.inner(self.encoder(x).relu()).relu()
            return self.last(F.linear(h, self.encoder.weight.T))

    model = Tied().double()
    x = torch.randn(50, 6, dtype=torch.float64)
    graph = trace(model, x)
    plan = make_plan(graph, Magnitude()(graph, model), 0.5)
    small = apply(model, plan)
    before = small.encoder.weight.detach().clone()
    report = refit_consumers(small, model, plan, [x])
    assert torch.equal(small.encoder.weight, before)
    assert [s.parameter for s in report.skipped] == ["encoder.weight"]
    assert "inner.weight" in [c.parameter for c in report.refitted]


def test_a_component_that_calibration_forgets() -> None:
    model: Any = Agent().double()
    x = torch.randn(50, 4, dtype=torch.float64)
    graph = trace(model, run=lambda m: rollout(m, x))
    plan = make_plan(graph, Magnitude()(graph, model), 0.5)

    def acts_only(m: Any) -> None:
        m.pi(m.encoder(x))

    small = apply(model, plan)
    with pytest.raises(CalibrationError, match=r"calibration never reaches .*'dynamics\.0', 'dynamics\.2'"):
        refit_consumers(small, model, plan, acts_only)

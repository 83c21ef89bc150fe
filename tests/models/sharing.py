"""Models whose parameters are not simply one layer's: tied, shared, bare, stacked, low-rank, frozen; and buffers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case
from tests.models.vectors import Mlp, vector, vectors


class SharedModule(nn.Module):
    """One weight in two layers with biases of their own: ``second.weight is first.weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(6, 10)
        self.first = nn.Linear(10, 10)
        self.second = nn.Linear(10, 10)
        self.second.weight = self.first.weight
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.sigmoid(self.second(torch.sigmoid(self.first(torch.sigmoid(self.enc(x)))))))


class SharedRows(nn.Module):
    """Two layers that read different inputs with one weight."""

    def __init__(self, *, storage: bool) -> None:
        super().__init__()
        self.left = nn.Linear(6, 10)
        self.right = nn.Linear(6, 10)
        self.right.weight = nn.Parameter(self.left.weight.data) if storage else self.left.weight
        self.head = nn.Linear(10, 3)
        self.other = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.head(torch.sigmoid(self.left(x))) * self.other(torch.sigmoid(self.right(y)))


class SharedBias(nn.Module):
    """Two layers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 8)
        self.right = nn.Linear(6, 8)
        self.right.bias = self.left.bias
        self.head = nn.Linear(8, 3)
        self.other = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.head(torch.sigmoid(self.left(x))) + self.other(torch.cos(self.right(y)))


class OddParameters(nn.Module):
    """A single number, an empty parameter, whole numbers, and a buffer that isn't saved."""

    passing: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(6, 8)
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.empty = nn.Parameter(torch.zeros(0, 3))
        self.ranks = nn.Parameter(torch.arange(8), requires_grad=False)
        self.register_buffer("passing", torch.rand(8), persistent=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.cos(self.enc(x) * self.temperature + self.ranks * self.passing))


class TransposedTie(nn.Module):
    """An autoencoder whose decoder uses the encoder's weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(8, 12)
        self.code = nn.Linear(12, 6)
        self.bias = nn.Parameter(torch.zeros(8))

    def forward(self, x: torch.Tensor) -> Any:
        code = torch.sigmoid(self.code(torch.sigmoid(self.enc(x))))
        hidden = torch.sigmoid(F.linear(code, self.code.weight.T))
        return F.linear(hidden, self.enc.weight.T, self.bias)


class ChannelBuffers(nn.Module):
    """Per-channel constants that are not parameters."""

    scale: torch.Tensor
    shift: torch.Tensor
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(6, 10)
        self.register_buffer("scale", torch.rand(10) + 0.5)
        self.register_buffer("shift", torch.randn(1, 10))
        self.register_buffer("mask", torch.rand(10) > 0.3)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = (self.enc(x) - self.shift) / self.scale
        return self.head(torch.where(self.mask, torch.cos(h), h))


class Ensemble(nn.Module):
    """Several critics in one: weights of shape (members, in, out)."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.enc = nn.Linear(5, 7)
        self.w1 = nn.Parameter(torch.randn(4, 7, 9))
        self.b1 = nn.Parameter(torch.randn(4, 1, 9))
        self.w2 = nn.Parameter(torch.randn(4, 9, 2))
        self.b2 = nn.Parameter(torch.randn(4, 1, 2))
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.sigmoid(self.enc(x))
        if self.how == "einsum":
            h = torch.sigmoid(torch.einsum("bi,eio->ebo", h, self.w1) + self.b1)
            return torch.einsum("ebi,eio->ebo", h, self.w2) + self.b2
        if self.how == "baddbmm":
            h = torch.sigmoid(torch.baddbmm(self.b1, h.expand(4, -1, -1), self.w1))
            return torch.baddbmm(self.b2, h, self.w2)
        one = torch.vmap(lambda a, b, c, d: torch.sigmoid(h @ a + b) @ c + d)
        return one(self.w1, self.b1, self.w2, self.b2)


class SummedEnsemble(nn.Module):
    """The members' outputs are added, so that a whole member can leave."""

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(6, 5, 8))
        self.w2 = nn.Parameter(torch.randn(6, 8, 2))

    def forward(self, x: torch.Tensor) -> Any:
        h = (x[None, :, :, None] * self.w1[:, None]).sum(2).tanh()
        return (h.unsqueeze(-1) * self.w2[:, None]).sum((0, 2))


class Bare(nn.Module):
    """No layer at all: parameters, lists and dictionaries of them."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 10))
        self.b = nn.Parameter(torch.zeros(10))
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.steps = nn.ParameterList([nn.Parameter(torch.randn(10, 10)) for _ in range(2)])
        self.out = nn.ParameterDict({"w": nn.Parameter(torch.randn(3, 10)), "b": nn.Parameter(torch.zeros(3))})

    def forward(self, x: torch.Tensor) -> Any:
        h = self.gain * torch.cos(x @ self.w + self.b)
        for step in self.steps:
            h = h + torch.cos(torch.matmul(h, step))
        return torch.addmm(self.out["b"], h, self.out["w"].t())


class LowRank(nn.Module):
    """A weight that is a product of two: the rank can shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(10, 4))
        self.v = nn.Parameter(torch.randn(4, 6))
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.cos(F.linear(x, self.u @ self.v)))


class Frozen(nn.Module):
    """A frozen body under a trained head, run without gradients, as fine-tuning does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Mlp(5, 9, 8, act=nn.SiLU).requires_grad_(False)
        self.head = Mlp(8, 7, 2, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> Any:
        with torch.no_grad():
            h = torch.cos(self.body(x))
        return self.head(h.detach())


class WeightNormed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.utils.parametrizations.weight_norm(nn.Linear(5, 9)),
            nn.SiLU(),
            nn.utils.parametrizations.weight_norm(nn.Linear(9, 8)),
            nn.SiLU(),
            nn.Linear(8, 3),
        )


CASES = [
    Case("tied-layers", SharedModule, vector(4, 6), {"enc": 10}),
    Case("tied-rows", lambda: SharedRows(storage=False), vectors((4, 6), (4, 6)), {"left": 10}),
    Case("tied-storage", lambda: SharedRows(storage=True), vectors((4, 6), (4, 6)), {"left": 10}),
    Case("tied-bias", SharedBias, vectors((4, 6), (4, 6)), {"left": 8}),
    Case("odd-parameters", OddParameters, vector(4, 6), {"ranks": 8}),
    Case("tied-transposed", TransposedTie, vector(4, 8), {"enc": 12, "code": 6}),
    Case("channel-buffers", ChannelBuffers, vector(4, 6), {"enc": 10}),
    Case("ensemble-einsum", lambda: Ensemble("einsum"), vector(3, 5), {"enc": 7, "w1": 9}),
    Case("ensemble-baddbmm", lambda: Ensemble("baddbmm"), vector(3, 5), {"enc": 7, "w1": 9}),
    Case("ensemble-vmap", lambda: Ensemble("vmap"), vector(3, 5), {"enc": 7, "w1": 9}),
    Case("ensemble-summed", SummedEnsemble, vector(3, 5), {"w1": 6, "w1#2": 8}, mask="all"),
    Case("bare-parameters", Bare, vector(4, 6), {"w": 10}),
    Case("low-rank", LowRank, vector(4, 6), {"u": 10, "u#2": 4}),
    Case("frozen-body", Frozen, vector(4, 5), {"body.0": 9, "body.2": 8, "head.0": 7}),
    Case("weight-norm", WeightNormed, vector(4, 5), {"0": 9, "2": 8}, mixing={"0": "weight norm"}),
]

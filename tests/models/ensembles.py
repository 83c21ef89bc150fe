"""Ensembles: many members' parameters in one tensor, called by vmap, einsum or batched products."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state

from tests.models.case import Case
from tests.models.habits import ENC, TOKENS, habit, tensors
from tests.models.vectors import vector


class Stacked(nn.Module):
    """Members of one architecture, their parameters stacked, called by vmap through one of them without values.

    That one is in a list, so that its parameters, on the meta device, are none of the model's.
    """

    def __init__(self, members: list[nn.Module], *, in_dims: tuple[Any, ...] = (0, 0, None)) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(members)
        self.parameters_of = nn.ParameterDict({n.replace(".", "/"): nn.Parameter(p) for n, p in parameters.items()})
        for name, value in buffers.items():
            self.register_buffer(name.replace(".", "/"), value)
        self.buffer_names = list(buffers)
        self.base = [copy.deepcopy(members[0]).to("meta")]
        self.in_dims = in_dims

    def forward(self, x: torch.Tensor) -> Any:
        parameters = {name.replace("/", "."): p for name, p in self.parameters_of.items()}
        buffers = {name: self.get_buffer(name.replace(".", "/")) for name in self.buffer_names}

        def one(parameters: Any, buffers: Any, x: torch.Tensor) -> torch.Tensor:
            called: torch.Tensor = functional_call(self.base[0], (parameters, buffers), (x,))
            return called

        return torch.vmap(one, in_dims=self.in_dims, randomness="different")(parameters, buffers, x)


def critic(*, norm: bool = False) -> nn.Module:
    layer = [nn.LayerNorm(9)] if norm else []
    return nn.Sequential(nn.Linear(6, 9), *layer, nn.Mish(), nn.Linear(9, 8), nn.Mish(), nn.Linear(8, 2))


class Head(nn.Module):
    """A member whose forward reads sizes: three pieces of four channels."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.up = nn.Linear(6, 12)
        self.scale = nn.Parameter(torch.randn(12))
        self.down = nn.Linear(12, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.up(x))
        if self.how == "-1":
            h = h.view(*h.shape[:-1], 3, -1).roll(1, -2).flatten(-2)
        elif self.how == "numbers":
            h = h.view(*h.shape[:-1], 3, 4).roll(1, -2).flatten(-2)
        elif self.how == "shapes":
            h = h.view(*h.shape[:-1], 3, h.shape[-1] // 3).roll(1, -2).reshape(h.shape)
        elif self.how == "cut":
            h = torch.cat([h[..., :4], torch.sin(h[..., 4:])], -1)
        elif self.how == "halves":
            half = h.shape[-1] // 2
            h = torch.cat([h[..., half:], h[..., :half].sin()], -1)
        elif self.how == "chunk":
            a, b = h.chunk(2, -1)
            h = torch.cat([b, a.sin()], -1)
        elif self.how == "asserts":
            assert h.shape[-1] == 12
        elif self.how == "zeros":
            h = h + torch.zeros(12, dtype=h.dtype)
        elif self.how == "width":
            h = h / h.shape[-1] ** 0.5
        return self.down(h * self.scale)


class DeepEnsemble(nn.Module):
    """Probabilistic dynamics models as in PETS: batched layers, mean and bounded log-variance in one output."""

    def __init__(self) -> None:
        super().__init__()
        self.members = 3
        self.w0, self.w1, self.w2 = (nn.Parameter(torch.randn(3, *sizes)) for sizes in ((6, 10), (10, 9), (9, 8)))
        self.b0, self.b1, self.b2 = (nn.Parameter(torch.randn(3, 1, width)) for width in (10, 9, 8))
        self.lowest, self.highest = nn.Parameter(torch.full((1, 4), -3.0)), nn.Parameter(torch.full((1, 4), 0.5))

    def forward(self, x: torch.Tensor) -> Any:
        h = x.unsqueeze(0).repeat(3, 1, 1)
        h = F.silu(h.matmul(self.w0) + self.b0)
        h = F.silu(h.bmm(self.w1) + self.b1)
        mean, log_var = (h @ self.w2 + self.b2).chunk(2, -1)
        log_var = self.highest - F.softplus(self.highest - log_var)
        return mean, (self.lowest + F.softplus(log_var - self.lowest)).exp()


class BatchEnsemble(nn.Module):
    """One shared weight, and for each member a sign per input and per output."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(5, 7)
        self.shared = nn.Linear(7, 9, bias=False)
        self.r, self.s = nn.Parameter(torch.randn(4, 7)), nn.Parameter(torch.randn(4, 9))
        self.bias = nn.Parameter(torch.randn(4, 9))
        self.head = nn.Linear(9, 2)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.enc(x)).repeat(4, 1, 1) * self.r[:, None]
        return self.head(torch.cos(self.shared(h) * self.s[:, None] + self.bias.unsqueeze(1))).mean(0)


class GroupedMembers(nn.Module):
    """Members as the groups of a convolution over one long axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(12, 27, 1, groups=3)
        self.second = nn.Conv1d(27, 6, 1, groups=3)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.first(x.repeat(1, 3).unsqueeze(-1)))
        return self.second(h).view(len(x), 3, 2).amin(1)


class Twins(nn.Module):
    """Two critics in a list, the smaller of which counts, beside slowly following targets of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList([critic(), critic()])
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> Any:
        values = torch.stack([c(x) for c in self.critics]).amin(0)
        with torch.no_grad():
            targets = torch.stack([c(x) for c in self.targets]).amin(0)
        return values, targets


def per_sample(m: Any, x: torch.Tensor) -> Any:
    """vmap over the batch instead of over members."""
    first, second = m.inner
    return torch.vmap(lambda row: second(torch.cos(first(row))))(x)


def along_other_axes(m: Any, x: torch.Tensor) -> Any:
    """Members on the last axis of one tensor and in the middle of another."""
    h = torch.vmap(lambda w, b: torch.cos(F.linear(x, w, b)), in_dims=(2, 1), out_dims=1)(m.first, m.bias)
    return torch.vmap(lambda h, w: h @ w, in_dims=(1, 1), out_dims=2)(h, m.second)


def nested_vmap(m: Any, x: torch.Tensor) -> Any:
    inner = torch.vmap(lambda row, w: torch.cos(row @ w), in_dims=(0, None))
    h = torch.vmap(inner, in_dims=(None, 0))(x, m.first)
    return torch.einsum("mbh,mho->mbo", h, m.second)


def chosen_members(m: Any, x: torch.Tensor) -> Any:
    """Two members drawn by number, as TD-MPC2 does with its value functions."""
    h = torch.cos(torch.einsum("bi,mih->mbh", x, m.first))
    values = torch.einsum("mbh,mho->mbo", h, m.second)
    return values[torch.tensor([2, 0])].mean(0)


def members_in_turn(m: Any, x: torch.Tensor) -> Any:
    return torch.stack([torch.cos(x @ w) @ v for w, v in zip(m.first, m.second, strict=True)])


def einsum_of_three(m: Any, x: torch.Tensor) -> Any:
    h = torch.einsum("bi,mih,h->mbh", x, m.first, m.gain)
    return torch.einsum("mbh,mho->bmo", torch.cos(h), m.second)


def einsum_with_ellipsis(m: Any, x: torch.Tensor) -> Any:
    h = torch.cos(torch.einsum("...i,mih->m...h", x, m.first))
    return torch.einsum("m...h,mho->...mo", h, m.second)


def einsum_of_halves(m: Any, x: torch.Tensor) -> Any:
    """Two-dimensional heads contracted at once, as in big-vision's attention."""
    h = torch.cos(torch.einsum("btd,dhk->bthk", x, m.first))
    return torch.einsum("bthk,hko->bto", h, m.second)


def jacobian(m: Any, x: torch.Tensor) -> Any:
    """The derivative of a network's output, a sum over its hidden channels."""
    first, second = m.inner
    return torch.vmap(torch.func.jacrev(lambda row: second(torch.tanh(first(row)))))(x)


def members(build: Callable[[], nn.Module], **options: Any) -> Callable[[], nn.Module]:
    return lambda: Stacked([build() for _ in range(3)], **options)


WEIGHTS = tensors(first=(3, 6, 9), second=(3, 9, 2))
STACK = {"parameters_of": 9, "parameters_of#2": 8}
OUT = "parameters_of"


def head(how: str, groups: dict[str, int], **expected: Any) -> Case:
    """Members that read sizes, stacked."""
    return Case(f"stacked-head-{how}", members(lambda: Head(how)), vector(4, 6), groups, **expected)


CASES: list[Case] = [
    Case("stacked-vmap", members(critic), vector(4, 6), STACK),
    Case(
        "stacked-vmap-normed",
        members(lambda: critic(norm=True)),
        vector(4, 6),
        STACK,
        mixing={OUT: "layer_norm"},
    ),
    Case("stacked-vmap-own-inputs", members(critic, in_dims=(0, 0, 0)), vector(3, 4, 6), STACK),
    Case(
        "stacked-batch-norm",
        members(lambda: nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.SiLU(), nn.Linear(9, 2))),
        vector(4, 6),
        {},  # under vmap, torch adds a weight of ones, whose width is a number
    ),
    Case(
        "stacked-convolutions",
        members(lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.SiLU(), nn.Conv2d(6, 2, 1))),
        vector(2, 2, 5, 5),
        {OUT: 6},
    ),
    head("-1", {OUT: 12}, blocks={OUT: 3}),
    head("shapes", {OUT: 12}, blocks={OUT: 3}),
    head("numbers", {}),
    head("cut", {OUT: 8}),
    head("halves", {OUT: 12}, blocks={OUT: 2}),
    head("chunk", {OUT: 12}, blocks={OUT: 2}),
    head("asserts", {}),
    head("zeros", {}),
    head("width", {OUT: 12}, mixing={OUT: "width used"}),
    Case("deep-ensemble", DeepEnsemble, vector(4, 6), {"w0": 10, "w1": 9}),
    Case("batch-ensemble", BatchEnsemble, vector(4, 5), {"r": 7, "s": 9}),
    Case("grouped-members", GroupedMembers, vector(4, 4), {"first": 9}),
    Case(
        "twins",
        Twins,
        vector(4, 6),
        {
            f"{name}.{member}.{layer}": width
            for name in ("critics", "targets")
            for member in (0, 1)
            for layer, width in ((0, 9), (2, 8))
        },
    ),
    habit("vmap-per-sample", per_sample, lambda: [nn.Linear(6, 9), nn.Linear(9, 2)], {ENC: 9}),
    habit(
        "vmap-other-axes",
        along_other_axes,
        list,
        {"first": 9},
        tensors=tensors(first=(9, 6, 3), bias=(9, 3), second=(9, 3, 2)),
    ),
    habit("vmap-nested", nested_vmap, list, {"first": 9}, tensors=WEIGHTS),
    habit("chosen-members", chosen_members, list, {"first": 9}, tensors=WEIGHTS),
    habit("members-in-turn", members_in_turn, list, {"first": 9}, tensors=WEIGHTS),
    habit(
        "einsum-of-three",
        einsum_of_three,
        list,
        {"first": 9},
        tensors=tensors(first=(3, 6, 9), gain=(9,), second=(3, 9, 2)),
    ),
    habit("einsum-with-ellipsis", einsum_with_ellipsis, list, {"first": 9}, shape=TOKENS, tensors=WEIGHTS),
    habit(
        "einsum-of-halves",
        einsum_of_halves,
        list,
        {"first": 4},
        shape=TOKENS,
        tensors=tensors(first=(6, 3, 4), second=(3, 4, 2)),
    ),
    # Torch's own counter can't count a run that takes derivatives of its own.
    habit("jacobian", jacobian, lambda: [nn.Linear(6, 9), nn.Linear(9, 2)], {ENC: 9}, counted=False),
]

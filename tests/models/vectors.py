"""Models of vectors: perceptrons, gates, slices, shared weights, bare parameters, structured outputs."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case


class Mlp(nn.Sequential):
    def __init__(self, *widths: int, act: type[nn.Module] = nn.ReLU, norm: type[nn.Module] | None = None) -> None:
        layers: list[nn.Module] = []
        for before, after in pairwise(widths[:-1]):
            layers += [nn.Linear(before, after), *([norm(after)] if norm else []), act()]
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1]))


class Vae(nn.Module):
    """The latent's mean and log-variance come from one head, cut in two."""

    def __init__(self, *, sample: bool) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(10, 14), nn.ELU(), nn.Linear(14, 12))
        self.dec = nn.Sequential(nn.Linear(6, 14), nn.ELU(), nn.Linear(14, 10))
        self.sample = sample

    def forward(self, x: torch.Tensor) -> Any:
        mean, log_var = self.enc(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp() if self.sample else mean
        divergence = (mean.pow(2) + log_var.exp() - log_var).sum(1)
        return (self.dec(z), divergence) if self.sample else self.dec(z)


class SwiGlu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.gate = nn.Linear(8, 16)
        self.up = nn.Linear(8, 16, bias=False)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.embed(x)
        return self.head(h + self.down(F.silu(self.gate(h)) * self.up(h)))


class Film(nn.Module):
    """A condition scales and shifts the hidden channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 10)
        self.film = nn.Linear(4, 20)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> Any:
        scale, shift = self.film(condition).chunk(2, -1)
        return self.head(F.softplus(self.body(x) * (1 + scale) + shift))


class Slices(nn.Module):
    """Two heads read two slices of one hidden layer, cut by a number or by a share of its width."""

    def __init__(self, *, number: bool) -> None:
        super().__init__()
        self.enc = nn.Linear(6, 24)
        self.low = nn.Linear(16 if number else 12, 3)
        self.high = nn.Linear(8 if number else 12, 3)
        self.number = number

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.tanh(self.enc(x))
        cut = 16 if self.number else h.shape[1] // 2
        return self.low(h[:, :cut]) + self.high(h[:, cut:])


class Mirrored(nn.Module):
    """Channels meet their mirror images."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(6, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.sigmoid(self.enc(x))
        return self.head(h + torch.flip(h, dims=(1,)))


class Reordered(nn.Module):
    """Channels are flipped or rolled on their way to the next layer, but never meet each other."""

    def __init__(self, *, roll: int | None = None) -> None:
        super().__init__()
        self.enc = nn.Linear(6, 12)
        self.head = nn.Linear(12, 3)
        self.roll = roll

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.sigmoid(self.enc(x))
        return self.head(h.flip(1) if self.roll is None else torch.roll(h, self.roll, dims=1))


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


class Generator(nn.Module):
    """Feeds its own most likely token back, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.cell = nn.GRUCell(8, 7)
        self.head = nn.Linear(7, 9)

    def forward(self, tokens: torch.Tensor) -> Any:
        state, outputs = None, []
        for _ in range(4):
            state = self.cell(self.embed(tokens), state)
            outputs.append(self.head(state))
            tokens = outputs[-1].argmax(-1)
        return torch.stack(outputs)


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


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 8)
        self.right = nn.Linear(4, 6)
        self.mix = nn.Bilinear(8, 6, 7)
        self.head = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.head(torch.cos(self.mix(torch.cos(self.left(x)), torch.cos(self.right(y)))))


class OuterProduct(nn.Module):
    """Two tracked axes merged into one: the longer one can shrink, the other stays."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 8)
        self.right = nn.Linear(5, 4)
        self.head = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> Any:
        product = torch.cos(self.left(x))[:, :, None] * torch.cos(self.right(x))[:, None, :]
        return self.head(product.flatten(1))


class Joined(nn.Module):
    """Concatenations of concatenations, with the input and a hidden layer twice; and a stack."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 6)
        self.b = nn.Linear(5, 7)
        self.c = nn.Linear(5 + 6 + 7 + 6, 8)
        self.d = nn.Linear(8, 8)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> Any:
        a, b = torch.cos(self.a(x)), torch.cos(self.b(x))
        c = torch.cos(self.c(torch.cat([torch.cat([x, a], 1), b, a], dim=-1)))
        both = torch.stack([c, torch.cos(self.d(c))], dim=1)
        return self.head(both.transpose(1, 2).flatten(1))


class InPlace(nn.Module):
    """A hidden state assembled by writing into views of an empty tensor."""

    def __init__(self, *, number: bool) -> None:
        super().__init__()
        self.a = nn.Linear(5, 8)
        self.b = nn.Linear(5, 8)
        self.c = nn.Linear(5, 16)
        self.head = nn.Linear(16, 3)
        self.number = number

    def forward(self, x: torch.Tensor) -> Any:
        c = self.c(x)
        a = self.a(x)
        out = c.new_zeros(c.shape)
        cut = 8 if self.number else a.shape[1]
        out[:, :cut] = a
        out[:, cut:] += self.b(x)
        out.add_(c).cos_()
        return self.head(out)


class Rows(nn.Module):
    """Some rows of a batch are written in place, with a mask and with an index."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 8)
        self.b = nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.a(x))
        h[x[:, 0] > 0] = torch.cos(self.b(x[x[:, 0] > 0]))
        h[1] = h[0] * 2
        return self.head(h.masked_fill(x[:, :1] > 1, 0.25))


class Maxout(nn.Module):
    """The largest of three pieces of every unit."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(5, 24)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.enc(x).unflatten(-1, (-1, 3)).amax(-1))


class Normalised(nn.Module):
    """A hidden layer under a norm, hand-written or not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.enc = nn.Linear(5, 12)
        self.norm = {"layer": nn.LayerNorm(12), "rms": nn.RMSNorm(12), "group": nn.GroupNorm(3, 12)}.get(how)
        if self.norm is None:
            self.gain = nn.Parameter(torch.ones(12))
        self.head = nn.Linear(12, 3)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        h = self.enc(x)
        if self.norm is not None:
            h = self.norm(h)
        elif self.how == "by hand":
            h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gain
        elif self.how == "unit length":
            h = F.normalize(h, dim=-1) * self.gain
        elif self.how == "softmax":
            h = h.softmax(-1) * self.gain
        elif self.how == "scaled":
            h = h * self.gain / h.shape[-1] ** 0.5
        return self.head(torch.cos(h))


class Similarity(nn.Module):
    """Two towers, contracted with each other: no parameter consumes the last hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 8))
        self.right = nn.Linear(4, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        left, right = self.left(x).tanh(), self.right(y).tanh()
        return left @ right.T, torch.einsum("bd,bd->b", left, right), (left * right).sum(-1)


class Experts(nn.Module):
    """A soft mixture of experts: the gate's outputs are paired with the experts, so that they stay."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(5, 8)
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList([Mlp(8, 6, 8, act=nn.SiLU) for _ in range(3)])
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.enc(x))
        outputs = torch.stack([expert(h) for expert in self.experts], dim=1)
        gates = self.gate(h).softmax(-1)
        return self.head(h + (gates.unsqueeze(-1) * outputs).sum(1))


@dataclass
class Prediction:
    value: torch.Tensor
    hidden: dict[str, torch.Tensor]


class Pair(NamedTuple):
    value: torch.Tensor
    hidden: torch.Tensor


Legacy = namedtuple("Legacy", ["value", "hidden"])  # the untyped kind is what older code returns


class Structured(nn.Module):
    """Two outputs in a container: the second hidden layer is one of them, so that it stays."""

    def __init__(self, container: Any) -> None:
        super().__init__()
        self.enc = Mlp(5, 9, 8, act=nn.SiLU)
        self.value = Mlp(8, 7, 1, act=nn.SiLU)
        self.container = container

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.enc(x)
        return self.container(self.value(torch.cos(hidden)), hidden)


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


def vector(*shape: int) -> Any:
    return lambda: torch.randn(shape)


def vectors(*shapes: tuple[int, ...]) -> Any:
    return lambda: tuple(torch.randn(shape) for shape in shapes)


CASES = [
    Case("mlp", lambda: Mlp(6, 10, 8, 3), vector(4, 6), {"0": 10, "2": 8}),
    Case("mlp-sigmoid", lambda: Mlp(6, 10, 8, 3, act=nn.Sigmoid), vector(4, 6), {"0": 10, "2": 8}),
    Case(
        "mlp-batch-norm",
        lambda: Mlp(6, 10, 8, 3, act=nn.Hardswish, norm=nn.BatchNorm1d),
        vector(4, 6),
        {"0": 10, "3": 8},
    ),
    Case(
        "mlp-prelu",
        lambda: nn.Sequential(nn.Linear(6, 10), nn.PReLU(10), nn.Dropout(), nn.Linear(10, 3)),
        vector(4, 6),
        {"0": 10},
    ),
    Case("mlp-unbatched", lambda: Mlp(6, 10, 8, 3), vector(6), {"0": 10, "2": 8}, counted=False),
    Case("mlp-tokens", lambda: Mlp(6, 10, 8, 3), vector(2, 5, 6), {"0": 10, "2": 8}),
    Case("vae-mean", lambda: Vae(sample=False), vector(4, 10), {"enc.0": 14, "enc.2": 6, "dec.0": 14}),
    Case(
        "vae-sample",
        lambda: Vae(sample=True),
        vector(4, 10),
        {"enc.0": 14, "enc.2": 6, "dec.0": 14},
        keep=frozenset({"enc.2"}),  # a narrower latent draws other random numbers
    ),
    Case("glu", lambda: nn.Sequential(nn.Linear(5, 24), nn.GLU(), nn.Linear(12, 3)), vector(4, 5), {"0": 12}),
    Case("swiglu", SwiGlu, vector(4, 5), {"embed": 8, "gate": 16}),
    Case("film", Film, vectors((4, 6), (4, 4)), {"body": 10}),
    Case("slices-by-number", lambda: Slices(number=True), vector(4, 6), {"enc": 8}),
    Case(
        "slices-by-share",
        lambda: Slices(number=False),
        vector(4, 6),
        {"enc": 12, "enc#2": 12},
        ties=(frozenset({"enc", "enc#2"}),),
    ),
    Case("flip-meets-itself", Mirrored, vector(4, 6), {"enc": 6}),
    Case("flip", Reordered, vector(4, 6), {"enc": 12}),
    Case("roll", lambda: Reordered(roll=3), vector(4, 6), {"enc": 9}),
    Case("roll-back", lambda: Reordered(roll=-2), vector(4, 6), {"enc": 10}),
    Case("tied-layers", SharedModule, vector(4, 6), {"enc": 10}),
    Case("tied-rows", lambda: SharedRows(storage=False), vectors((4, 6), (4, 6)), {"left": 10}),
    Case("tied-storage", lambda: SharedRows(storage=True), vectors((4, 6), (4, 6)), {"left": 10}),
    Case("tied-bias", SharedBias, vectors((4, 6), (4, 6)), {"left": 8}),
    Case("odd-parameters", OddParameters, vector(4, 6), {"ranks": 8}),
    Case("generator", Generator, lambda: torch.tensor([1, 4]), {"embed": 8, "cell": 7}),
    Case("tied-transposed", TransposedTie, vector(4, 8), {"enc": 12, "code": 6}),
    Case("channel-buffers", ChannelBuffers, vector(4, 6), {"enc": 10}),
    Case("ensemble-einsum", lambda: Ensemble("einsum"), vector(3, 5), {"enc": 7, "w1": 9}),
    Case("ensemble-baddbmm", lambda: Ensemble("baddbmm"), vector(3, 5), {"enc": 7, "w1": 9}),
    Case("ensemble-vmap", lambda: Ensemble("vmap"), vector(3, 5), {"enc": 7, "w1": 9}),
    Case("ensemble-summed", SummedEnsemble, vector(3, 5), {"w1": 6, "w1#2": 8}, mask="all"),
    Case("bare-parameters", Bare, vector(4, 6), {"w": 10}),
    Case("low-rank", LowRank, vector(4, 6), {"u": 10, "u#2": 4}),
    Case("bilinear", TwoInputs, vectors((4, 5), (4, 4)), {"left": 8, "right": 6, "mix": 7}, counted=False),
    Case("outer-product", OuterProduct, vector(4, 5), {"left": 8}),
    Case("joined", Joined, vector(4, 5), {"a": 6, "b": 7, "c": 8}),
    Case("in-place-by-number", lambda: InPlace(number=True), vector(4, 5), {"b": 8}),
    Case("in-place-by-share", lambda: InPlace(number=False), vector(4, 5), {"a": 8, "b": 8}),
    Case("in-place-rows", Rows, vector(4, 5), {"a": 8}),
    Case("maxout", Maxout, vector(4, 5), {"enc": 8}),
    Case("layer-norm", lambda: Normalised("layer"), vector(4, 5), {"enc": 12}, mixing={"enc": "layer_norm"}),
    Case("rms-norm", lambda: Normalised("rms"), vector(4, 5), {"enc": 12}, mixing={"enc": "mean"}),
    Case("rms-norm-by-hand", lambda: Normalised("by hand"), vector(4, 5), {"gain": 12}, mixing={"gain": "mean"}),
    Case(
        "group-norm",
        lambda: Normalised("group"),
        vector(4, 5),
        {"enc": 12},
        blocks={"enc": 3},
        mixing={"enc": "GroupNorm"},
    ),
    Case("unit-length", lambda: Normalised("unit length"), vector(4, 5), {"gain": 12}, mask="all"),
    Case("softmax-channels", lambda: Normalised("softmax"), vector(4, 5), {"gain": 12}, mixing={"gain": "softmax"}),
    Case("width-as-number", lambda: Normalised("scaled"), vector(4, 5), {"gain": 12}, mixing={"gain": "width used"}),
    Case("similarity", Similarity, vectors((4, 5), (4, 4)), {"left.0": 9, "left.2": 8}),
    Case("experts", Experts, vector(4, 5), {"enc": 8, "experts.0.0": 6, "experts.1.0": 6, "experts.2.0": 6}),
    Case(
        "output-dict",
        lambda: Structured(lambda v, h: {"value": v, "aux": [h]}),
        vector(4, 5),
        {"enc.0": 9, "value.0": 7},
    ),
    Case(
        "output-dataclass",
        lambda: Structured(lambda v, h: Prediction(v, {"h": h})),
        vector(4, 5),
        {"enc.0": 9, "value.0": 7},
    ),
    Case("output-named-tuple", lambda: Structured(Pair), vector(4, 5), {"enc.0": 9, "value.0": 7}),
    Case("output-legacy-tuple", lambda: Structured(Legacy), vector(4, 5), {"enc.0": 9, "value.0": 7}),
    Case("frozen-body", Frozen, vector(4, 5), {"body.0": 9, "body.2": 8, "head.0": 7}),
    Case("weight-norm", WeightNormed, vector(4, 5), {"0": 9, "2": 8}, mixing={"0": "weight norm"}),
]

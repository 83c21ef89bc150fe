"""Models of vectors: perceptrons, gates, slices, norms, joined and written tensors, structured outputs."""

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
    Case("generator", Generator, lambda: torch.tensor([1, 4]), {"embed": 8, "cell": 7}),
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
]

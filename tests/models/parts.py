"""Networks put together from parts drawn at random: every part works on any width, and says which width it gives.

A part is plain data (a name, a number, parts inside it), so that a failing network prints as what it is. Networks work
on vectors (batch, channels), token sequences (batch, tokens, channels) or maps (batch, channels, height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

from tests.models.case import Step

KINDS = ("vector", "tokens", "map")
SHAPES = {"vector": (3, 5), "tokens": (2, 4, 5), "map": (2, 5, 4, 4)}


@dataclass(frozen=True)
class Part:
    """A part's name, its number (read modulo what it needs) and the sequences of parts inside it."""

    name: str
    number: int = 0
    inside: tuple[tuple[Part, ...], ...] = ()


@dataclass(frozen=True)
class Design:
    """A whole network: what it works on, its parts in order."""

    kind: str
    parts: tuple[Part, ...]


@dataclass
class Frame:
    """Where a part is built: on which kind of tensor, and how many channels come in."""

    kind: str
    width: int
    channel: int = field(init=False)

    def __post_init__(self) -> None:
        self.channel = 1 if self.kind == "map" else -1


Built = tuple[nn.Module, int]
Builder = Callable[[Frame, Part], Built]
BUILDERS: dict[str, Builder] = {}
NESTED: dict[str, int] = {}
KIND_OF: dict[str, tuple[str, ...]] = {}


def part(name: str, *, kinds: Sequence[str] = KINDS, inside: int = 0) -> Callable[[Builder], Builder]:
    """Register a part; ``inside`` is how many sequences of parts it contains."""

    def register(builder: Builder) -> Builder:
        BUILDERS[name], NESTED[name], KIND_OF[name] = builder, inside, tuple(kinds)
        return builder

    return register


def dense(at: Frame, before: int, after: int, number: int = 0) -> nn.Module:
    """A layer that mixes channels: linear, or a convolution with kernel 1 or 3."""
    if at.kind != "map":
        return nn.Linear(before, after, bias=number % 3 > 0)
    return nn.Conv2d(before, after, 1) if number % 2 else nn.Conv2d(before, after, 3, padding=1)


def sequence(at: Frame, parts: Sequence[Part]) -> Built:
    """Parts one after another."""
    modules, width = [], at.width
    for item in parts:
        module, width = BUILDERS[item.name](Frame(at.kind, width), item)
        modules.append(module)
    return nn.Sequential(*modules), width


def build(design: Design) -> nn.Module:
    """The network; its output has two channels."""
    at = Frame(design.kind, SHAPES[design.kind][1 if design.kind == "map" else -1])
    stem = dense(at, at.width, 6, 1)
    body, width = sequence(Frame(design.kind, 6), design.parts)
    return nn.Sequential(stem, body, dense(at, width, 2, 1))


# --- layers and element-wise parts ---


@part("dense")
def _dense(at: Frame, item: Part) -> Built:
    width = 4 + item.number % 5
    return dense(at, at.width, width, item.number), width


ACTIVATIONS = (torch.relu, torch.sigmoid, torch.tanh, F.gelu, torch.cos, F.softplus, F.hardswish, torch.exp)


@part("act")
def _act(at: Frame, item: Part) -> Built:
    function = ACTIVATIONS[item.number % 7]
    return Step(lambda _, x: function(x)), at.width


@part("batch norm", kinds=("vector", "map"))
def _batch_norm(at: Frame, item: Part) -> Built:
    return (nn.BatchNorm2d if at.kind == "map" else nn.BatchNorm1d)(at.width), at.width


@part("instance norm", kinds=("map",))
def _instance_norm(at: Frame, item: Part) -> Built:
    return nn.InstanceNorm2d(at.width, affine=True), at.width


@part("layer norm", kinds=("vector", "tokens"))
def _layer_norm(at: Frame, item: Part) -> Built:
    return (nn.LayerNorm if item.number % 2 else nn.RMSNorm)(at.width), at.width


@part("scale")
def _scale(at: Frame, item: Part) -> Built:
    shape = (at.width, 1, 1) if at.kind == "map" else (at.width,)
    return Step(lambda m, x: x * m.gain + m.const, gain=torch.randn(shape), const=torch.randn(shape)), at.width


@part("bare matrix", kinds=("vector", "tokens"))
def _bare_matrix(at: Frame, item: Part) -> Built:
    width = 4 + item.number % 4
    return Step(lambda m, x: x @ m.matrix + m.bias, matrix=torch.randn(at.width, width), bias=torch.randn(width)), width


@part("low rank", kinds=("vector", "tokens"))
def _low_rank(at: Frame, item: Part) -> Built:
    rank, width = 2 + item.number % 3, 5
    factors = {"up": torch.randn(width, rank), "down": torch.randn(rank, at.width)}
    return Step(lambda m, x: F.linear(x, m.up @ m.down), **factors), width


# --- branches ---


@part("residual", inside=1)
def _residual(at: Frame, item: Part) -> Built:
    body, width = sequence(at, item.inside[0])
    return Step(lambda m, x: x + m.inner[1](m.inner[0](x)), body, dense(at, width, at.width, item.number)), at.width


@part("concat", inside=2)
def _concat(at: Frame, item: Part) -> Built:
    (left, a), (right, b) = (sequence(at, parts) for parts in item.inside)
    dim = at.channel
    return Step(lambda m, x: torch.cat([m.inner[0](x), m.inner[1](x)], dim), left, right), a + b


@part("combine", inside=2)
def _combine(at: Frame, item: Part) -> Built:
    """Two branches brought to one width and met element by element."""
    function = (torch.mul, torch.maximum, torch.sub, lambda a, b: torch.where(a > b, a, b * 2))[item.number % 4]
    (left, a), (right, b) = (sequence(at, parts) for parts in item.inside)
    ends = dense(at, a, 6, item.number), dense(at, b, 6, item.number)
    return Step(lambda m, x: function(m.inner[2](m.inner[0](x)), m.inner[3](m.inner[1](x))), left, right, *ends), 6


@part("dense net", inside=1)
def _dense_net(at: Frame, item: Part) -> Built:
    body, width = sequence(at, item.inside[0])
    dim = at.channel
    return Step(lambda m, x: torch.cat([x, m.inner[0](x), x], dim), body), 2 * at.width + width


@part("stack", inside=1)
def _stack(at: Frame, item: Part) -> Built:
    body, width = sequence(at, item.inside[0])
    heads = [dense(at, width, 5, item.number) for _ in range(3)]

    def stacked(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[0](x)
        return torch.stack([head(h) for head in m.inner[1:]], dim=0).amax(0)

    return Step(stacked, body, *heads), 5


@part("twice")
def _twice(at: Frame, item: Part) -> Built:
    """One layer used two times."""
    return Step(lambda m, x: m.inner[0](torch.cos(m.inner[0](x))), dense(at, at.width, at.width, item.number)), at.width


@part("tied", kinds=("vector", "tokens"))
def _tied(at: Frame, item: Part) -> Built:
    """There and back again by one weight and its transpose."""
    layer = nn.Linear(at.width, 7)
    return Step(lambda m, x: F.linear(torch.sigmoid(m.inner[0](x)), m.inner[0].weight.T), layer), at.width


# --- cutting and moving channels ---


@part("glu")
def _glu(at: Frame, item: Part) -> Built:
    width, dim = 4 + item.number % 3, at.channel

    def gated(m: Any, x: torch.Tensor) -> torch.Tensor:
        if item.number % 2:
            return F.glu(m.inner[0](x), dim)
        a, b = m.inner[0](x).chunk(2, dim)
        return a * torch.sigmoid(b)

    return Step(gated, dense(at, at.width, 2 * width, item.number)), width


@part("swiglu")
def _swiglu(at: Frame, item: Part) -> Built:
    layers = dense(at, at.width, 8), dense(at, at.width, 8), dense(at, 8, at.width)
    return Step(lambda m, x: m.inner[2](F.silu(m.inner[0](x)) * m.inner[1](x)), *layers), at.width


@part("halves")
def _halves(at: Frame, item: Part) -> Built:
    """A layer cut in two by a share of its width, each half with a layer of its own."""
    dim = at.channel

    def cut(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[0](x)
        half = h.shape[dim] // 2
        if item.number % 3 == 0:
            a, b = h.chunk(2, dim)
        elif item.number % 3 == 1:
            a, b = h.split(half, dim)
        else:
            a, b = h.narrow(dim, 0, half), h.narrow(dim, half, half)
        return m.inner[1](torch.cos(a)) + m.inner[2](torch.sigmoid(b))

    return Step(cut, dense(at, at.width, 8), dense(at, 4, 5), dense(at, 4, 5)), 5


@part("slices")
def _slices(at: Frame, item: Part) -> Built:
    """A layer cut at a number, the pieces joined the other way round."""
    first = 1 + item.number % 5

    def cut(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[0](x)
        if at.kind == "map":
            return torch.cat([m.inner[1](h[:, first:]), h[:, :first]], 1)
        return torch.cat([m.inner[1](h[..., first:]), h[..., :first]], -1)

    return Step(cut, dense(at, at.width, 9), dense(at, 9 - first, 4)), 4 + first


@part("swap")
def _swap(at: Frame, item: Part) -> Built:
    """Two pieces change places: half a rotation."""
    dim = at.channel
    inner = dense(at, at.width, 8)

    def swapped(m: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = m.inner[0](x).chunk(2, dim)
        return torch.cat([-b, a], dim)

    return Step(swapped, inner), 8


@part("move")
def _move(at: Frame, item: Part) -> Built:
    dim, shift = at.channel, 1 + item.number % 3
    if item.number % 2:
        return Step(lambda _, x: torch.roll(x, shift, dim)), at.width
    return Step(lambda _, x: x.flip(dim)), at.width


@part("mirror")
def _mirror(at: Frame, item: Part) -> Built:
    dim = at.channel
    return Step(lambda _, x: torch.cos(x) + x.flip(dim)), at.width


@part("shuffle", kinds=("map",))
def _shuffle(at: Frame, item: Part) -> Built:
    pieces = 2 + item.number % 2

    def shuffled(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[0](x)
        b, c, height, width = h.shape
        split = h.view(b, pieces, -1 if item.number % 5 else c // pieces, height, width)
        return split.transpose(1, 2).reshape(b, c, height, width)

    return Step(shuffled, dense(at, at.width, 6, item.number)), 6


@part("repeat")
def _repeat(at: Frame, item: Part) -> Built:
    dim = at.channel
    if item.number % 2:
        return Step(lambda _, x: x.repeat_interleave(2, dim=dim)), 2 * at.width
    return Step(lambda _, x: torch.cat([x, torch.sigmoid(x)], dim)), 2 * at.width


@part("pad")
def _pad(at: Frame, item: Part) -> Built:
    pad = (0, 0, 0, 0, 1, 2) if at.kind == "map" else (1, 2)
    return Step(lambda _, x: F.pad(x, pad, value=0.5)), at.width + 3


@part("write")
def _write(at: Frame, item: Part) -> Built:
    """An empty tensor filled through views, in place."""
    dim = at.channel

    def written(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[0](x)
        out = h.new_zeros(h.shape) if item.number % 2 else torch.zeros_like(h)
        out.narrow(dim, 0, 3).copy_(m.inner[1](x))
        out.narrow(dim, 3, h.shape[dim] - 3).add_(1)
        return out.mul_(torch.cos(h))

    return Step(written, dense(at, at.width, 7), dense(at, at.width, 3)), 7


@part("maxout")
def _maxout(at: Frame, item: Part) -> Built:
    axis = 1 if at.kind == "map" else -1

    def largest(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[0](x).unflatten(axis, (-1, 2))
        return h.amax(2 if at.kind == "map" else -1)

    return Step(largest, dense(at, at.width, 10)), 5


@part("outer", kinds=("vector",))
def _outer(at: Frame, item: Part) -> Built:
    layers = nn.Linear(at.width, 4), nn.Linear(at.width, 3)
    return Step(lambda m, x: (m.inner[0](x).unsqueeze(2) * m.inner[1](x).unsqueeze(1)).flatten(1), *layers), 12


@part("ensemble", kinds=("vector",))
def _ensemble(at: Frame, item: Part) -> Built:
    def members(m: Any, x: torch.Tensor) -> torch.Tensor:
        # Not by einsum, which multiplies instead of contracting where one channel is left: no MACs are counted then.
        return torch.bmm(torch.sigmoid(x @ m.first), m.second).amax(0)

    return Step(members, first=torch.randn(3, at.width, 6), second=torch.randn(3, 6, 5)), 5


# --- maps ---


@part("depthwise", kinds=("map",))
def _depthwise(at: Frame, item: Part) -> Built:
    times = 1 + item.number % 2
    return nn.Conv2d(at.width, at.width * times, 3, padding=1, groups=at.width), at.width * times


@part("grouped", kinds=("map",))
def _grouped(at: Frame, item: Part) -> Built:
    pieces = 2 + item.number % 2
    conv = (nn.Conv2d, nn.ConvTranspose2d)[item.number % 5 == 0]
    return nn.Sequential(dense(at, at.width, 12), nn.SiLU(), conv(12, 6, 3, padding=1, groups=pieces)), 6


@part("pixel shuffle", kinds=("map",))
def _pixel_shuffle(at: Frame, item: Part) -> Built:
    layers = nn.Conv2d(at.width, 12, 1), nn.PixelShuffle(2), nn.Conv2d(3, 4, 3, padding=1), nn.PixelUnshuffle(2)
    return nn.Sequential(*layers), 16


@part("pool", kinds=("map",))
def _pool(at: Frame, item: Part) -> Built:
    return (nn.MaxPool2d(3, 1, 1) if item.number % 2 else nn.AvgPool2d(3, 1, 1)), at.width


@part("through a vector", kinds=("map",))
def _through_vector(at: Frame, item: Part) -> Built:
    def there_and_back(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[1](torch.cos(m.inner[0](F.max_pool2d(x, 2).flatten(1))))
        return F.interpolate(h.view(len(h), -1, 2, 2), scale_factor=2)

    return Step(there_and_back, nn.Linear(4 * at.width, 7), nn.Linear(7, 20)), 5


@part("squeeze", kinds=("map", "tokens"))
def _squeeze(at: Frame, item: Part) -> Built:
    def excited(m: Any, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3), keepdim=True) if at.kind == "map" else x.mean(1, keepdim=True)
        return x * torch.sigmoid(m.inner[1](F.relu(m.inner[0](pooled))))

    return Step(excited, dense(at, at.width, 4, 1), dense(at, 4, at.width, 1)), at.width


@part("as tokens", kinds=("map",), inside=1)
def _as_tokens(at: Frame, item: Part) -> Built:
    inner = tuple(p for p in item.inside[0] if "tokens" in KIND_OF[p.name] and not p.inside)
    body, width = sequence(Frame("tokens", at.width), inner)

    def turned(m: Any, x: torch.Tensor) -> torch.Tensor:
        b, _, height, width = x.shape
        return m.inner[0](x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(b, -1, height, width)

    return Step(turned, body), width


# --- tokens ---


@part("attention", kinds=("tokens",))
def _attention(at: Frame, item: Part) -> Built:
    """Two heads of three channels; q, k and v fused or not, heads cut by any of the usual ways."""
    how = item.number % 4
    layers = [nn.Linear(at.width, 18)] if how < 2 else [nn.Linear(at.width, 6) for _ in range(3)]

    def heads(x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        shape = ((b, t, 2, -1), (b, t, 2, c // 2), (b, t, -1, 3))[item.number % 3]
        return x.view(shape).transpose(1, 2)

    def attend(m: Any, x: torch.Tensor) -> torch.Tensor:
        if how < 2:
            h = m.inner[0](x)
            parts = h.chunk(3, -1) if how else h.split(h.shape[-1] // 3, dim=-1)
        else:
            parts = [layer(x) for layer in m.inner[:3]]
        q, k, v = (heads(p) for p in parts)
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        return m.inner[-1](y.transpose(1, 2).flatten(2))

    return Step(attend, *layers, nn.Linear(6, at.width)), at.width


@part("grouped query", kinds=("tokens",))
def _grouped_query(at: Frame, item: Part) -> Built:
    layers = nn.Linear(at.width, 12), nn.Linear(at.width, 6), nn.Linear(at.width, 6), nn.Linear(12, at.width)

    def attend(m: Any, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q = m.inner[0](x).view(b, t, 4, -1).transpose(1, 2)
        k, v = (m.inner[i](x).view(b, t, 2, -1).transpose(1, 2).repeat_interleave(2, dim=1) for i in (1, 2))
        y = (q @ k.mT).softmax(-1) @ v
        return m.inner[3](y.transpose(1, 2).reshape(b, t, -1))

    return Step(attend, *layers), at.width


@part("torch attention", kinds=("tokens",))
def _torch_attention(at: Frame, item: Part) -> Built:
    inner = nn.Linear(at.width, 6), nn.MultiheadAttention(6, 2, batch_first=True)

    def attend(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = m.inner[0](x)
        return h + m.inner[1](h, h, h, need_weights=False)[0]

    return Step(attend, *inner), 6


@part("recurrent", kinds=("tokens",))
def _recurrent(at: Frame, item: Part) -> Built:
    rnn = (nn.GRU, nn.LSTM)[item.number % 2](at.width, 5, batch_first=True)
    return Step(lambda m, x: m.inner[0](x)[0], rnn), 5


@part("convolve tokens", kinds=("tokens",))
def _convolve_tokens(at: Frame, item: Part) -> Built:
    conv = nn.Conv1d(at.width, 6, 3, padding=2)
    return Step(lambda m, x: m.inner[0](x.transpose(1, 2))[..., :-2].transpose(1, 2), conv), 6


# --- drawing ---


def _parts(kind: str, depth: int) -> st.SearchStrategy[tuple[Part, ...]]:
    names = [n for n in BUILDERS if kind in KIND_OF[n] and (depth or not NESTED[n])]

    @st.composite
    def one(draw: st.DrawFn) -> Part:
        name = draw(st.sampled_from(names))
        inside = tuple(draw(_parts(kind, depth - 1)) for _ in range(NESTED[name]))
        return Part(name, draw(st.integers(0, 59)), inside)

    return st.lists(one(), min_size=2 if depth > 1 else 1, max_size=5 if depth > 1 else 2).map(tuple)


def designs(kind: str) -> st.SearchStrategy[Design]:
    """Networks on one kind of tensor, of parts up to three deep."""
    return _parts(kind, 2).map(lambda parts: Design(kind, parts))

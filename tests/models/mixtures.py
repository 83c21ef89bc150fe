"""Mixtures of experts in every way of routing, and mixers of tokens: perceptrons across positions, state spaces."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case
from tests.models.habits import ENC, MAPS, TOKENS, chain, convs, habit, tensors
from tests.models.vectors import Mlp, vector


class Mixtral(nn.Module):
    """A sparse mixture in a residual stream: every token takes its two best experts, whose weights are stacked.

    ``how``: "hit experts": a loop over the experts that some token chose, added at the tokens' places; "all experts":
    every expert sees every token, by batched products, weighted by a routing table that is mostly zero.
    """

    def __init__(self, how: str, *, shared: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.norm = nn.RMSNorm(8)
        self.router = nn.Parameter(torch.randn(4, 8))
        self.up = nn.Parameter(torch.randn(4, 2 * 10, 8))
        self.down = nn.Parameter(torch.randn(4, 8, 10))
        self.shared = Mlp(8, 6, 8, act=nn.SiLU) if shared else None
        self.head = nn.Linear(8, 11, bias=False)
        self.how = how

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        h = self.norm(x)
        flat = h.view(-1, h.shape[-1])
        mixed = self._mixed(flat).reshape(h.shape)
        if self.shared is not None:
            mixed = mixed + self.shared(h)
        return self.head(torch.cos(x + mixed))

    def _mixed(self, x: torch.Tensor) -> torch.Tensor:
        logits = F.linear(x, self.router)
        weights, chosen = torch.topk(logits.softmax(-1), 2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        return (self._in_turn if self.how == "hit experts" else self._at_once)(x, weights, chosen)

    def _in_turn(self, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        mask = F.one_hot(chosen, 4).permute(2, 1, 0)
        for (expert,) in mask.sum((-1, -2)).greater(0).nonzero():
            place, token = torch.where(mask[expert])
            gate, up = F.linear(x[token], self.up[expert]).chunk(2, dim=-1)
            hidden = F.linear(F.silu(gate) * up, self.down[expert])
            out.index_add_(0, token, (hidden * weights[token, place, None]).to(out.dtype))
        return out

    def _at_once(self, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        table = x.new_zeros(len(x), 4).scatter_(1, chosen, weights)
        gate, up = torch.bmm(x.expand(4, -1, -1), self.up.transpose(1, 2)).chunk(2, dim=-1)
        hidden = torch.bmm(F.silu(gate) * up, self.down.transpose(1, 2))
        return (hidden * table.t().unsqueeze(-1)).sum(0)


class ListedExperts(nn.Module):
    """Experts in a list, each of which sees the tokens that chose it, as in the first Mixtral and in Switch.

    ``how``: "indices": picked and added by index; "mask": picked by a boolean mask and written back in place; "sorted":
    tokens are sorted by expert and cut where the next one begins, as in DeepSeek's inference code.
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.router = nn.Linear(8, 3)
        self.experts = nn.ModuleList([Mlp(8, 6, 8, act=nn.SiLU) for _ in range(3)])
        self.head = nn.Linear(8, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        scores, chosen = self.router(x).softmax(-1).max(-1)
        if self.how == "sorted":
            mixed = self._sorted(x, chosen)
        else:
            mixed = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                if self.how == "mask":
                    mixed[chosen == number] = expert(x[chosen == number])
                else:
                    (token,) = torch.where(chosen == number)
                    mixed[token] += expert(x.index_select(0, token))
        return self.head(x + scores.unsqueeze(-1) * mixed)

    def _sorted(self, x: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        order = chosen.argsort()
        counts = torch.bincount(chosen, minlength=3).tolist()
        pieces = torch.split(x[order], counts)
        done = torch.cat([expert(piece) for expert, piece in zip(self.experts, pieces, strict=True)])
        back = torch.empty_like(done)
        back[order] = done
        return back


class Dispatched(nn.Module):
    """Routing by products with one-hot tables (GShard), or by soft slots (Soft MoE)."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.slots = nn.Parameter(torch.randn(8, 3, 2))
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 6)), nn.Parameter(torch.randn(3, 6, 8))
        self.head = nn.Linear(8, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        logits = torch.einsum("btd,deg->bteg", x, self.slots)
        if self.how == "soft":
            dispatch = logits.softmax(1)
            combine = logits.flatten(2).softmax(-1).view_as(logits)
        else:
            dispatch = F.one_hot(logits.flatten(2).argmax(-1), 6).view(logits.shape).to(x.dtype)
            combine = dispatch * logits.flatten(2).softmax(-1).view_as(logits)
        inside = torch.einsum("bteg,btd->ebgd", dispatch, x)
        hidden = torch.cos(torch.einsum("ebgd,edh->ebgh", inside, self.up))
        outside = torch.einsum("ebgh,ehd->ebgd", hidden, self.down)
        return self.head(x + torch.einsum("bteg,ebgd->btd", combine, outside))


class Mixer(nn.Module):
    """MLP-Mixer: a perceptron across positions, then one across channels, on the same residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.across = nn.Sequential(nn.Linear(9, 12), nn.GELU(), nn.Linear(12, 9))
        self.inside = nn.Sequential(nn.Linear(8, 14), nn.GELU(), nn.Dropout(), nn.Linear(14, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.inside(self.norm2(x))
        return self.head(self.norm(x).mean(1))


class GatedMixer(nn.Module):
    """gMLP: half of the channels, normalised and mixed across positions, gate the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.up = nn.Linear(8, 20)
        self.norm = nn.LayerNorm(10)
        self.across = nn.Conv1d(4, 4, 1)
        self.down = nn.Linear(10, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        u, v = F.gelu(self.up(x)).chunk(2, dim=-1)
        return self.head(x + self.down(u * self.across(self.norm(v))))


class Affine(nn.Module):
    """ResMLP's scale and shift per channel, in place of a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(1, 1, width)), nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, x: torch.Tensor) -> Any:
        return torch.addcmul(self.beta, self.alpha, x)


class ResMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.before, self.after = Affine(8), Affine(8)
        self.across = nn.Linear(4, 4)
        self.inside = Mlp(8, 12, 8, act=nn.GELU)
        self.gain1, self.gain2 = (nn.Parameter(0.1 * torch.ones(8)) for _ in range(2))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        x = x + self.gain1 * self.across(self.before(x).transpose(1, 2)).transpose(1, 2)
        return self.head(x + self.gain2 * self.inside(self.after(x)))


class Mamba(nn.Module):
    """A selective state space: gate and signal from one layer, a causal depthwise convolution, a scan in a loop.

    Step size, input and output matrices come from one layer too, cut by sizes read from the parameters that follow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.into = nn.Linear(8, 24, bias=False)
        self.convolution = nn.Conv1d(12, 12, 3, groups=12, padding=2)
        self.selects = nn.Linear(12, 4 + 2 * 5, bias=False)
        self.step = nn.Linear(4, 12)
        self.log_decay = nn.Parameter(torch.randn(12, 5))
        self.skip = nn.Parameter(torch.randn(12))
        self.out = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        signal, gate = self.into(x).transpose(1, 2).chunk(2, dim=1)
        signal = F.silu(self.convolution(signal)[..., : tokens.shape[1]])
        sizes = [self.step.weight.shape[1], self.log_decay.shape[1], self.log_decay.shape[1]]
        step, b, c = torch.split(self.selects(signal.transpose(1, 2)), sizes, dim=-1)
        step = F.softplus(self.step(step)).transpose(1, 2)
        decay = torch.exp(-torch.exp(self.log_decay)[None, :, None] * step[..., None])
        driven = step[..., None] * b[:, None] * signal[..., None]
        state = x.new_zeros(*decay.shape[:2], decay.shape[-1])
        outputs = []
        for at in range(tokens.shape[1]):
            state = decay[:, :, at] * state + driven[:, :, at]
            outputs.append(torch.matmul(state, c[:, at].unsqueeze(-1))[..., 0])
        y = (torch.stack(outputs, -1) + signal * self.skip[None, :, None]) * F.silu(gate)
        return self.head(torch.cos(x + self.out(y.transpose(1, 2))))


class Retention(nn.Module):
    """RWKV's time mixing: a shift by one token, channels' own decays, a sigmoid gate."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.shares = nn.Parameter(torch.rand(3, 1, 1, 8))
        self.k, self.v, self.r = (nn.Linear(8, 12, bias=False) for _ in range(3))
        self.decay, self.first = nn.Parameter(torch.randn(12)), nn.Parameter(torch.randn(12))
        self.out = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        before = F.pad(x, (0, 0, 1, -1))
        k, v, r = (
            layer(x * share + before * (1 - share))
            for layer, share in zip((self.k, self.v, self.r), self.shares, strict=True)
        )
        numerator = denominator = torch.zeros_like(k[:, 0])
        outputs = []
        for step in range(x.shape[1]):
            now = torch.exp(self.first + k[:, step])
            outputs.append((numerator + now * v[:, step]) / (denominator + now))
            fade = torch.exp(-torch.exp(self.decay))
            numerator = fade * numerator + torch.exp(k[:, step]) * v[:, step]
            denominator = fade * denominator + torch.exp(k[:, step])
        return self.head(x + self.out(torch.sigmoid(r) * torch.stack(outputs, 1)))


class FourierMixer(nn.Module):
    """FNet: a Fourier transform across positions and channels, of which only the real part is kept."""

    def __init__(self, *, channels: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.inside = Mlp(8, 12, 8, act=nn.GELU)
        self.head = nn.Linear(8, 2)
        self.channels = channels

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        mixed = torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2) if self.channels else torch.fft.fft(x, dim=-2)
        return self.head(self.inside(x + mixed.real))


def spectral_convolution(m: Any, x: torch.Tensor) -> Any:
    """A Fourier neural operator: the lowest frequencies are multiplied by a matrix each, channels as usual."""
    h = torch.cos(m.inner[0](x))
    spectrum = torch.fft.rfft2(h)
    out = torch.zeros(len(x), m.first.shape[1], *spectrum.shape[-2:], dtype=spectrum.dtype)
    out[:, :, :2, :2] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :2, :2], torch.view_as_complex(m.first))
    return m.inner[2](torch.cos(torch.fft.irfft2(out, s=h.shape[-2:]) + m.inner[1](h)))


def long_convolution(m: Any, x: torch.Tensor) -> Any:
    """A depthwise convolution as long as the sequence, by Fourier transforms (Hyena, S4)."""
    h = torch.cos(m.inner[0](x)).transpose(1, 2)
    length = h.shape[-1]
    product = torch.fft.rfft(h, n=2 * length) * torch.fft.rfft(m.kernel, n=2 * length)
    y = torch.fft.irfft(product, n=2 * length)[..., :length]
    return m.inner[1]((y + h * m.skip.unsqueeze(-1)).transpose(1, 2))


def shifted_by_groups(m: Any, x: torch.Tensor) -> Any:
    """S2-MLP: quarters of the channels move by one position each in another direction."""
    h = torch.cos(m.inner[0](x))
    a, b, c, d = h.chunk(4, 1)
    moved = [a.roll(1, 2), b.roll(-1, 2), c.roll(1, 3), d.roll(-1, 3)]
    return m.inner[1](torch.cat(moved, 1))


def complex_state(m: Any, x: torch.Tensor) -> Any:
    """A diagonal recurrence in complex numbers (LRU, S4D)."""
    decay = torch.exp(torch.complex(-m.decay.exp(), m.turn))
    u = m.inner[0](x).to(decay.dtype)
    state, outputs = torch.zeros_like(u[:, 0]), []
    for step in range(x.shape[1]):
        state = decay * state + u[:, step]
        outputs.append(state.real)
    return m.inner[1](torch.stack(outputs, 1))


def tokens(*shape: int) -> Any:
    return lambda: torch.randint(11, shape)


MIXTRAL = {"down": 8, "up": 10}
LISTED = {"embed": 8, "experts.0.0": 6, "experts.1.0": 6, "experts.2.0": 6}
MIXTRAL_NORM = {"down": "mean"}

CASES: list[Case] = [
    Case("mixtral", lambda: Mixtral("hit experts"), tokens(2, 5), MIXTRAL, mixing=MIXTRAL_NORM),
    Case(
        "mixtral-shared",
        lambda: Mixtral("hit experts", shared=True),
        tokens(2, 5),
        MIXTRAL | {"shared.0": 6},
        mixing=MIXTRAL_NORM,
    ),
    Case("mixtral-all-experts", lambda: Mixtral("all experts"), tokens(2, 5), MIXTRAL, mixing=MIXTRAL_NORM),
    Case("experts-by-index", lambda: ListedExperts("indices"), vector(7, 5), LISTED),
    Case("experts-by-mask", lambda: ListedExperts("mask"), vector(7, 5), LISTED),
    Case("experts-sorted", lambda: ListedExperts("sorted"), vector(7, 5), LISTED),
    Case("experts-dispatched", lambda: Dispatched("hard"), vector(2, 4, 5), {"down": 8, "up": 6}),
    Case(
        "experts-soft",
        lambda: Dispatched("soft"),
        vector(2, 4, 5),
        {"down": 8, "up": 6, "slots": 3},
        mixing={"slots": "softmax"},
    ),
    Case(
        "mixer",
        Mixer,
        vector(2, 1, 6, 6),
        {"patches": 8, "across.0": 12, "inside.0": 14},
        mixing={"patches": "layer_norm"},
    ),
    Case("mixer-gated", GatedMixer, vector(2, 4, 5), {"embed": 8, "up": 10}, mixing={"up": "layer_norm"}),
    Case("mixer-affine", ResMlp, vector(2, 4, 5), {"gain1": 8, "inside.0": 12}),
    Case(
        "mixer-fourier",
        lambda: FourierMixer(channels=False),
        vector(2, 4, 5),
        {"embed": 8, "inside.0": 12, "inside.2": 8},
    ),
    Case(
        "mixer-fourier-channels",
        lambda: FourierMixer(channels=True),
        vector(2, 4, 5),
        {"inside.0": 12, "inside.2": 8},
    ),
    Case("mamba", Mamba, tokens(2, 4), {"embed": 8, "log_decay": 12, "log_decay#2": 5, "selects": 4}),
    Case("retention", Retention, vector(2, 4, 5), {"shares": 8, "decay": 12}),
    habit(
        "spectral-convolution",
        spectral_convolution,
        convs((3, 6), (6, 5), (5, 2)),
        {ENC: 6, "first": 5},
        shape=MAPS,
        tensors=tensors(first=(6, 5, 2, 2, 2)),
    ),
    habit(
        "long-convolution",
        long_convolution,
        chain(12, 12),
        {"kernel": 12},
        shape=TOKENS,
        tensors=tensors(kernel=(12, 3), skip=(12,)),
    ),
    habit("shifted-quarters", shifted_by_groups, convs((3, 12), (12, 2)), {ENC: 12}, shape=MAPS, blocks={ENC: 4}),
    habit(
        "complex-state",
        complex_state,
        chain(12, 12),
        {"decay": 12},
        shape=TOKENS,
        tensors=tensors(decay=(12,), turn=(12,)),
    ),
]

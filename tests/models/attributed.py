"""Models whose code keeps sizes in attributes and configurations, as most published ones do.

Shapes are put together in every way that is in use, sums of tuples too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case
from tests.models.vectors import vector, vectors


@dataclass
class Config:
    """Settings that all parts of a language model share."""

    vocabulary: int = 11
    hidden_size: int = 12
    num_heads: int = 3
    inner_size: int = 16
    num_key_value_heads: int = 1


class Conv1D(nn.Module):
    """GPT-2's linear layer: the weight is transposed, and the output's width is an attribute."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(0.3 * torch.randn(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))

    def forward(self, x: torch.Tensor) -> Any:
        size_out = x.size()[:-1] + (self.nf,)  # noqa: RUF005
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size_out)


class Gpt2Attention(nn.Module):
    """Queries, keys and values of one layer, split by one attribute, cut into heads by two others."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed_dim = config.hidden_size
        self.num_heads = config.num_heads
        self.head_dim = self.embed_dim // self.num_heads
        self.split_size = self.embed_dim
        self.c_attn = Conv1D(3 * self.embed_dim, self.embed_dim)
        self.c_proj = Conv1D(self.embed_dim, self.embed_dim)

    def forward(self, x: torch.Tensor) -> Any:
        q, k, v = (self._heads(part) for part in self.c_attn(x).split(self.split_size, dim=2))
        weights = q @ k.transpose(-1, -2) / v.size(-1) ** 0.5
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        weights = torch.where(causal, weights, torch.finfo(x.dtype).min).softmax(-1)
        y = (weights @ v).permute(0, 2, 1, 3).contiguous()
        return self.c_proj(y.view(y.size()[:-2] + (self.num_heads * self.head_dim,)))  # noqa: RUF005

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size()[:-1] + (self.num_heads, self.head_dim)).permute(0, 2, 1, 3)  # noqa: RUF005


class Gpt2(nn.Module):
    """Two blocks, a norm before each part, and the output layer tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        config = Config()
        self.wte = nn.Embedding(config.vocabulary, config.hidden_size)
        self.wpe = nn.Embedding(6, config.hidden_size)
        self.h = nn.ModuleList([Gpt2Block(config) for _ in range(2)])
        self.ln_f = nn.LayerNorm(config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


class Gpt2Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.hidden_size), nn.LayerNorm(config.hidden_size)
        self.attn = Gpt2Attention(config)
        self.c_fc, self.c_proj = (
            Conv1D(config.inner_size, config.hidden_size),
            Conv1D(config.hidden_size, config.inner_size),
        )

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class NanoGptAttention(nn.Module):
    """Split by the width of the residual stream itself, so that the inner width is tied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.c_attn, self.c_proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.head = nn.Linear(12, 2)
        self.n_head, self.n_embd = 3, 12

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        b, t, c = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (part.view(b, t, self.n_head, c // self.n_head).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.c_proj(y.transpose(1, 2).contiguous().view(b, t, c)))


class BertAttention(nn.Module):
    """Three layers, and the width of all heads together in an attribute of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.num_attention_heads = 3
        self.attention_head_size = 4
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        self.query, self.key, self.value = (nn.Linear(8, self.all_head_size) for _ in range(3))
        self.dense = nn.Linear(self.all_head_size, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        q, k, v = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        y = ((q @ k.mT * 0.5).softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        return self.head(x + self.dense(y.view(y.size()[:-2] + (self.all_head_size,))))  # noqa: RUF005

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.size()[:-1], self.num_attention_heads, self.attention_head_size).permute(0, 2, 1, 3)


class LlamaAttention(nn.Module):
    """Any number of heads, their width an attribute of the settings; keys and values are repeated; rotary positions."""

    frequencies: torch.Tensor

    def __init__(self, *, rotary: str = "none") -> None:
        super().__init__()
        self.config = Config(num_heads=4, num_key_value_heads=2)
        self.head_dim = 6
        self.groups = self.config.num_heads // self.config.num_key_value_heads
        self.embed = nn.Embedding(11, 8)
        self.q = nn.Linear(8, 24, bias=False)
        self.k, self.v = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False)
        self.o = nn.Linear(24, 8, bias=False)
        self.head = nn.Linear(8, 11)
        self.rotary = rotary
        if rotary == "buffer":
            self.register_buffer("frequencies", 0.1 ** torch.arange(3.0))

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        shape = (*tokens.shape, -1, self.head_dim)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.rotary != "none":
            angles = self._angles(tokens.shape[1])
            q, k = rotated(q, angles), rotated(k, angles)
        k, v = repeated(k, self.groups), repeated(v, self.groups)
        y = (q @ k.transpose(2, 3) * 0.4).softmax(-1) @ v
        return self.head(torch.cos(x + self.o(y.transpose(1, 2).reshape(*tokens.shape, -1).contiguous())))

    def _angles(self, length: int) -> torch.Tensor:
        at = torch.arange(length, dtype=self.head.weight.dtype)
        frequencies = self.frequencies if self.rotary == "buffer" else 0.1 ** torch.arange(3, dtype=at.dtype)
        angles = torch.outer(at, frequencies)
        return torch.cat([angles, angles], -1)


def rotated(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Each half of the channels is turned against the other."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * angles.cos() + turned * angles.sin()


def repeated(x: torch.Tensor, times: int) -> torch.Tensor:
    """Heads of keys or values, as often as query heads share them."""
    b, heads, length, width = x.shape
    return x[:, :, None].expand(b, heads, times, length, width).reshape(b, heads * times, length, width)


class FusedHeads(nn.Module):
    """Queries, keys and values of unequal widths from one layer, split by two attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.head_dim, self.heads, self.key_heads = 4, 4, 2
        self.q_size, self.kv_size = self.heads * self.head_dim, self.key_heads * self.head_dim
        self.qkv = nn.Linear(8, self.q_size + 2 * self.kv_size)
        self.out = nn.Linear(self.q_size, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        q, k, v = self.qkv(x).split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q = q.view(*q.shape[:-1], self.heads, self.head_dim).transpose(1, 2)
        k, v = (part.view(*part.shape[:-1], self.key_heads, self.head_dim).transpose(1, 2) for part in (k, v))
        k, v = (part.repeat_interleave(self.heads // self.key_heads, dim=1) for part in (k, v))
        y = ((q @ k.mT * 0.5).softmax(-1) @ v).transpose(1, 2)
        return self.head(x + self.out(y.reshape(*x.shape[:-1], self.q_size)))


class SharedConfig(nn.Module):
    """Two parts read one object of settings in ``forward``: each gets a copy of its own when it shrinks."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config(hidden_size=8, inner_size=12)
        self.embed = nn.Linear(5, 8)
        self.parts = nn.ModuleList([Gated(self.config) for _ in range(2)])
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        for part in self.parts:
            x = x + part(x)
        return self.head(x.view(-1, self.config.hidden_size))


class Gated(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.both = nn.Linear(config.hidden_size, 2 * config.inner_size)
        self.down = nn.Linear(config.inner_size, config.hidden_size)

    def forward(self, x: torch.Tensor) -> Any:
        gate, up = self.both(x).split(self.config.inner_size, dim=-1)
        return self.down(F.silu(gate) * up)


class MambaMixer(nn.Module):
    """Every size an attribute: the split of the first layer, of the selection, and of the first state."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size, self.intermediate_size, self.ssm_state_size, self.time_step_rank = 8, 12, 5, 4
        self.conv_kernel_size = 3
        self.embed = nn.Embedding(11, self.hidden_size)
        self.in_proj = nn.Linear(8, 24, bias=False)
        self.conv1d = nn.Conv1d(12, 12, 3, groups=12, padding=2)
        self.x_proj = nn.Linear(12, 14, bias=False)
        self.dt_proj = nn.Linear(4, 12)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, 6.0)).repeat(12, 1))
        self.D = nn.Parameter(torch.ones(12))
        self.out_proj = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        batch, length, _ = x.shape
        signal, gate = self.in_proj(x).split([self.intermediate_size, self.intermediate_size], dim=-1)
        signal = F.silu(self.conv1d(signal.transpose(1, 2))[..., :length])
        parameters = self.x_proj(signal.transpose(1, 2))
        step, b, c = torch.split(parameters, [self.time_step_rank, self.ssm_state_size, self.ssm_state_size], dim=-1)
        step = F.softplus(self.dt_proj(step)).transpose(1, 2)
        decay = torch.exp(-torch.exp(self.A_log)[None, :, None, :] * step[:, :, :, None])
        driven = step[:, :, :, None] * b[:, None, :, :] * signal[:, :, :, None]
        state = torch.zeros((batch, self.intermediate_size, self.ssm_state_size), dtype=x.dtype, device=x.device)
        outputs = []
        for at in range(length):
            state = decay[:, :, at] * state + driven[:, :, at]
            outputs.append(torch.matmul(state, c[:, at, :].unsqueeze(-1))[:, :, 0])
        y = (torch.stack(outputs, -1) + signal * self.D[None, :, None]) * F.silu(gate.transpose(1, 2))
        return self.head(torch.cos(x + self.out_proj(y.transpose(1, 2))))


class Rssm(nn.Module):
    """A world model whose first state is made from attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.deter, self.stoch = 8, 5
        self.encoder = nn.Linear(6, 9)
        self.before = nn.Linear(self.stoch + 2, 7)
        self.cell = nn.GRUCell(7, self.deter)
        self.prior = nn.Linear(self.deter, 2 * self.stoch)
        self.posterior = nn.Linear(self.deter + 9, 2 * self.stoch)
        self.decoder = nn.Linear(self.deter + self.stoch, 6)

    def initial(self, batch: int, like: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"deter": like.new_zeros(batch, self.deter), "stoch": like.new_zeros(batch, self.stoch)}

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> Any:
        state, features, divergence = self.initial(len(observations), observations), [], []
        for observation, action in zip(observations.unbind(1), actions.unbind(1), strict=True):
            joined = torch.cat([state["stoch"], action], -1)
            deter = self.cell(F.elu(self.before(joined)), state["deter"])
            prior, _ = self.prior(deter).split(self.stoch, -1)
            embedded = torch.cat([deter, torch.cos(self.encoder(observation))], -1)
            stoch, log_deviation = torch.split(self.posterior(embedded), [self.stoch, self.stoch], -1)
            divergence.append((stoch - prior).pow(2).sum(-1) + log_deviation.pow(2).sum(-1))
            state = {"deter": deter, "stoch": stoch}
            features.append(torch.cat([deter, stoch], -1))
        return self.decoder(torch.stack(features, 1)), torch.stack(divergence, 1)


class RecurrentPolicy(nn.Module):
    """The first hidden state from the layer's own attributes or from the user's."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = 8, 2
        self.rnn = nn.LSTM(5, self.hidden_size, self.num_layers, batch_first=True)
        self.head = nn.Linear(self.hidden_size, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        size = (self.rnn.num_layers, x.size(0), self.rnn.hidden_size)
        if self.how == "own":
            size = (self.num_layers, x.size(0), self.hidden_size)
        hidden, cell = torch.zeros(size, dtype=x.dtype), x.new_zeros(*size)
        return self.head(self.rnn(x, (hidden, cell))[0][:, -1, :])


class CellPolicy(nn.Module):
    """A cell's first state by the attributes of torch's module."""

    def __init__(self, kind: type[nn.GRUCell | nn.LSTMCell | nn.RNNCell]) -> None:
        super().__init__()
        self.cell = kind(5, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        state: Any = torch.zeros(x.shape[0], self.cell.hidden_size, dtype=x.dtype)
        if isinstance(self.cell, nn.LSTMCell):
            state = (state, torch.zeros(x.shape[0], self.cell.hidden_size, dtype=x.dtype))
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class SimNorm(nn.Module):
    """TD-MPC2's: pieces of ``dim`` channels, each a softmax, so that whole pieces leave."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: torch.Tensor) -> Any:
        shape = x.shape
        return F.softmax(x.view(*shape[:-1], -1, self.dim), dim=-1).view(*shape)


class ChannelNorm(nn.Module):
    """ConvNeXt's norm over the channels of a map, its shape kept in a tuple."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.normalized_shape = (width,)

    def forward(self, x: torch.Tensor) -> Any:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias).permute(0, 3, 1, 2)


class Stages(nn.Module):
    """Widths of branches in a list and sizes of images in a dictionary, read to split and to view."""

    def __init__(self) -> None:
        super().__init__()
        self.widths = [4, 6, 2]
        self.sizes = {"low": 3, "flat": 54}
        self.stem = nn.Conv2d(2, 12, 3, padding=1)
        self.branches = nn.ModuleList([nn.Conv2d(width, 2, 1) for width in self.widths])
        self.to_vector = nn.Linear(self.sizes["flat"], 3)

    def forward(self, x: torch.Tensor) -> Any:
        pieces = torch.cos(self.stem(x)).split(self.widths, dim=1)
        h = torch.cat([branch(piece) for branch, piece in zip(self.branches, pieces, strict=True)], 1)
        return self.to_vector(torch.cos(F.adaptive_avg_pool2d(h, self.sizes["low"])).view(-1, self.sizes["flat"]))


class Decoder(nn.Module):
    """A vector becomes a map whose channels and edge are attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.edge, self.latent = 6, 3, 7
        self.code = nn.Linear(5, self.latent)
        self.grow = nn.Linear(self.latent, self.channels * self.edge * self.edge)
        self.out = nn.ConvTranspose2d(self.channels, 1, 2, 2)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.grow(torch.cos(self.code(x)).reshape(-1, self.latent))
        return self.out(torch.cos(h.view(-1, self.channels, self.edge, self.edge)))


class Property(nn.Module):
    """The heads' width is a property of two attributes, and a method's result."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.heads = 12, 3
        self.up, self.down = nn.Linear(6, self.width), nn.Linear(self.width, 2)

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def inner(self) -> int:
        return self.heads * self.head_dim

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.up(x)).view(len(x), self.heads, self.head_dim)
        return self.down(h.flip(1).reshape(len(x), self.inner()))


class OneNumber(nn.Module):
    """One attribute says how wide two layers are that nothing else ties: they keep equally many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 12
        self.a, self.b = nn.Linear(6, self.width), nn.Linear(6, self.width)
        self.c, self.d = nn.Linear(self.width, 2), nn.Linear(self.width, 2)

    def forward(self, x: torch.Tensor) -> Any:
        a = torch.cos(self.a(x)).view(-1, self.width)
        b = torch.sin(self.b(x)).view(-1, self.width)
        return self.c(a) + self.d(b)


class Contradiction(nn.Module):
    """One attribute is the width of a layer and the number of rows of the input: the layer stays, with a reason."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.up, self.down = nn.Linear(6, self.width), nn.Linear(self.width, 2)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.up(x)).view(-1, self.width)
        return self.down(h[: self.width]) + x.view(self.width, -1)[:, :2]


class Checked(nn.Module):
    """Widths are compared with attributes before anything is done."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_dim = 12
        self.up, self.down = nn.Linear(6, self.embed_dim), nn.Linear(self.embed_dim, 2)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.up(x))
        if h.shape[-1] != self.embed_dim:
            raise ValueError(f"expected {self.embed_dim} channels, not {h.shape[-1]}")
        assert h.size() == (x.shape[0], self.embed_dim)
        return self.down(h)


def tokens(*shape: int) -> Any:
    return lambda: torch.randint(11, shape)


GPT2_BLOCK = {"attn.c_attn": 12, "attn.c_attn#2": 12, "c_fc": 16}
GPT2 = {"wte": 12} | {f"h.{i}.{part}": width for i in (0, 1) for part, width in GPT2_BLOCK.items()}
HEADS = ("attn.c_attn", "attn.c_attn#2")

CASES: list[Case] = [
    Case(
        "gpt2",
        Gpt2,
        tokens(2, 4),
        GPT2,
        {f"h.{i}.{part}": 3 for i in (0, 1) for part in HEADS},
        {"wte": "layer_norm", "h.0.attn.c_attn#2": "width used", "h.1.attn.c_attn#2": "width used"},
        tuple(frozenset({f"h.{i}.{part}" for part in HEADS}) for i in (0, 1)),
    ),
    Case(
        "nano-gpt",
        NanoGptAttention,
        vector(2, 4, 5),
        {"embed": 12, "c_attn": 12, "c_attn#2": 12},
        {"c_attn": 3, "c_attn#2": 3},
        ties=(frozenset({"embed", "c_attn", "c_attn#2"}),),
    ),
    Case(
        "bert",
        BertAttention,
        vector(2, 4, 5),
        {"embed": 8, "query": 12, "value": 12},
        {"query": 3, "value": 3},
        ties=(frozenset({"query", "value"}),),
    ),
    Case(
        "llama",
        LlamaAttention,
        tokens(2, 4),
        {"embed": 8, "q": 12, "v": 12},
        {"q": 2, "v": 2},
        ties=(frozenset({"q", "v"}),),
    ),
    Case(
        "llama-rotary",
        lambda: LlamaAttention(rotary="buffer"),
        tokens(2, 4),
        {"embed": 8, "q": 3, "v": 12},
        {"v": 2},
        ties=(frozenset({"q", "v"}),),
    ),
    # Angles from numbers fix the heads' width, so that whole heads leave.
    Case("llama-rotary-numbers", lambda: LlamaAttention(rotary="numbers"), tokens(2, 4), {"embed": 8, "q": 2}),
    Case(
        "fused-heads",
        FusedHeads,
        vector(2, 4, 5),
        {"embed": 8, "qkv": 8, "qkv#2": 8},
        {"qkv": 2, "qkv#2": 2},
        ties=(frozenset({"qkv", "qkv#2"}),),
    ),
    Case("shared-config", SharedConfig, vector(4, 5), {"embed": 8, "parts.0.both": 12, "parts.1.both": 12}),
    Case(
        "mamba-attributes",
        MambaMixer,
        tokens(2, 4),
        {"embed": 8, "A_log": 12, "A_log#2": 5, "x_proj": 4},
    ),
    Case(
        "rssm-attributes",
        Rssm,
        vectors((2, 3, 6), (2, 3, 2)),
        {"encoder": 9, "before": 7, "cell": 8, "prior": 5, "prior#2": 5, "posterior": 5},
        ties=(frozenset({"prior", "prior#2", "posterior"}),),
        mask="all",
    ),
    Case("recurrent-policy", lambda: RecurrentPolicy("torch"), vector(2, 3, 5), {"rnn": 8}),
    Case("recurrent-policy-own", lambda: RecurrentPolicy("own"), vector(2, 3, 5), {"rnn": 8}),
    Case("cell-policy-gru", lambda: CellPolicy(nn.GRUCell), vector(2, 3, 5), {"cell": 8}),
    Case("cell-policy-lstm", lambda: CellPolicy(nn.LSTMCell), vector(2, 3, 5), {"cell": 8}),
    Case("cell-policy-rnn", lambda: CellPolicy(nn.RNNCell), vector(2, 3, 5), {"cell": 8}),
    Case(
        "sim-norm-attribute",
        lambda: nn.Sequential(nn.Linear(6, 24), SimNorm(4), nn.Linear(24, 2)),
        vector(4, 6),
        {"0": 6},
    ),
    Case(
        "channel-norm",
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), ChannelNorm(8), nn.Conv2d(8, 1, 1)),
        vector(2, 2, 5, 5),
        {"0": 8},
        mixing={"0": "layer_norm"},
    ),
    Case(
        "stages",
        Stages,
        vector(2, 2, 5, 5),
        {"stem": 4, "stem#2": 6, "stem#3": 2, "branches.0": 2, "branches.1": 2, "branches.2": 2},
    ),
    Case("decoder", Decoder, vector(2, 5), {"code": 7}),  # the map's edge follows an attribute too
    Case("property", Property, vector(4, 6), {"up": 12}, {"up": 3}),
    Case("one-number", OneNumber, vector(4, 6), {"a": 12, "b": 12}, ties=(frozenset({"a", "b"}),)),
    Case("contradiction", Contradiction, vector(4, 6), {}),
    Case("checked", Checked, vector(4, 6), {"up": 12}),
]

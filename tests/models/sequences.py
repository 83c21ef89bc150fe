"""Models of sequences: attention in every way people write it, transformers, embeddings, recurrent networks."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case
from tests.models.vectors import vector, vectors


class Attention(nn.Module):
    """Hand-written multi-head self-attention over 12 channels in 3 heads, inside a residual stream.

    ``how`` says how q, k and v are made and cut into heads:
    "separate", "chunk", "split", "one view": three layers, or one that is cut in three, each head ``-1`` wide;
    "shapes": one layer, all sizes from ``x.shape``; "whole heads": a fixed width and ``-1`` heads; "numbers": a fixed
    width, and as many heads as an attribute says; "sdpa": torch's own attention, which scales by the width; "einsum":
    contractions by einsum.
    """

    def __init__(self, how: str, *, norm: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.norm = nn.LayerNorm(12) if norm else nn.Identity()
        self.fused = how in ("chunk", "split", "one view", "shapes", "numbers")
        if self.fused:
            self.qkv = nn.Linear(12, 36)
        else:
            self.q, self.k, self.v = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12, bias=False)
        self.out = nn.Linear(12, 12)
        self.head = nn.Linear(12, 2)
        self.heads = 3
        self.scale = 4**-0.5
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        x = self.embed(x)
        q, k, v = self._qkv(self.norm(x))
        if self.how == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.how == "einsum":
            weights = torch.einsum("bhme,bhne->bhmn", q, k).mul(self.scale).softmax(-1)
            y = torch.einsum("bhmn,bhnf->bhmf", weights, v)
        else:
            y = (self.scale * q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(torch.cos(x + self.out(self._merged(y, x))))

    def _qkv(self, x: torch.Tensor) -> Any:
        b, t, c = x.shape
        if not self.fused:
            return [self._heads(part(x)) for part in (self.q, self.k, self.v)]
        if self.how == "one view":
            return self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.how == "shapes":
            qkv = self.qkv(x).view(b, t, 3, self.heads, c // self.heads)
            return [qkv[:, :, i].transpose(1, 2) for i in range(3)]
        if self.how == "numbers":
            return self.qkv(x).reshape(b, t, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        pieces = self.qkv(x).chunk(3, dim=-1) if self.how == "chunk" else self.qkv(x).split(c, dim=-1)
        return [self._heads(piece) for piece in pieces]

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], -1, 4) if self.how == "whole heads" else (*x.shape[:2], self.heads, -1)
        return x.view(shape).transpose(1, 2)

    def _merged(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y = y.transpose(1, 2)
        if self.how == "shapes":
            return y.contiguous().view(x.shape)
        return y.flatten(2) if self.how == "one view" else y.reshape(*y.shape[:2], -1)


class GroupedQuery(nn.Module):
    """Four query heads read two key and value heads, repeated by index or by expansion."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.q = nn.Linear(8, 16, bias=False)
        self.k = nn.Linear(8, 8, bias=False)
        self.v = nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(16, 8)
        self.head = nn.Linear(8, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        x = self.embed(x)
        b, t, _ = x.shape
        q = self.q(x).view(b, t, 4, -1).transpose(1, 2)
        k, v = (self._repeated(layer(x).view(b, t, 2, -1).transpose(1, 2)) for layer in (self.k, self.v))
        y = torch.softmax(q @ k.transpose(2, 3) / 2, dim=-1) @ v
        return self.head(torch.cos(x + self.out(y.transpose(1, 2).reshape(b, t, -1))))

    def _repeated(self, heads: torch.Tensor) -> torch.Tensor:
        if self.how == "interleave":
            return heads.repeat_interleave(2, dim=1)
        b, h, t, d = heads.shape
        return heads[:, :, None].expand(b, h, 2, t, d).reshape(b, h * 2, t, d)


class Rotary(nn.Module):
    """Rotary positions: the two halves of every head are rotated against each other."""

    angles: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.q = nn.Linear(8, 12)
        self.k = nn.Linear(8, 12)
        self.v = nn.Linear(8, 12)
        self.out = nn.Linear(12, 8)
        self.head = nn.Linear(8, 2)
        self.register_buffer("angles", torch.randn(4, 6))

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        q, k, v = (self._heads(layer(x)) for layer in (self.q, self.k, self.v))
        weights = (self._rotated(q) @ self._rotated(k).mT).softmax(-1)
        return self.head(x + self.out((weights @ v).transpose(1, 2).flatten(2)))

    def _heads(self, x: torch.Tensor) -> Any:
        return x.unflatten(-1, (2, -1)).transpose(1, 2)

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return x * self.angles.cos() + turned * self.angles.sin()


class TorchAttention(nn.Module):
    """nn.MultiheadAttention over a source and a memory of its own width, or over itself."""

    def __init__(
        self,
        *,
        cross: bool,
        batch_first: bool,
        weights: bool = False,
        memory: int = 8,
        padded: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.memory = nn.Linear(4, memory)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, kdim=memory, vdim=memory, **options)
        self.head = nn.Linear(8, 2)
        self.cross, self.weights, self.padded = cross, weights, padded

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        y = torch.cos(self.memory(y)) if self.cross else x
        padding = torch.arange(y.shape[1]).expand(len(y), -1) > 2 if self.padded else None
        attended, weights = self.attention(x, y, y, key_padding_mask=padding, need_weights=self.weights)
        out: torch.Tensor = self.head(x + attended)
        return out + weights.mean() if self.weights else out


class Transformer(nn.Module):
    """nn.TransformerEncoder over learned embeddings and positions."""

    def __init__(self, *, norm_first: bool, tied_head: bool = False, padded: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.positions = nn.Parameter(torch.randn(1, 6, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 14, norm_first=norm_first, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 11, bias=False)
        if tied_head:
            self.head.weight = self.embed.weight
        self.padded = padded

    def forward(self, tokens: torch.Tensor) -> Any:
        padding = tokens == 0 if self.padded else None
        return self.head(self.encoder(self.embed(tokens) + self.positions, src_key_padding_mask=padding))


class Encoded(nn.Module):
    """nn.Transformer with both halves, masked."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.transformer = nn.Transformer(8, 2, 1, 1, 10, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Any:
        mask = torch.triu(torch.full((target.shape[1], target.shape[1]), -math.inf, dtype=torch.float64), 1)
        return self.head(self.transformer(self.embed(source), self.embed(target), tgt_mask=mask))


class Vit(nn.Module):
    """Patches by a strided convolution, a class token, positions, blocks with a norm before each part."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 10, 8))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 14), nn.GELU(), nn.Linear(14, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * 0.5).softmax(dim=-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        x = x + self.mlp(self.norm2(x))
        return self.head(self.norm(x)[:, 0])


class TiedEmbedding(nn.Module):
    """A language model without norms: the output layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, 8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        x = x + self.down(F.gelu(self.up(x)))
        return F.linear(x, self.embed.weight)


class Bags(nn.Module):
    """A bag of words and a category, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(13, 8, mode="mean")
        self.category = nn.Embedding(5, 6, padding_idx=0)
        self.head = nn.Linear(14, 3)

    def forward(self, tokens: torch.Tensor, category: torch.Tensor) -> Any:
        return self.head(torch.cos(torch.cat([self.bag(tokens), self.category(category)], -1)))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNN | nn.GRU | nn.LSTM], **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.rnn = kind(6, 8, batch_first=True, **options)
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.rnn(torch.cos(self.embed(x)))[0])


class Cells(nn.Module):
    """A recurrent cell stepped by hand from a state of zeros, as a world model is."""

    def __init__(self, kind: type[nn.GRUCell] | type[nn.LSTMCell]) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.cell = kind(6, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        state, outputs = None, []
        for step in torch.cos(self.embed(x)).unbind(1):
            state = self.cell(step, state)
            outputs.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs, 1)


class HandGru(nn.Module):
    """A gated cell in plain tensors, its state made from ``x.shape`` and its own weight's."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(5 + 8, 16)
        self.candidate = nn.Linear(5 + 8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        h = x.new_zeros(x.shape[0], self.candidate.weight.shape[0])
        for step in x.unbind(1):
            reset, update = torch.sigmoid(self.gates(torch.cat([step, h], 1))).chunk(2, 1)
            candidate = torch.tanh(self.candidate(torch.cat([step, reset * h], 1)))
            h = torch.lerp(h, candidate, update)
        return self.head(h)


def tokens(high: int, *shape: int) -> Any:
    return lambda: torch.randint(high, shape)


SEPARATE = {"embed": 12, "q": 12, "v": 12}
FUSED = {"embed": 12, "qkv": 12, "qkv#2": 12}
WHOLE_HEADS = (frozenset({"embed", "attention"}),)
TRANSFORMER = {
    "positions": 8,
    "encoder.layers.0.self_attn": 2,
    "encoder.layers.0.linear1": 14,
    "encoder.layers.1.self_attn": 2,
    "encoder.layers.1.linear1": 14,
}
ENCODER_WIDTHS = frozenset({"positions", "encoder.layers.0.self_attn", "encoder.layers.1.self_attn"})
BOTH_HALVES = {
    "embed": 8,
    "transformer.encoder.layers.0.self_attn": 2,
    "transformer.encoder.layers.0.linear1": 10,
    "transformer.decoder.layers.0.self_attn": 2,
    "transformer.decoder.layers.0.multihead_attn": 2,
    "transformer.decoder.layers.0.linear1": 10,
}

CASES = [
    Case("attention-separate", lambda: Attention("separate"), vector(2, 4, 5), SEPARATE, {"q": 3, "v": 3}),
    Case("attention-einsum", lambda: Attention("einsum"), vector(2, 4, 5), SEPARATE, {"q": 3, "v": 3}),
    Case(
        "attention-sdpa",
        lambda: Attention("sdpa"),
        vector(2, 4, 5),
        SEPARATE,
        {"q": 3, "v": 3},
    ),
    Case(
        "attention-chunk",
        lambda: Attention("chunk"),
        vector(2, 4, 5),
        FUSED,
        {"qkv": 3, "qkv#2": 3},
        ties=(frozenset({"qkv", "qkv#2"}),),
    ),
    Case(
        "attention-one-view",
        lambda: Attention("one view"),
        vector(2, 4, 5),
        FUSED,
        {"qkv": 3, "qkv#2": 3},
        ties=(frozenset({"qkv", "qkv#2"}),),
    ),
    Case(
        "attention-split",
        lambda: Attention("split"),
        vector(2, 4, 5),
        FUSED,
        {"qkv": 3, "qkv#2": 3},
        ties=(frozenset(FUSED),),
    ),
    Case(
        "attention-shapes",
        lambda: Attention("shapes"),
        vector(2, 4, 5),
        FUSED,
        {"qkv": 3, "qkv#2": 3},
        ties=(frozenset(FUSED),),
    ),
    Case("attention-whole-heads", lambda: Attention("whole heads"), vector(2, 4, 5), {"embed": 12, "q": 3}),
    Case("attention-numbers", lambda: Attention("numbers"), vector(2, 4, 5), {"embed": 12, "qkv": 3}),
    Case(
        "attention-normed",
        lambda: Attention("separate", norm=True),
        vector(2, 4, 5),
        SEPARATE,
        {"q": 3, "v": 3},
        {"embed": "layer_norm"},
    ),
    Case(
        "grouped-query-interleave",
        lambda: GroupedQuery("interleave"),
        vector(2, 4, 5),
        {"embed": 8, "q": 8, "v": 8},
        {"q": 2, "v": 2},
    ),
    Case(
        "grouped-query-expand",
        lambda: GroupedQuery("expand"),
        vector(2, 4, 5),
        {"embed": 8, "q": 8, "v": 8},
        {"q": 2, "v": 2},
    ),
    Case("rotary", Rotary, vector(2, 4, 5), {"embed": 8, "q": 3, "v": 12}, {"v": 2}),
    Case(
        "torch-attention",
        lambda: TorchAttention(cross=False, batch_first=True),
        vectors((2, 4, 5), (2, 3, 4)),
        {"embed": 8, "attention": 2},
        ties=WHOLE_HEADS,
    ),
    Case(
        "torch-attention-weights",
        lambda: TorchAttention(cross=False, batch_first=False, weights=True),
        vectors((4, 2, 5), (3, 2, 4)),
        {"embed": 8, "attention": 2},
        mixing={"attention": "mean over channels"},
        ties=WHOLE_HEADS,
    ),
    Case(
        "torch-attention-cross",
        lambda: TorchAttention(cross=True, batch_first=True),
        vectors((2, 4, 5), (2, 3, 4)),
        {"embed": 8, "attention": 2},
        ties=WHOLE_HEADS,
    ),
    Case(
        "torch-attention-memory",
        lambda: TorchAttention(cross=True, batch_first=False, memory=6),
        vectors((4, 2, 5), (3, 2, 4)),
        {"embed": 8, "memory": 6, "attention": 2},
        ties=WHOLE_HEADS,
    ),
    Case(
        "torch-attention-padded",
        lambda: TorchAttention(cross=False, batch_first=True, padded=True),
        vectors((2, 4, 5), (2, 3, 4)),
        {"embed": 8, "attention": 2},
        ties=WHOLE_HEADS,
    ),
    Case(
        "torch-attention-bias",
        lambda: TorchAttention(cross=True, batch_first=True, add_bias_kv=True),
        vectors((2, 4, 5), (2, 3, 4)),
        {"embed": 8, "attention": 2},
        ties=WHOLE_HEADS,
    ),
    Case(
        "transformer-padded",
        lambda: Transformer(norm_first=False, padded=True),
        tokens(11, 2, 6),
        TRANSFORMER,
        mixing={"positions": "layer_norm"},
        ties=(ENCODER_WIDTHS,),
    ),
    Case(
        "transformer",
        lambda: Transformer(norm_first=False),
        tokens(11, 2, 6),
        TRANSFORMER,
        mixing={"positions": "layer_norm"},
        ties=(ENCODER_WIDTHS,),
    ),
    Case(
        "transformer-norm-first",
        lambda: Transformer(norm_first=True, tied_head=True),
        tokens(11, 2, 6),
        TRANSFORMER,
        mixing={"positions": "layer_norm"},
        ties=(ENCODER_WIDTHS,),
    ),
    Case(
        "transformer-both",
        Encoded,
        lambda: (torch.randint(11, (2, 5)), torch.randint(11, (2, 4))),
        BOTH_HALVES,
        mixing={"embed": "layer_norm"},
        ties=(frozenset({n for n in BOTH_HALVES if "linear" not in n}),),
    ),
    Case(
        "vit",
        Vit,
        vector(2, 1, 6, 6),
        {"token": 8, "qkv": 8, "qkv#2": 8, "mlp.0": 14},
        {"qkv": 2, "qkv#2": 2},
        {"token": "layer_norm"},
        (frozenset({"token", "qkv", "qkv#2"}),),
    ),
    Case("tied-embedding", TiedEmbedding, tokens(13, 2, 6), {"embed": 8, "up": 12}),
    Case("bags", Bags, lambda: (torch.randint(13, (3, 6)), torch.randint(5, (3,))), {"bag": 8, "category": 6}),
    Case("lstm", lambda: Recurrent(nn.LSTM), vector(2, 4, 5), {"embed": 6, "rnn": 8}),
    Case(
        "lstm-deep",
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        vector(2, 4, 5),
        {"embed": 6, "rnn": 8},
    ),
    Case("gru", lambda: Recurrent(nn.GRU), vector(2, 4, 5), {"embed": 6, "rnn": 8}),
    Case("rnn", lambda: Recurrent(nn.RNN), vector(2, 4, 5), {"embed": 6, "rnn": 8}),
    Case("gru-cell", lambda: Cells(nn.GRUCell), vector(2, 4, 5), {"embed": 6, "cell": 8}),
    Case("lstm-cell", lambda: Cells(nn.LSTMCell), vector(2, 4, 5), {"embed": 6, "cell": 8}),
    Case("gru-by-hand", HandGru, vector(2, 4, 5), {"gates": 8}),
]

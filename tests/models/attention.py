"""Attention as well-known models write it: windows, relative positions, rotations, shared keys, learned queries."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case
from tests.models.vectors import vector


class Swin(nn.Module):
    """Two blocks of window attention, the second on shifted windows, with a table of relative positions per head.

    Then patch merging: four neighbours side by side, normalised, halved. The heads' width is ``-1``, or their number.
    """

    def __init__(self, *, whole_heads: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 12, 2, 2)
        self.blocks = nn.ModuleList([WindowBlock(shift, whole_heads=whole_heads) for shift in (0, 1)])
        self.merged_norm = nn.LayerNorm(48)
        self.merge = nn.Linear(48, 20, bias=False)
        self.norm = nn.LayerNorm(20)
        self.head = nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.patches(x).permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        corners = [x[:, row::2, column::2, :] for column in (0, 1) for row in (0, 1)]
        x = self.merge(self.merged_norm(torch.cat(corners, -1)))
        return self.head(self.norm(x).mean((1, 2)))


class WindowBlock(nn.Module):
    """Attention inside windows of 2 x 2 positions, then a perceptron."""

    index: torch.Tensor
    mask: torch.Tensor | None

    def __init__(self, shift: int, *, whole_heads: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.out = nn.Linear(12, 12)
        self.table = nn.Parameter(torch.randn(9, 3))
        at = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :] + 1).permute(1, 2, 0)
        self.register_buffer("index", apart[..., 0] * 3 + apart[..., 1])
        self.mlp = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 12))
        self.shift, self.whole_heads = shift, whole_heads
        self.register_buffer("mask", shifted_windows_mask() if shift else None)

    def forward(self, x: torch.Tensor) -> Any:
        b, height, width, c = x.shape
        h = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2)) if self.shift else self.norm1(x)
        h = h.view(b, height // 2, 2, width // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        h = self.attended(h).view(b, height // 2, width // 2, 2, 2, -1)
        h = h.permute(0, 1, 3, 2, 4, 5).reshape(b, height, width, -1)
        x = x + (torch.roll(h, (self.shift, self.shift), (1, 2)) if self.shift else h)
        return x + self.mlp(self.norm2(x))

    def attended(self, h: torch.Tensor) -> Any:
        windows, n, _ = h.shape
        sizes = (-1, 4) if self.whole_heads else (3, -1)
        q, k, v = self.qkv(h).reshape(windows, n, 3, *sizes).permute(2, 0, 3, 1, 4).unbind(0)
        weights = 0.5 * q @ k.transpose(-2, -1)
        weights = weights + self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        if self.mask is not None:
            weights = weights.view(-1, len(self.mask), *weights.shape[1:]) + self.mask[:, None]
            weights = weights.flatten(0, 1)
        return self.out((weights.softmax(-1) @ v).transpose(1, 2).reshape(windows, n, -1))


def shifted_windows_mask() -> torch.Tensor:
    """What may attend to what in four windows of a 4 x 4 map rolled by one."""
    regions = torch.zeros(4, 4)
    for number, (rows, columns) in enumerate(
        [(a, b) for a in ((0, 2), (2, 3), (3, 4)) for b in ((0, 2), (2, 3), (3, 4))]
    ):
        regions[rows[0] : rows[1], columns[0] : columns[1]] = number
    windows = regions.view(2, 2, 2, 2).transpose(1, 2).reshape(4, 4)
    return torch.zeros(4, 4, 4).masked_fill(windows[:, None] != windows[:, :, None], -100.0)


class RelativeBias(nn.Module):
    """Attention without a scale and with positions in its logits.

    ``how``: "t5": a learned bias per head and distance; "alibi": a slope per head, in a buffer; "cpb": a small network
    of the distance gives each head's bias.
    """

    slopes: torch.Tensor

    def __init__(self, how: str, *, whole_heads: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.q, self.k, self.v = (nn.Linear(8, 12, bias=False) for _ in range(3))
        self.out = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(8, 11)
        if how == "t5":
            self.bias = nn.Embedding(9, 4)
        elif how == "alibi":
            self.register_buffer("slopes", 2.0 ** -torch.arange(1.0, 5.0))
        else:
            self.net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 4, bias=False))
        self.how, self.whole_heads = how, whole_heads

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        q, k, v = (self._heads(layer(x)) for layer in (self.q, self.k, self.v))
        weights = (q @ k.mT + self._bias(tokens.shape[1])).softmax(-1)
        return self.head(torch.cos(x + self.out((weights @ v).transpose(1, 2).flatten(2))))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, 3) if self.whole_heads else (4, -1)).transpose(1, 2)

    def _bias(self, length: int) -> torch.Tensor:
        at = torch.arange(length)
        apart = at[None] - at[:, None]
        if self.how == "t5":
            return self.bias((apart + 4).clamp(0, 8)).permute(2, 0, 1).unsqueeze(0)
        if self.how == "alibi":
            return self.slopes.view(-1, 1, 1) * -apart.abs()
        return 16 * torch.sigmoid(self.net(apart[..., None].to(self.head.weight.dtype))).permute(2, 0, 1)


class RotaryPairs(nn.Module):
    """Rotary positions over neighbouring channels: by strided slices, by complex numbers, or by pairs of a view."""

    angles: torch.Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.q, self.k, self.v = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 12)
        self.out = nn.Linear(12, 8)
        self.head = nn.Linear(8, 2)
        self.register_buffer("angles", torch.outer(torch.arange(4.0), 0.1 ** torch.arange(3.0)))
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = (0.4 * self._rotated(q) @ self._rotated(k).mT).softmax(-1)
        return self.head(x + self.out((weights @ v).transpose(1, 2).flatten(2)))

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        cos, sin = self.angles.cos(), self.angles.sin()
        if self.how == "complex":
            turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(
                torch.ones_like(cos), self.angles
            )
            return torch.view_as_real(turned).flatten(-2)
        if self.how == "pairs":
            a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
            return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        a, b = x[..., ::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


class PartialRotary(nn.Module):
    """GPT-NeoX: fused heads of (q, k, v), only the first channels of each rotated, the rest passed on."""

    angles: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.qkv = nn.Linear(8, 2 * 3 * 6)
        self.out = nn.Linear(12, 8)
        self.head = nn.Linear(8, 11, bias=False)
        angles = torch.outer(torch.arange(4.0), 0.1 ** torch.arange(2.0))
        self.register_buffer("angles", torch.cat([angles, angles], -1))

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        q, k, v = self.qkv(x).view(*tokens.shape, 2, -1).transpose(1, 2).chunk(3, -1)
        weights = (self._rotated(q) @ self._rotated(k).mT).tril().softmax(-1)
        return self.head(torch.cos(x + self.out((weights @ v).transpose(1, 2).flatten(2))))

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        width = self.angles.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        a, b = turned.chunk(2, -1)
        return torch.cat([turned * self.angles.cos() + torch.cat([-b, a], -1) * self.angles.sin(), rest], -1)


class FusedGroupedQuery(nn.Module):
    """Four query heads read two key and value heads, all from one layer.

    ``how``: "falcon": every key's queries, key and value lie together; "torch": torch's own repetition of keys;
    "shared": one key and one value head for all queries (multi-query).
    """

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.qkv = nn.Linear(8, {"falcon": 8, "torch": 8, "shared": 6}[how] * 3)
        self.out = nn.Linear(12, 8)
        self.head = nn.Linear(8, 2)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        b, t, _ = x.shape
        if self.how == "shared":
            fused = self.qkv(x).view(b, t, 6, -1)
            q, k, v = fused[:, :, :-2], fused[:, :, [-2]], fused[:, :, [-1]]
        elif self.how == "falcon":
            fused = self.qkv(x).view(b, t, 2, 4, -1)
            q = fused[..., :-2, :].flatten(2, 3)
            k, v = (fused[..., [place], :].expand(-1, -1, -1, 2, -1).flatten(2, 3) for place in (-2, -1))
        else:
            q, k, v = self.qkv(x).view(b, t, 8, -1).split([4, 2, 2], dim=2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        if self.how == "torch":
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            y = (0.6 * q @ k.mT).softmax(-1) @ v
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, t, -1)))


class Detr(nn.Module):
    """Object queries read an encoded image: positions are added to queries and keys, never to values."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 6, 2, 2), nn.BatchNorm2d(6), nn.SiLU())
        self.project = nn.Conv2d(6, 12, 1)
        self.rows, self.columns = nn.Embedding(3, 6), nn.Embedding(3, 6)
        self.encoder = EncoderLayer()
        self.decoder = DecoderLayer()
        self.queries = nn.Embedding(4, 12)
        self.classes = nn.Linear(12, 3)
        self.boxes = nn.Sequential(nn.Linear(12, 9), nn.SiLU(), nn.Linear(9, 4))

    def forward(self, x: torch.Tensor) -> Any:
        h = self.project(self.backbone(x))
        height, width = h.shape[-2:]
        along, down = self.columns(torch.arange(width)), self.rows(torch.arange(height))
        positions = torch.cat([along.expand(height, -1, -1), down[:, None].expand(-1, width, -1)], -1)
        positions = positions.flatten(0, 1).unsqueeze(1)
        memory = self.encoder(h.flatten(2).permute(2, 0, 1), positions)
        queries = self.queries.weight.unsqueeze(1).repeat(1, x.shape[0], 1)
        y = self.decoder(torch.zeros_like(queries), queries, memory, positions)
        return {"classes": self.classes(y), "boxes": self.boxes(y).sigmoid()}


class EncoderLayer(nn.Module):
    """Self-attention and a perceptron, each followed by a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3)
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> Any:
        q = k = x + positions
        x = self.norm1(x + self.attention(q, k, value=x)[0])
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class DecoderLayer(nn.Module):
    """Self-attention among queries, then attention to the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(12, 3)
        self.cross = nn.MultiheadAttention(12, 3)
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(12), nn.LayerNorm(12), nn.LayerNorm(12)

    def forward(self, x: torch.Tensor, queries: torch.Tensor, memory: torch.Tensor, positions: torch.Tensor) -> Any:
        q = k = x + queries
        x = self.norm1(x + self.own(q, k, value=x)[0])
        x = self.norm2(x + self.cross(query=x + queries, key=memory + positions, value=memory)[0])
        return self.norm3(x + self.down(F.gelu(self.up(x))))


class LinearAttention(nn.Module):
    """Keys and values are contracted first: squares instead of the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.q, self.k, self.v = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 9)
        self.out = nn.Linear(9, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        q, k, v = (layer(x).unflatten(-1, (3, -1)) for layer in (self.q, self.k, self.v))
        q, k = q.pow(2), k.pow(2)
        state = torch.einsum("bnhd,bnhe->bhde", k, v)
        scale = 1 / torch.einsum("bnhd,bhd->bnh", q, k.sum(1))
        y = torch.einsum("bnhd,bhde,bnh->bnhe", q, state, scale)
        return self.head(x + self.out(y.flatten(2)))


class CrossCovariance(nn.Module):
    """XCiT: channels attend to channels, inside each head, at a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.qkv = nn.Linear(8, 36)
        self.temperature = nn.Parameter(torch.ones(3, 1, 1))
        self.out = nn.Linear(12, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.embed(x))
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, 3, -1).permute(2, 0, 3, 4, 1).unbind(0)
        weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature).softmax(-1)
        return self.head(x + self.out((weights @ v).permute(0, 3, 1, 2).reshape(b, t, -1)))


class Pooled(nn.Module):
    """Learned queries read a sequence of any length (Perceiver), and a class token reads the result (CaiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 9)
        self.latents = nn.Parameter(torch.randn(3, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.q, self.kv = nn.Linear(8, 12), nn.Linear(9, 24)
        self.out = nn.Linear(12, 8)
        self.gain = nn.Parameter(1e-1 * torch.ones(8))
        self.reader = nn.MultiheadAttention(8, 4, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        memory = torch.cos(self.embed(x))
        latents = self.latents.repeat(len(x), 1, 1)
        k, v = (part.unflatten(-1, (3, -1)).transpose(1, 2) for part in self.kv(memory).chunk(2, -1))
        q = self.q(latents).unflatten(-1, (3, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, scale=0.3).transpose(1, 2).flatten(2)
        latents = latents + self.gain * self.out(y)
        token = self.token.expand(len(x), -1, -1)
        joined = torch.cat([token, latents], 1)
        return self.head(torch.cos(token + self.reader(token, joined, joined, need_weights=False)[0])[:, 0])


class TwoTowers(nn.Module):
    """CLIP: an image and a text encoder, projected to one space, normalised, and compared at a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(1, 6, 2, 2), nn.SiLU(), nn.Flatten(), nn.Linear(24, 9), nn.Tanh())
        self.text = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
        self.image_projection = nn.Parameter(torch.randn(9, 10))
        self.text_projection = nn.Parameter(torch.randn(8, 10))
        self.temperature = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> Any:
        mask = torch.full((4, 4), -math.inf, dtype=image.dtype).triu_(1)
        text = self.block(self.text(tokens), src_mask=mask)
        text = text[torch.arange(len(tokens)), tokens.argmax(-1)] @ self.text_projection
        image = self.image(image) @ self.image_projection
        image = image / image.norm(dim=1, keepdim=True)
        text = text / text.norm(dim=1, keepdim=True)
        logits = self.temperature.exp() * image @ text.t()
        return logits, logits.t()


class CachedDecoder(nn.Module):
    """Generates from a cache of keys and values, a token at a time, with the output layer tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.positions = nn.Embedding(8, 8)
        self.q, self.k, self.v = (nn.Linear(8, 12) for _ in range(3))
        self.out = nn.Linear(12, 8)
        self.up, self.down = nn.Linear(8, 14), nn.Linear(14, 8)

    def forward(self, tokens: torch.Tensor) -> Any:
        cache: tuple[torch.Tensor, torch.Tensor] | None = None
        outputs = []
        for step in range(3):
            logits, cache = self._step(tokens, cache)
            outputs.append(logits)
            tokens = logits[:, -1:].argmax(-1) if step else tokens[:, :1]
        return outputs

    def _step(self, tokens: torch.Tensor, cache: Any) -> Any:
        past = 0 if cache is None else cache[0].shape[2]
        x = self.embed(tokens) + self.positions(torch.arange(past, past + tokens.shape[1]))
        q, k, v = (layer(x).unflatten(-1, (3, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(x)))
        return F.linear(x, self.embed.weight), (k, v)


class NonLocal(nn.Module):
    """Attention between positions of a map by 1 x 1 convolutions, with a gate that begins at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.query, self.key, self.value = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)
        self.out = nn.Conv2d(6, 8, 1)
        self.gate = nn.Parameter(torch.zeros(1))
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.stem(x))
        b, _, height, width = x.shape
        q = self.query(x).flatten(2).transpose(1, 2)
        weights = torch.bmm(q, self.key(x).flatten(2)).softmax(-1)
        y = torch.bmm(self.value(x).flatten(2), weights.transpose(1, 2))
        return self.head(x + self.gate * self.out(y.view(b, -1, height, width)))


class LatentAttention(nn.Module):
    """DeepSeek's attention: keys and values of all heads from one narrow latent."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.q = nn.Sequential(nn.Linear(8, 5, bias=False), nn.RMSNorm(5), nn.Linear(5, 12, bias=False))
        self.narrow = nn.Linear(8, 6, bias=False)
        self.norm = nn.RMSNorm(6)
        self.wide = nn.Linear(6, 24, bias=False)
        self.out = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: torch.Tensor) -> Any:
        x = self.embed(tokens)
        q = self.q(x).unflatten(-1, (3, -1)).transpose(1, 2)
        k, v = self.wide(self.norm(self.narrow(x))).unflatten(-1, (3, -1)).transpose(1, 2).chunk(2, -1)
        weights = (0.5 * q @ k.mT).softmax(-1)
        return self.head(torch.cos(x + self.out((weights @ v).transpose(1, 2).flatten(2))))


def tokens(*shape: int) -> Any:
    return lambda: torch.randint(11, shape)


HEADED = {"embed": 8, "q": 12, "v": 12}
FUSED = {"embed": 8, "qkv": 6, "qkv#2": 6}
SWIN = {"patches": 12, "blocks.0.mlp.0": 16, "blocks.1.mlp.0": 16, "merge": 20}
SWIN_MIXING = {"patches": "layer_norm", "merge": "layer_norm"}
WINDOWS = {f"blocks.{block}.qkv{part}": 12 for block in (0, 1) for part in ("", "#2")}
DETR_WIDTHS = {"project": 6, "project#2": 6, "encoder.attention": 3, "decoder.own": 3, "decoder.cross": 3}
DETR = DETR_WIDTHS | {"backbone.0": 6, "encoder.up": 16, "decoder.up": 16, "boxes.0": 9}


def biased(how: str, *, whole_heads: bool, more: dict[str, int] | None = None) -> Case:
    """Relative positions: the heads' biases stay where every head shrinks, and leave with whole heads."""
    groups = {"embed": 8, "q": 4} if whole_heads else HEADED
    return Case(
        f"bias-{how}{'-whole-heads' if whole_heads else ''}",
        lambda: RelativeBias(how, whole_heads=whole_heads),
        tokens(2, 5),
        groups | (more or {}),
        {} if whole_heads else {"q": 4, "v": 4},
    )


CASES: list[Case] = [
    Case(
        "swin",
        Swin,
        vector(2, 1, 8, 8),
        SWIN | WINDOWS,
        dict.fromkeys(WINDOWS, 3),
        SWIN_MIXING,
        tuple(frozenset({f"blocks.{block}.qkv", f"blocks.{block}.qkv#2"}) for block in (0, 1)),
    ),
    Case(
        "swin-whole-heads",
        lambda: Swin(whole_heads=True),
        vector(2, 1, 8, 8),
        SWIN | {"blocks.0": 3, "blocks.1": 3},
        mixing=SWIN_MIXING,
    ),
    biased("t5", whole_heads=False),
    biased("t5", whole_heads=True),
    biased("alibi", whole_heads=False),
    biased("alibi", whole_heads=True),
    biased("cpb", whole_heads=False, more={"net.0": 6}),
    biased("cpb", whole_heads=True, more={"net.0": 6}),
    Case("rotary-slices", lambda: RotaryPairs("slices"), vector(2, 4, 5), {"embed": 8, "q": 3, "v": 12}, {"v": 2}),
    Case("rotary-complex", lambda: RotaryPairs("complex"), vector(2, 4, 5), {"embed": 8, "q": 3, "v": 12}, {"v": 2}),
    Case("rotary-pairs", lambda: RotaryPairs("pairs"), vector(2, 4, 5), {"embed": 8, "q": 3, "v": 12}, {"v": 2}),
    Case(
        "rotary-partial",
        PartialRotary,
        tokens(2, 4),
        {"embed": 8, "qkv": 2, "qkv#2": 2, "qkv#3": 12},
        {"qkv#3": 2},
        ties=(frozenset({"qkv", "qkv#2", "qkv#3"}),),
    ),
    Case(
        "grouped-query-falcon", lambda: FusedGroupedQuery("falcon"), vector(2, 4, 5), {"embed": 8, "qkv": 3}, mask="all"
    ),
    Case(
        "grouped-query-torch",
        lambda: FusedGroupedQuery("torch"),
        vector(2, 4, 5),
        FUSED,
        {"qkv": 2, "qkv#2": 2},
        ties=(frozenset({"qkv", "qkv#2"}),),
    ),
    Case(
        "grouped-query-shared", lambda: FusedGroupedQuery("shared"), vector(2, 4, 5), {"embed": 8, "qkv": 3}, mask="all"
    ),
    Case(
        "detr",
        Detr,
        vector(2, 1, 6, 6),
        DETR,
        mixing={"project": "layer_norm", "project#2": "layer_norm"},  # one half beside columns, one beside rows
        ties=(frozenset(DETR_WIDTHS),),
    ),
    Case("linear-attention", LinearAttention, vector(2, 4, 5), {"embed": 8, "q": 4, "v": 3}),
    Case(
        "cross-covariance",
        CrossCovariance,
        vector(2, 4, 5),
        {"embed": 8, "qkv": 4, "qkv#2": 4},
        mixing={"qkv#2": "softmax"},
        ties=(frozenset({"qkv", "qkv#2"}),),
    ),
    Case(
        "pooled",
        Pooled,
        vector(2, 4, 5),
        {"latents": 3, "latents#2": 8, "embed": 9, "q": 12, "kv": 12, "reader": 4},
        {"q": 3, "kv": 3},
        {"latents": "softmax"},
        (frozenset({"q", "kv"}), frozenset({"latents#2", "reader"})),
        counted=False,  # torch's counter follows gradients, which the class token has none of its own
    ),
    Case(
        "two-towers",
        TwoTowers,
        lambda: (torch.randn(3, 1, 4, 4), torch.randint(11, (3, 4))),
        {"image.0": 6, "image.3": 9, "image_projection": 10, "text": 8, "block.self_attn": 2, "block.linear1": 12},
        mixing={"text": "layer_norm"},
        ties=(frozenset({"text", "block.self_attn"}),),
    ),
    Case(
        "cached-decoder",
        CachedDecoder,
        tokens(2, 3),
        HEADED | {"up": 14},
        {"q": 3, "v": 3},
        keep=frozenset({"q"}),  # pruned twice: narrower than values, torch divides by another width
    ),
    Case("non-local", NonLocal, vector(2, 2, 3, 3), {"stem": 8, "query": 4, "value": 6}),
    Case(
        "latent-attention",
        LatentAttention,
        tokens(2, 4),
        {"embed": 8, "q.0": 5, "q.2": 12, "narrow": 6, "wide": 12},
        {"q.2": 3, "wide": 3},
        {"q.0": "mean", "narrow": "mean"},
        (frozenset({"q.2", "wide"}),),
    ),
]

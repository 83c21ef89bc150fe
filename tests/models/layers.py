"""What surrounds ordinary layers: parametrised weights, scales, tokens, dropped paths, gates, copies, own functions."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.models.case import Case, call
from tests.models.habits import ENC, MAPS, chain, convs, habit, tensors
from tests.models.vectors import Mlp, vector, vectors


def parametrised(how: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    """Three linear layers, the first two with a parametrised weight."""
    return lambda: nn.Sequential(how(nn.Linear(5, 9)), nn.SiLU(), how(nn.Linear(9, 8)), nn.SiLU(), nn.Linear(8, 3))


def parametrised_maps(how: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        how(nn.Conv2d(2, 6, 3, padding=1)),
        nn.SiLU(),
        how(nn.ConvTranspose2d(6, 5, 2, 2)),
        nn.SiLU(),
        nn.Conv2d(5, 1, 1),
    )


def by_hook(how: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    """A parametrisation of the old kind, which computes the weight in a hook before every call."""

    def wrap(module: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = how(module)
        with torch.no_grad():  # a weight with a history could not be copied
            for hook in wrapped._forward_pre_hooks.values():
                hook(wrapped, ())
        return wrapped

    return wrap


def in_training(model: nn.Module, inputs: Any) -> Any:
    """One call in training mode, and every buffer as before it."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    try:
        return call(model, inputs)
    finally:
        model.eval()
        for buffer, value in before:
            buffer.data.copy_(value)  # a backward pass may still need the buffer's version


class Symmetric(nn.Module):
    """A parametrisation of one's own: a square weight is made symmetric."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.triu() + weight.triu(1).mT


class Positive(nn.Module):
    """Another, index by index."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.abs()


class LowRankUpdate(nn.Module):
    """LoRA as a parametrisation: a frozen weight and a trained product of rank three."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(rows, 3)), nn.Parameter(torch.randn(3, columns))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


def symmetric() -> nn.Module:
    square = parametrize.register_parametrization(nn.Linear(8, 8), "weight", Symmetric())
    return nn.Sequential(nn.Linear(5, 8), nn.SiLU(), square, nn.SiLU(), nn.Linear(8, 3))


def low_rank_updates() -> nn.Module:
    model = Mlp(5, 9, 8, 3, act=nn.SiLU).requires_grad_(False)
    for layer in model.children():
        if isinstance(layer, nn.Linear) and layer.out_features > 3:
            parametrize.register_parametrization(layer, "weight", LowRankUpdate(*layer.weight.shape))
    return model


class DropPath(nn.Module):
    """Stochastic depth: in training, a whole sample's branch is dropped."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.7)
        return x * kept.div_(0.7)


class CaiT(nn.Module):
    """A block with layer scale and stochastic depth on both branches, positions and a class token, norm first."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(8, 18), nn.Linear(6, 8)
        self.mlp = Mlp(8, 12, 8, act=nn.GELU)
        self.gain1, self.gain2 = (nn.Parameter(1e-1 * torch.ones(8)) for _ in range(2))
        self.drop = DropPath()
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.embed(x)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.positions[:, : x.shape[1]]
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = ((q @ k.mT * 0.6).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + self.drop(self.gain1 * self.out(y))
        x = x + self.drop(self.gain2 * self.mlp(self.norm2(x)))
        return self.head(self.norm(x)[:, 0])


class StochasticResNet(nn.Module):
    """Whole blocks are skipped at random in training; in evaluation they are weighted by how often they stay."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(6, 7, 3, padding=1), nn.BatchNorm2d(7), nn.SiLU(), nn.Conv2d(7, 6, 1))
                for _ in range(3)
            ]
        )
        self.head = nn.Conv2d(6, 1, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.stem(x))
        for block in self.blocks:
            if not self.training:
                x = x + 0.6 * block(x)
            elif torch.rand(()) < 0.8:
                x = x + block(x)
        return self.head(x)


class Excited(nn.Module):
    """Squeeze-and-excitation, by convolutions or by linear layers, and an efficient channel attention."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.gate: nn.Module
        if how == "efficient":
            self.gate = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        elif how == "linear":
            self.gate = nn.Sequential(nn.Linear(8, 4, bias=False), nn.SiLU(), nn.Linear(4, 8, bias=False), nn.Sigmoid())
        else:
            self.gate = nn.Sequential(nn.Conv2d(8, 4, 1), nn.SiLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid())
        self.spatial = nn.Conv2d(2, 1, 3, padding=1) if how == "block attention" else None
        self.head = nn.Conv2d(8, 1, 1)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.cos(self.stem(x))
        if self.how == "efficient":
            pooled = x.mean((2, 3), keepdim=True).squeeze(-1).transpose(-1, -2)
            return self.head(x * self.gate(pooled).transpose(-1, -2).unsqueeze(-1).sigmoid())
        if self.how == "linear":
            b, c, _, _ = x.size()
            return self.head(x * self.gate(F.adaptive_avg_pool2d(x, 1).view(b, c)).view(b, c, 1, 1).expand_as(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True))
        if self.spatial is not None:
            x = x * torch.sigmoid(self.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))
        return self.head(x)


class TiedMaps(nn.Module):
    """A convolutional autoencoder whose decoder convolves with the encoder's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Conv2d(1, 6, 2, 2)
        self.code = nn.Conv2d(6, 5, 1)
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, x: torch.Tensor) -> Any:
        code = torch.sigmoid(self.code(torch.sigmoid(self.enc(x))))
        back = torch.sigmoid(F.conv_transpose2d(code, self.code.weight, self.bias))
        return F.conv_transpose2d(back, self.enc.weight, stride=2)


class TiedTranslator(nn.Module):
    """One table for the source, the target and the output; one block for encoder and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(11, 8)
        self.target = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 11)
        self.target.weight = self.source.weight
        self.head.weight = self.source.weight
        self.block = Mlp(8, 12, 8, act=nn.GELU)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> Any:
        memory = self.block(self.source(source) * 8**0.5).mean(1, keepdim=True)
        return self.head(self.block(self.target(target) + memory))


class Halves(nn.Module):
    """``chunk(2)``, and the halves go different ways: one is gated and normalised, the other bounded and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(6, 16)
        self.mean = nn.Linear(8, 7)
        self.deviation = nn.Linear(8 + 5, 3)
        self.gate = nn.Linear(6, 8)
        self.head = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        left, right = self.both(x).chunk(2, dim=-1)
        mean = self.head(torch.cos(self.mean(left * torch.sigmoid(self.gate(x)))))
        return mean, F.softplus(self.deviation(torch.cat([y, torch.tanh(right)], -1)))


class Unshuffled(nn.Module):
    """Positions become channels and back: super-resolution, and focus layers of detectors."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 5, 3, padding=1)
        self.inside = nn.Conv2d(20, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Conv2d(3, 1, 1)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.stem(x))
        if self.how == "focus":
            h = torch.cat([h[..., ::2, ::2], h[..., 1::2, ::2], h[..., ::2, 1::2], h[..., 1::2, 1::2]], 1)
        elif self.how == "views":
            b, c, height, width = h.shape
            h = h.reshape(b, c, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
            h = h.reshape(b, 4 * c, height // 2, width // 2)
        else:
            h = F.pixel_unshuffle(h, 2)
        return self.head(torch.cos(F.pixel_shuffle(torch.cos(self.norm(self.inside(h))), 2)))


class Statistics(nn.Module):
    """Buffers per channel: running statistics by hand, a codebook's usage, a fixed projection, a mask of channels."""

    mean: torch.Tensor
    scale: torch.Tensor
    projection: torch.Tensor
    alive: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Linear(6, 10)
        self.register_buffer("mean", torch.randn(10))
        self.register_buffer("scale", torch.rand(1, 10, 1) + 0.5)
        self.register_buffer("projection", torch.randn(10, 7))
        self.register_buffer("alive", torch.rand(10) > 0.2)
        self.inside = nn.Linear(7, 8)
        self.head = nn.Linear(18, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.enc(x)
        if self.training:
            self.mean.lerp_(h.detach().mean(0), 0.1)
        h = ((h - self.mean)[..., None] * self.scale).squeeze(-1) * self.alive
        return self.head(torch.cat([torch.cos(self.inside(torch.cos(h @ self.projection))), h], -1))


class Square(torch.autograd.Function):
    """An own function whose backward needs nothing but what it saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x + 0.5

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradients[0]


class Rounded(torch.autograd.Function):
    """Straight through: rounded forward, passed on backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class OwnLinear(torch.autograd.Function):
    """A linear layer with setup_context, and a backward that reads sizes from what was saved."""

    @staticmethod
    def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x.mm(weight.t())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.width = output.shape[1]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return gradients[0].view(-1, ctx.width).mm(weight), gradients[0].t().mm(x)


def apply(function: Any, *tensors: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = function.apply(*tensors)
    return result


def own_function(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](apply(Square, m.inner[0](x)))


def straight_through(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](apply(Rounded, torch.tanh(m.inner[0](x))))


def own_linear(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.cos(apply(OwnLinear, x, m.inner[0].weight)))


class OnlineAndTarget(nn.Module):
    """BYOL: a predictor on one network meets the other, whose parameters follow the first one's."""

    def __init__(self) -> None:
        super().__init__()
        self.online = Mlp(6, 9, 8, 7, act=nn.SiLU)
        self.predictor = Mlp(7, 10, 7, act=nn.SiLU)
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        with torch.no_grad():
            target = F.normalize(self.target(y), dim=-1)
        return 2 - 2 * (F.normalize(self.predictor(self.online(x)), dim=-1) * target).sum(-1)


def updated(model: Any, inputs: Any) -> Any:
    """The loss, then where the target would go next, towards the online network: so their widths stay equal."""
    loss = model(*inputs)
    with torch.no_grad():
        for follower, leader in zip(model.target.parameters(), model.online.parameters(), strict=True):
            follower.lerp(leader, 0.01)
    return loss


def averaged() -> nn.Module:
    return AveragedModel(
        nn.Sequential(nn.Linear(5, 9), nn.BatchNorm1d(9), nn.SiLU(), nn.Linear(9, 3)), use_buffers=True
    )


def averaged_by_ema() -> nn.Module:
    return AveragedModel(Mlp(5, 9, 8, 3, act=nn.SiLU), multi_avg_fn=get_ema_multi_avg_fn(0.9))


@dataclass
class Nested:
    logits: torch.Tensor
    hidden: tuple[dict[str, torch.Tensor | None], ...] = ()
    loss: float | None = None


class NestedOutputs(nn.Module):
    """Outputs inside dataclasses, tuples and mappings, some of them None, one given twice, one a plain number."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = Mlp(5, 9, 8, act=nn.SiLU)
        self.head = Mlp(8, 7, 2, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> Any:
        logits = self.head(torch.cos(self.enc(x)))
        return Nested(logits, ({"again": logits, "none": None}, {"sum": logits.sum()}), loss=0.5)


class LazyStack(nn.Module):
    """Lazy layers, which have got their shapes from a first run."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LazyConv2d(6, 3, padding=1), nn.LazyBatchNorm2d(), nn.SiLU(), nn.Flatten(), nn.LazyLinear(8), nn.SiLU(),
            nn.LazyLinear(2),
        )  # fmt: skip
        self.net(torch.zeros(2, 3, 4, 4))

    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x)


def weight_standardised(m: Any, x: torch.Tensor) -> Any:
    """Convolutions whose weights are normalised over all but their first axis, with a gain (NFNet)."""
    first, second = m.inner
    weight = F.batch_norm(
        first.weight.reshape(1, first.out_channels, -1), None, None, weight=m.gain, training=True, momentum=0.0
    ).reshape_as(first.weight)
    return second(torch.cos(F.conv2d(x, weight, first.bias, padding=1)))


def modulated_convolution(m: Any, x: torch.Tensor) -> Any:
    """StyleGAN: weights scaled per sample and input channel, then normalised; a group of one convolution per sample."""
    stem, style, head = m.inner
    h = torch.cos(stem(x))
    b, c, height, width = h.shape
    weight = m.kernel.unsqueeze(0) * style(x.mean((2, 3)))[:, None, :, None, None]
    weight = weight * (weight.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    out = F.conv2d(h.reshape(1, -1, height, width), weight.reshape(-1, c, 3, 3), padding=1, groups=b)
    return head(torch.cos(out.reshape(b, -1, height, width)))


def adaptive_instance_norm(m: Any, x: torch.Tensor) -> Any:
    stem, style, head = m.inner
    h = stem(x)
    scale, shift = style(x.mean((2, 3))).chunk(2, 1)
    h = F.instance_norm(h) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    return head(torch.cos(h))


def conditioned(m: Any, x: torch.Tensor) -> Any:
    """A diffusion network's time embedding: sines and cosines of its own width, a perceptron, one bias per channel."""
    time = x[:, 0]
    half = m.inner[0].weight.shape[1] // 2
    angles = time[:, None] * torch.exp(-torch.arange(half, dtype=x.dtype) / half)
    embedding = F.silu(m.inner[0](torch.cat([angles.sin(), angles.cos()], -1)))
    return m.inner[2](torch.cos(m.inner[1](x) + m.inner[3](embedding)))


def norm_with_own_gain(m: Any, x: torch.Tensor) -> Any:
    """A norm over positions and channels of a map, with parameters of that shape but for the positions."""
    h = m.inner[0](x)
    mean, variance = h.mean(1, keepdim=True), h.var(1, keepdim=True, unbiased=False)
    return m.inner[1]((h - mean) / (variance + 1e-5).sqrt() * m.gain[:, None, None] + m.bias[:, None, None])


def response_normalised(m: Any, x: torch.Tensor) -> Any:
    """ConvNeXt V2's global response normalisation: each channel's norm over the mean of all channels'."""
    h = m.inner[0](x)
    size = torch.norm(h, p=2, dim=(2, 3), keepdim=True)
    return m.inner[1](m.gain * (h * (size / (size.mean(1, keepdim=True) + 1e-6))) + m.bias + h)


def generalised_mean(m: Any, x: torch.Tensor) -> Any:
    """A generalised mean over positions with a learned power."""
    h = F.softplus(m.inner[0](x))
    return m.inner[1](h.pow(m.power).mean((2, 3), keepdim=True).pow(1 / m.power))


TWO = {"0": 9, "2": 8}
WHOLE: dict[str, Any] = {"dim": None}
MAPS_OF_TWO = {"0": 6, "2": 5}
CAIT = {"token": 8, "qkv": 6, "qkv#2": 6, "mlp.0": 12}
CAIT_BLOCKS = {"qkv": 2, "qkv#2": 2}
CAIT_TIES = (frozenset({"qkv", "qkv#2"}),)
DEEP = {"stem": 6, "blocks.0.0": 7, "blocks.1.0": 7, "blocks.2.0": 7}
ONLINE = {"online.0": 9, "online.2": 8, "online.4": 7, "predictor.0": 10}


def parametrisation(
    name: str, how: Callable[[nn.Module], nn.Module], groups: dict[str, int] | None = None, **expected: Any
) -> Case:
    return Case(name, parametrised(how), vector(4, 5), TWO if groups is None else groups, **expected)


def excited(how: str, groups: dict[str, int], **expected: Any) -> Case:
    return Case(f"excited-{how.replace(' ', '-')}", lambda: Excited(how), vector(2, 2, 4, 4), groups, **expected)


def unshuffled(how: str) -> Case:
    return Case(f"unshuffled-{how}", lambda: Unshuffled(how), vector(2, 1, 4, 4), {"stem": 5, "inside": 3})


CASES: list[Case] = [
    parametrisation("weight-norm-hook", by_hook(nn.utils.weight_norm), mixing={"0": "weight norm"}),
    parametrisation(
        "weight-norm-columns",
        lambda m: parametrizations.weight_norm(m, dim=1),
        mixing={"0": "weight norm", "2": "weight norm"},
    ),
    Case(
        "weight-norm-maps",
        parametrised_maps(parametrizations.weight_norm),
        vector(2, 2, 4, 4),
        MAPS_OF_TWO,
        mixing={"2": "weight norm"},
        keep=frozenset({"0"}),  # to mask it would be to normalise rows of zeros
    ),
    parametrisation("weight-norm-whole", lambda m: parametrizations.weight_norm(m, **WHOLE), mask="all"),
    # Torch's own counter leaves out what a spectral norm multiplies.
    parametrisation("spectral-norm", parametrizations.spectral_norm, counted=False),
    parametrisation("spectral-norm-training", parametrizations.spectral_norm, run=in_training, counted=False),
    parametrisation("spectral-norm-hook", by_hook(nn.utils.spectral_norm), counted=False),
    Case(
        "spectral-norm-maps",
        parametrised_maps(parametrizations.spectral_norm),
        vector(2, 2, 4, 4),
        MAPS_OF_TWO,
        counted=False,
    ),
    parametrisation("orthogonal", parametrizations.orthogonal, {"0": 9}),
    parametrisation("own-parametrisation", lambda m: parametrize.register_parametrization(m, "weight", Positive())),
    Case("symmetric", symmetric, vector(4, 5), {"0": 8}, mask="all"),
    Case(
        "low-rank-updates",
        low_rank_updates,
        vector(4, 5),
        TWO | {"0.parametrizations.weight.0": 3, "2.parametrizations.weight.0": 3},
        mask="all",
    ),
    Case("cait", CaiT, vector(2, 4, 5), CAIT, CAIT_BLOCKS, {"token": "layer_norm"}, CAIT_TIES),
    Case("cait-training", CaiT, vector(2, 4, 5), CAIT, CAIT_BLOCKS, {"token": "layer_norm"}, CAIT_TIES, in_training),
    Case("stochastic-depth", StochasticResNet, vector(2, 2, 4, 4), DEEP),
    Case("stochastic-depth-training", StochasticResNet, vector(2, 2, 4, 4), DEEP, run=in_training),
    excited("convolutions", {"stem": 8, "gate.0": 4}),
    excited("linear", {"stem": 8, "gate.0": 4}),
    excited("efficient", {}),
    excited("block attention", {"stem": 8, "gate.0": 4}, mixing={"stem": "over channels"}),
    Case("tied-maps", TiedMaps, vector(2, 1, 4, 4), {"bias": 6, "code": 5}),
    Case(
        "tied-everywhere",
        TiedTranslator,
        lambda: (torch.randint(11, (2, 4)), torch.randint(11, (2, 3))),
        {"source": 8, "block.0": 12},
    ),
    Case(
        "chunked-halves",
        Halves,
        vectors((4, 6), (4, 5)),
        {"both": 8, "both#2": 8, "mean": 7},
        ties=(frozenset({"both", "both#2"}),),
    ),
    unshuffled("torch"),
    unshuffled("focus"),
    unshuffled("views"),
    Case("channel-statistics", Statistics, vector(4, 6), {"enc": 10, "projection": 7, "inside": 8}),
    Case(
        "channel-statistics-training",
        Statistics,
        vector(4, 6),
        {"enc": 10, "projection": 7, "inside": 8},
        run=in_training,
    ),
    habit("own-function", own_function, chain(12, 12), {ENC: 12}),
    habit("own-function-straight", straight_through, chain(12, 12), {ENC: 12}),
    habit("own-function-linear", own_linear, lambda: [nn.Linear(6, 12, bias=False), nn.Linear(12, 2)], {ENC: 12}),
    Case(
        "online-and-target",
        OnlineAndTarget,
        vectors((4, 6), (4, 6)),
        ONLINE | {"predictor.2": 7, "target.0": 9, "target.2": 8},
    ),
    Case("online-and-target-updated", OnlineAndTarget, vectors((4, 6), (4, 6)), ONLINE, run=updated, mask="all"),
    Case("averaged", averaged, vector(4, 5), {"module.0": 9}),
    Case("averaged-by-ema", averaged_by_ema, vector(4, 5), {"module.0": 9, "module.2": 8}),
    Case("nested-outputs", NestedOutputs, vector(4, 5), {"enc.0": 9, "enc.2": 8, "head.0": 7}),
    Case("lazy-stack", LazyStack, vector(2, 3, 4, 4), {"net.0": 6, "net.4": 8}),
    habit(
        "standardised-convolution",
        weight_standardised,
        lambda: [nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)],
        {"gain": 6},
        shape=MAPS,
        tensors=tensors(gain=(6,)),
    ),
    habit(
        "modulated-convolution",
        modulated_convolution,
        lambda: [nn.Conv2d(3, 6, 1), nn.Linear(3, 6), nn.Conv2d(5, 2, 1)],
        {"kernel": 5, "kernel#2": 6},
        shape=MAPS,
        tensors=tensors(kernel=(5, 6, 3, 3)),
    ),
    habit(
        "adaptive-instance-norm",
        adaptive_instance_norm,
        lambda: [nn.Conv2d(3, 6, 1), nn.Linear(3, 12), nn.Conv2d(6, 2, 1)],
        {ENC: 6},
        shape=MAPS,
    ),
    habit(
        "time-embedding",
        conditioned,
        lambda: [nn.Linear(8, 10), nn.Linear(6, 12), nn.Linear(12, 2), nn.Linear(10, 12)],
        {ENC: 10, "inner.1": 12},
    ),
    habit(
        "norm-with-own-gain",
        norm_with_own_gain,
        convs((3, 6), (6, 2)),
        {"gain": 6},
        shape=MAPS,
        tensors=tensors(gain=(6,), bias=(6,)),
        mixing={"gain": "mean"},
    ),
    habit(
        "response-normalised",
        response_normalised,
        convs((3, 6), (6, 2)),
        {"gain": 6},
        shape=MAPS,
        tensors=tensors(gain=(1, 6, 1, 1), bias=(1, 6, 1, 1)),
        mixing={"gain": "mean"},
    ),
    habit(
        "generalised-mean",
        generalised_mean,
        convs((3, 6), (6, 2)),
        {ENC: 6},
        shape=MAPS,
        tensors=lambda: {"power": torch.tensor([3.0])},
    ),
]

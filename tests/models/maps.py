"""Models of feature maps: convolutions plain, grouped, depthwise and transposed, norms, shuffles, skips, shortcuts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case
from tests.models.vectors import vector


def conv_norm(before: int, after: int, kernel: int = 3, **options: Any) -> nn.Sequential:
    """A convolution that keeps the size (at stride 1), a batch norm and a ReLU."""
    conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


class ConvAutoencoder(nn.Module):
    """Down by strides, through a vector, and up by transposed convolutions."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.SiLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.SiLU())
        self.code = nn.Linear(8 * 4, 10)
        self.grow = nn.Linear(10, 8 * 4)
        self.unflatten = nn.Unflatten(1, (8, 2, 2))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 6, 2, 2), nn.SiLU(), nn.ConvTranspose2d(6, 1, 2, 2))
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        h = self.grow(torch.cos(self.code(self.down(x).flatten(1))))
        if self.how == "unflatten":
            h = self.unflatten(h)
        elif self.how == "view -1":
            h = h.view(h.shape[0], -1, 2, 2)
        else:
            h = h.view(-1, 8, 2, 2)
        return self.up(torch.cos(h))


class UNet(nn.Module):
    def __init__(self, *, upsample: bool = False) -> None:
        super().__init__()
        self.stem = conv_norm(2, 6)
        self.down = conv_norm(6, 8)
        self.mid = conv_norm(8, 10)
        self.up1 = nn.Conv2d(10, 8, 1) if upsample else nn.ConvTranspose2d(10, 8, 2, 2)
        self.dec1 = conv_norm(8 + 8, 7)
        self.up2 = nn.Conv2d(7, 6, 1) if upsample else nn.ConvTranspose2d(7, 6, 2, 2)
        self.dec2 = conv_norm(6 + 6, 5)
        self.head = nn.Conv2d(5, 1, 1)
        self.upsample = upsample

    def forward(self, x: torch.Tensor) -> Any:
        a = self.stem(x)
        b = self.down(F.max_pool2d(a, 2))
        c = self.mid(F.avg_pool2d(b, 2))
        d = self.dec1(torch.cat([self._grown(self.up1(c)), b], dim=1))
        return self.head(self.dec2(torch.cat([a, self._grown(self.up2(d))], dim=1)))

    def _grown(self, h: torch.Tensor) -> torch.Tensor:
        return F.interpolate(h, scale_factor=2, mode="bilinear") if self.upsample else h


class Residual(nn.Module):
    """A basic or bottleneck block with a strided shortcut where the width changes."""

    def __init__(self, before: int, after: int, *, stride: int = 1, middle: int | None = None) -> None:
        super().__init__()
        if middle is None:
            self.body = nn.Sequential(
                *conv_norm(before, after, stride=stride), nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after)
            )
        else:
            self.body = nn.Sequential(
                *conv_norm(before, middle, 1),
                *conv_norm(middle, middle, stride=stride),
                nn.Conv2d(middle, after, 1),
                nn.BatchNorm2d(after),
            )
        self.short: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> Any:
        return F.relu(self.short(x) + self.body(x))


class ResNet(nn.Sequential):
    def __init__(self, *, bottleneck: bool) -> None:
        middle = 4 if bottleneck else None
        super().__init__(
            conv_norm(2, 6),
            Residual(6, 6, middle=middle),
            Residual(6, 8, stride=2, middle=middle),
            Residual(8, 8, middle=middle),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        )


class PaddedShortcut(nn.Module):
    """A shortcut without parameters: every second position, and zeros for the new channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, 1, 1)
        self.body = nn.Conv2d(6, 10, 3, 2, 1)
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.stem(x))
        return self.head(torch.cos(F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + self.body(h)))


class DenseLayer(nn.Module):
    def __init__(self, before: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, 7, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(7)
        self.conv2 = nn.Conv2d(7, 4, 3, 1, 1, bias=False)

    def forward(self, features: list[torch.Tensor]) -> Any:
        h = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(h)))


class DenseNet(nn.Module):
    """Every layer reads all features before it, each through a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, 1, 1)
        self.layers = nn.ModuleList([DenseLayer(6), DenseLayer(10), DenseLayer(14)])
        self.transition = conv_norm(18, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        h = F.avg_pool2d(self.transition(torch.cat(features, 1)), 2)
        return self.head(h.mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, 4, 1)
        self.expand = nn.Conv2d(4, width, 1)

    def forward(self, x: torch.Tensor) -> Any:
        gate = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(gate))))


class Inverted(nn.Module):
    """MobileNet's block: expand, depthwise, squeeze and excite, project."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        wide = 2 * before
        self.expand = conv_norm(before, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.norm = nn.BatchNorm2d(wide)
        self.excite = SqueezeExcite(wide)
        self.project = nn.Sequential(nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after))
        self.residual = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> Any:
        h = F.hardswish(self.norm(self.depthwise(self.expand(x))))
        h = self.project(self.excite(h))
        return x + h if self.residual else h


class ConvNext(nn.Module):
    """A depthwise convolution, a layer norm over the last dimension, a perceptron and a scale per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 2, 2)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.norm = nn.LayerNorm(8)
        self.wide = nn.Linear(8, 12)
        self.narrow = nn.Linear(12, 8)
        self.gamma = nn.Parameter(torch.ones(8))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.stem(x)
        h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        h = self.gamma * self.narrow(F.gelu(self.wide(h)))
        return self.head(torch.cos(x + h.permute(0, 3, 1, 2)))


class ChannelShuffle(nn.Module):
    """Two grouped convolutions with a shuffle between them, by hand or by torch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 1)
        self.first = nn.Conv2d(8, 12, 1, groups=2)
        self.second = nn.Conv2d(12, 8, 1, groups=2)
        self.head = nn.Conv2d(8, 2, 1)
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.cos(self.second(self._shuffled(torch.cos(self.first(torch.cos(self.stem(x))))))))

    def _shuffled(self, h: torch.Tensor) -> torch.Tensor:
        if self.how == "torch":
            return F.channel_shuffle(h, 2)
        b, c, height, width = h.shape
        if self.how == "numbers":
            return h.view(b, 2, 6, height, width).transpose(1, 2).reshape(b, 12, height, width)
        split = h.view(b, 2, -1 if self.how == "-1" else c // 2, height, width)
        return split.transpose(1, 2).reshape(b, -1 if self.how == "-1" else c, height, width)


class SpaceToDepth(nn.Module):
    """Two by two positions become channels, by views."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, 1, 1)
        self.head = nn.Conv2d(24, 3, 1)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.stem(x))
        b, c, height, width = h.shape
        h = h.view(b, c, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return self.head(h.reshape(b, c * 4, height // 2, width // 2))


class Inception(nn.Module):
    """Branches of several kernels, one of them pooled, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 5, 1)
        self.branches = nn.ModuleList(
            [
                nn.Conv2d(5, 4, 1),
                conv_norm(5, 6),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(5, 4, 1)),
                nn.Sequential(nn.ReflectionPad2d(1), nn.AvgPool2d(3, 1)),
            ]
        )
        self.head = nn.Conv2d(19, 3, 1)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.stem(x))
        return self.head(torch.cos(torch.cat([branch(h) for branch in self.branches], dim=1)))


class Causal(nn.Module):
    """Dilated one-dimensional convolutions, padded on both sides and cut on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, 8, 3, padding=2)
        self.second = nn.Conv1d(8, 8, 3, padding=4, dilation=2)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.first(x)[:, :, :-2])
        h = h + torch.cos(self.second(h)[..., :-4])
        return self.head(h.transpose(1, 2))


class Pools(nn.Module):
    """Convolution, pooling of several sizes, flattened and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, 1, 1)
        self.head = nn.Linear(6 * (1 + 4) + 6, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.stem(x))
        pooled = [F.adaptive_avg_pool2d(h, 1).flatten(1), F.adaptive_max_pool2d(h, 2).flatten(1), h.sum((2, 3))]
        return self.head(torch.cat(pooled, dim=1))


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 24, 3, 1, 1), nn.PixelShuffle(2), nn.SiLU(), nn.Conv2d(6, 4, 3, 1, 1), nn.PixelUnshuffle(2),
        nn.Sigmoid(), nn.Conv2d(16, 3, 1),
    )  # fmt: skip


def grouped() -> nn.Module:
    """ResNeXt's shape: narrow, grouped, wide."""
    return nn.Sequential(conv_norm(3, 12, 1), conv_norm(12, 12, groups=3), nn.Conv2d(12, 4, 1))


def mobile() -> nn.Module:
    return nn.Sequential(
        conv_norm(2, 6), Inverted(6, 6, 1), Inverted(6, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 6, 3, 1, 1), nn.BatchNorm3d(6), nn.SiLU(), nn.MaxPool3d(2), nn.Conv3d(6, 8, 1), nn.Sigmoid(),
        nn.ConvTranspose3d(8, 2, 2, 2),
    )  # fmt: skip


def normed(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 12, 3, 1, 1), norm, nn.Sigmoid(), nn.Conv2d(12, 3, 1))


def transposed_groups(groups: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.SiLU(), nn.ConvTranspose2d(8, 8, 2, 2, groups=groups), nn.Sigmoid(), nn.Conv2d(8, 3, 1)
    )


UNET_GROUPS = {"stem.0": 6, "down.0": 8, "mid.0": 10, "up1": 8, "dec1.0": 7, "up2": 6, "dec2.0": 5}
SHUFFLE_GROUPS = {"stem": 4, "first": 3, "second": 8}

CASES = [
    Case(
        "conv-autoencoder",
        lambda: ConvAutoencoder("view -1"),
        vector(2, 1, 8, 8),
        {"down.0": 6, "down.2": 8, "code": 10, "grow": 8, "up.0": 6},
    ),
    Case(
        "conv-autoencoder-unflatten",
        lambda: ConvAutoencoder("unflatten"),
        vector(2, 1, 8, 8),
        {"down.0": 6, "down.2": 8, "code": 10, "grow": 8, "up.0": 6},
    ),
    Case(
        "conv-autoencoder-numbers",
        lambda: ConvAutoencoder("numbers"),
        vector(2, 1, 8, 8),
        {"down.0": 6, "down.2": 8, "code": 10, "up.0": 6},
    ),
    Case("unet", UNet, vector(2, 2, 8, 8), UNET_GROUPS),
    Case("unet-upsampling", lambda: UNet(upsample=True), vector(2, 2, 8, 8), UNET_GROUPS),
    Case(
        "resnet-basic",
        lambda: ResNet(bottleneck=False),
        vector(2, 2, 6, 6),
        {"0.0": 6, "1.body.0": 6, "2.body.0": 8, "2.body.3": 8, "3.body.0": 8},
    ),
    Case(
        "resnet-bottleneck",
        lambda: ResNet(bottleneck=True),
        vector(2, 2, 6, 6),
        {
            "0.0": 6,
            "1.body.0": 4,
            "1.body.3": 4,
            "2.body.0": 4,
            "2.body.3": 4,
            "2.body.6": 8,
            "3.body.0": 4,
            "3.body.3": 4,
        },
    ),
    Case("padded-shortcut", PaddedShortcut, vector(2, 2, 6, 6), {"stem": 6}),
    Case(
        "densenet",
        DenseNet,
        vector(2, 2, 6, 6),
        {
            "stem": 6,
            "layers.0.conv1": 7,
            "layers.0.conv2": 4,
            "layers.1.conv1": 7,
            "layers.1.conv2": 4,
            "layers.2.conv1": 7,
            "layers.2.conv2": 4,
            "transition.0": 8,
        },
    ),
    Case(
        "mobilenet",
        mobile,
        vector(2, 2, 6, 6),
        {"0.0": 6, "1.expand.0": 12, "1.excite.reduce": 4, "2.expand.0": 12, "2.excite.reduce": 4, "2.project.0": 8},
    ),
    Case("resnext", grouped, vector(2, 3, 6, 6), {"0.0": 4, "1.0": 12}, blocks={"1.0": 3}),
    Case("convnext", ConvNext, vector(2, 2, 6, 6), {"gamma": 8, "wide": 12}, mixing={"gamma": "layer_norm"}),
    Case("pixel-shuffle", pixel_shuffle, vector(2, 2, 4, 4), {"0": 6, "3": 4}),
    Case("channel-shuffle", lambda: ChannelShuffle("torch"), vector(2, 4, 3, 3), SHUFFLE_GROUPS, blocks={"second": 2}),
    Case(
        "channel-shuffle-shapes",
        lambda: ChannelShuffle("shapes"),
        vector(2, 4, 3, 3),
        SHUFFLE_GROUPS,
        blocks={"second": 2},
    ),
    Case("channel-shuffle--1", lambda: ChannelShuffle("-1"), vector(2, 4, 3, 3), SHUFFLE_GROUPS, blocks={"second": 2}),
    Case(
        "channel-shuffle-numbers",
        lambda: ChannelShuffle("numbers"),
        vector(2, 4, 3, 3),
        {"stem": 4, "second": 8},
        blocks={"second": 2},
    ),
    Case("space-to-depth", SpaceToDepth, vector(2, 2, 4, 4), {"stem": 6}),
    Case(
        "inception", Inception, vector(2, 2, 5, 5), {"stem": 5, "branches.0": 4, "branches.1.0": 6, "branches.2.1": 4}
    ),
    Case("causal", Causal, vector(2, 3, 7), {"first": 8}),
    Case("pools", Pools, vector(2, 2, 6, 6), {"stem": 6}),
    Case("volume", volume, vector(1, 1, 4, 4, 4), {"0": 6, "4": 8}),
    Case("instance-norm", lambda: normed(nn.InstanceNorm2d(12, affine=True)), vector(2, 2, 5, 5), {"0": 12}),
    Case(
        "group-norm-maps",
        lambda: normed(nn.GroupNorm(4, 12)),
        vector(2, 2, 5, 5),
        {"0": 12},
        blocks={"0": 4},
        mixing={"0": "GroupNorm"},
    ),
    Case(
        "layer-norm-maps",
        lambda: normed(nn.LayerNorm([12, 5, 5])),
        vector(2, 2, 5, 5),
        {"0": 12},
        mixing={"0": "layer_norm"},
    ),
    Case("response-norm", lambda: normed(nn.LocalResponseNorm(3)), vector(2, 2, 5, 5), {}),
    Case("dropout-maps", lambda: normed(nn.Dropout2d()), vector(2, 2, 5, 5), {"0": 12}),
    Case("depthwise-transposed", lambda: transposed_groups(8), vector(2, 2, 3, 3), {"0": 8}),
    Case(
        "grouped-input",
        lambda: nn.Sequential(nn.Conv2d(4, 12, 1, groups=2), nn.SiLU(), nn.Conv2d(12, 2, 1)),
        vector(2, 4, 3, 3),
        {"0": 12},
        blocks={"0": 2},
    ),
    Case("grouped-transposed", lambda: transposed_groups(2), vector(2, 2, 3, 3), {"0": 8, "2": 4}, blocks={"0": 2}),
]

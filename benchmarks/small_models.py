"""Ordinary small models for the benchmarks: perceptrons, convolutional networks, an encoder-decoder with skips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def perceptron(*widths: int) -> nn.Module:
    """Linear layers of these widths with ReLUs between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _unit(inputs: int, outputs: int, stride: int = 1, groups: int = 1, kernel: int = 3) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def convolutional(widths: Sequence[int] = (32, 64), classes: int = 10) -> nn.Module:
    """Convolutions, each followed by pooling: the usual first network."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, *widths)):
        layers += [*_unit(inputs, outputs), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)).eval()


def vgg(classes: int = 1000) -> nn.Module:
    """The 13 convolutions of VGG-16 (arXiv 1409.1556) with batch norms and one linear layer: 15 million parameters."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += _unit(inputs, width)
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)).eval()


class _Inverted(nn.Module):
    """An inverted residual block with a depthwise convolution (arXiv 1801.04381, figure 4)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 6 * inputs
        self.body = nn.Sequential(
            *_unit(inputs, hidden, kernel=1),
            *_unit(hidden, hidden, stride, hidden),
            *_unit(hidden, outputs, kernel=1)[:2],
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x)
        return x + out if self.adds else out


def mobile_net(classes: int = 1000) -> nn.Module:
    """MobileNetV2 in all but its first block: depthwise convolutions, 3.5 million parameters."""
    layers = _unit(3, 16, 2)
    inputs = 16
    for outputs, count, stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for block in range(count):
            layers.append(_Inverted(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    layers += _unit(inputs, 1280, kernel=1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes)).eval()


class UNet(nn.Module):
    """An encoder and a decoder with skips that are concatenated (arXiv 1505.04597)."""

    def __init__(self, width: int = 32, depth: int = 4, classes: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(nn.Sequential(*_unit(a, b), *_unit(b, b)) for a, b in pairwise((3, *widths)))
        ups = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in ups)
        self.join = nn.ModuleList(nn.Sequential(*_unit(2 * b, b), *_unit(b, b)) for _, b in ups)
        self.head = nn.Conv2d(width, classes, 1)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for block in self.down:
            x = block(x if not skips else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for skip, up, join in zip(reversed(skips[:-1]), self.up, self.join, strict=True):
            x = join(torch.cat([up(x), skip], dim=1))
        out: torch.Tensor = self.head(x)
        return out

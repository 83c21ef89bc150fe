"""Generative networks and autoencoders, as they are usually written in plain torch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from ..entry import Entry, PeerSettings

LATENT = 16


class PerceptronVAE(nn.Module):
    """A variational autoencoder of linear layers, on flattened 12x12 images."""

    def __init__(self, pixels: int = 144, width: int = 64, latent: int = LATENT) -> None:
        super().__init__()
        self.hidden = nn.Linear(pixels, width)
        self.mean, self.log_variance = nn.Linear(width, latent), nn.Linear(width, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, pixels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = F.relu(self.hidden(x.flatten(1)))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return self.decoder(z).view_as(x), divergence


class ConvolutionalVAE(nn.Module):
    """The same with strided and transposed convolutions and a flattened map between."""

    def __init__(self, width: int = 16, latent: int = LATENT) -> None:
        super().__init__()
        self.width = width
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2), nn.Flatten(),
        )  # fmt: skip
        self.statistics = nn.Linear(2 * width * 16, 2 * latent)
        self.start = nn.Linear(latent, 2 * width * 16)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.statistics(self.encoder(x)).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        maps = self.start(z).view(-1, 2 * self.width, 4, 4)
        return self.decoder(maps), (mean.square() + log_variance.exp() - log_variance).sum(1)


class VectorQuantised(nn.Module):
    """VQ-VAE (arXiv 1711.00937): the nearest code of a codebook, passed straight through."""

    def __init__(self, width: int = 24, codes: int = 32, code: int = 12) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, code, 1),
        )
        self.codebook = nn.Embedding(codes, code)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(code, width, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.encoder(x).permute(0, 2, 3, 1)
        flat = z.reshape(-1, z.shape[-1])
        distances = flat.square().sum(1, keepdim=True) - 2 * flat @ self.codebook.weight.T
        distances = distances + self.codebook.weight.square().sum(1)
        quantised = self.codebook(distances.argmin(1)).view(z.shape)
        quantised = z + (quantised - z).detach()
        out: torch.Tensor = self.decoder(quantised.permute(0, 3, 1, 2))
        return out


class Generator(nn.Sequential):
    """DCGAN's generator (arXiv 1511.06434) for 32x32 images."""

    def __init__(self, width: int = 12) -> None:
        layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, 4 * width, 4, bias=False)]
        for inputs, outputs in ((4 * width, 2 * width), (2 * width, width)):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(True), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
        super().__init__(*layers)


class Discriminator(nn.Sequential):
    """DCGAN's discriminator, with spectral norm if asked for (arXiv 1802.05957)."""

    def __init__(self, width: int = 12, *, spectral: bool = False) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            convolution = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=spectral)
            layers.append(parametrizations.spectral_norm(convolution) if spectral else convolution)
            layers += [nn.Identity() if spectral or inputs == 3 else nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, True)]
        last = nn.Conv2d(4 * width, 1, 4)
        super().__init__(*layers, parametrizations.spectral_norm(last) if spectral else last, nn.Flatten())


class ConditionalGenerator(nn.Module):
    """A generator with conditional batch norms: a gain and a shift per class and channel, from one embedding."""

    def __init__(self, width: int = 24, classes: int = 5) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, width * 16)
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, affine=False) for _ in range(2))
        self.gains = nn.ModuleList(nn.Embedding(classes, 2 * width) for _ in range(2))
        self.image = nn.Conv2d(width, 3, 3, padding=1)
        self.width = width

    def forward(self, z: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        x = self.start(z).view(-1, self.width, 4, 4)
        for convolution, norm, gains in zip(self.convolutions, self.norms, self.gains, strict=True):
            gain, shift = gains(label).chunk(2, 1)
            x = norm(convolution(F.interpolate(x, scale_factor=2)))
            x = F.relu(x * (1 + gain[:, :, None, None]) + shift[:, :, None, None])
        out: torch.Tensor = self.image(x).tanh()
        return out


class WaveNet(nn.Module):
    """Gated dilated causal convolutions with weight norm, residual and skip connections (arXiv 1609.03499)."""

    def __init__(self, width: int = 16, skip: int = 24, layers: int = 4) -> None:
        super().__init__()
        self.inputs = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(
            parametrizations.weight_norm(nn.Conv1d(width, 2 * width, 2, dilation=2**i)) for i in range(layers)
        )
        self.residuals = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.skips = nn.ModuleList(nn.Conv1d(width, skip, 1) for _ in range(layers))
        self.outputs = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 30, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inputs(x)
        total: Any = 0
        for i, (gate, residual, skip) in enumerate(zip(self.gates, self.residuals, self.skips, strict=True)):
            signal, opening = gate(F.pad(x, (2**i, 0))).chunk(2, dim=1)
            h = signal.tanh() * opening.sigmoid()
            total = total + skip(h)
            x = x + residual(h)
        out: torch.Tensor = self.outputs(total)
        return out


class MaskedConvolution(nn.Conv2d):
    """PixelCNN's: the kernel sees only pixels before its own (arXiv 1606.05328)."""

    def __init__(self, *args: Any, inclusive: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register_buffer("mask", torch.ones_like(self.weight))
        height, width = self.kernel_size
        self.mask[:, :, height // 2, width // 2 + inclusive :] = 0
        self.mask[:, :, height // 2 + 1 :] = 0

    mask: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding, self.dilation, self.groups)


def pixel_cnn(width: int = 24) -> nn.Module:
    """Masked convolutions with batch norms."""
    layers: list[nn.Module] = [MaskedConvolution(1, width, 7, padding=3, inclusive=False)]
    for _ in range(3):
        layers += [nn.BatchNorm2d(width), nn.ReLU(), MaskedConvolution(width, width, 5, padding=2, inclusive=True)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, 16, 1))


class RealNVP(nn.Module):
    """Affine coupling layers with alternating masks (arXiv 1605.08803)."""

    def __init__(self, size: int = 10, width: int = 32, layers: int = 3) -> None:
        super().__init__()
        mask = (torch.arange(size) % 2).float()
        self.register_buffer("masks", torch.stack([mask if i % 2 else 1 - mask for i in range(layers)]))
        self.scales = nn.ModuleList(self._network(size, width) for _ in range(layers))
        self.shifts = nn.ModuleList(self._network(size, width) for _ in range(layers))

    masks: torch.Tensor

    @staticmethod
    def _network(size: int, width: int) -> nn.Module:
        first, second = nn.Linear(size, width), nn.Linear(width, width)
        return nn.Sequential(first, nn.LeakyReLU(), second, nn.LeakyReLU(), nn.Linear(width, size), nn.Tanh())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        determinant = x.new_zeros(x.shape[0])
        for mask, scale, shift in zip(self.masks, self.scales, self.shifts, strict=True):
            s, t = scale(mask * x) * (1 - mask), shift(mask * x) * (1 - mask)
            x = mask * x + (1 - mask) * (x * s.exp() + t)
            determinant = determinant + s.sum(1)
        return x, determinant


class StyleLayer(nn.Module):
    """StyleGAN2's modulated convolution (arXiv 1912.04958): one kernel per sample, in one grouped convolution."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3))
        self.style = nn.Linear(style, inputs)
        self.noise = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        batch, inputs, height, width = x.shape
        kernel = self.weight * self.style(style)[:, None, :, None, None] / math.sqrt(9 * 16)
        kernel = kernel * torch.rsqrt(kernel.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        kernel = kernel.view(batch * kernel.shape[1], inputs, 3, 3)
        out = F.conv2d(x.view(1, batch * inputs, height, width), kernel, padding=1, groups=batch)
        out = out.view(batch, -1, height, width) + self.bias[:, None, None]
        noise = torch.randn(batch, 1, height, width, dtype=x.dtype)
        active: torch.Tensor = F.leaky_relu(out + self.noise * noise, 0.2)
        return active


class StyleGenerator(nn.Module):
    """A mapping network, a learned constant, modulated convolutions and a sum of images."""

    def __init__(self, width: int = 16, style: int = 24) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            nn.Linear(LATENT, style), nn.LeakyReLU(0.2), nn.Linear(style, style), nn.LeakyReLU(0.2)
        )
        self.constant = nn.Parameter(torch.randn(1, width, 4, 4))
        self.layers = nn.ModuleList(StyleLayer(width, width, style) for _ in range(3))
        self.images = nn.ModuleList(nn.Conv2d(width, 3, 1) for _ in range(3))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        style = self.mapping(z / z.square().mean(1, keepdim=True).sqrt())
        x = self.constant.repeat(z.shape[0], 1, 1, 1)
        image: torch.Tensor | None = None
        for layer, to_image in zip(self.layers, self.images, strict=True):
            x = layer(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), style)
            new = to_image(x)
            image = new if image is None else new + F.interpolate(image, scale_factor=2.0)
        assert image is not None
        return image


class TiedAutoencoder(nn.Module):
    """An autoencoder whose decoder is its encoder transposed."""

    def __init__(self, pixels: int = 144, width: int = 64, latent: int = LATENT) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(pixels, width), nn.Linear(width, latent)
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(pixels))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = torch.relu(self.second(torch.relu(self.first(x))))
        h = torch.relu(F.linear(z, self.second.weight.t(), self.biases[0]))
        return F.linear(h, self.first.weight.t(), self.biases[1])


class MaskedAutoencoder(nn.Module):
    """MAE (arXiv 2111.06377): an encoder of the patches that are seen, a decoder of all of them."""

    def __init__(self, width: int = 32, decoder: int = 24, patches: int = 16, pixels: int = 48) -> None:
        super().__init__()
        self.embed = nn.Linear(pixels, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, patches, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.widen = nn.Linear(width, decoder)
        self.missing = nn.Parameter(torch.zeros(1, 1, decoder))
        self.decoder_positions = nn.Parameter(0.02 * torch.randn(1, patches, decoder))
        other = nn.TransformerEncoderLayer(decoder, 4, 2 * decoder, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerEncoder(other, 1, enable_nested_tensor=False)
        self.pixels = nn.Linear(decoder, pixels)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        x = self.embed(patches) + self.positions
        order = torch.rand(x.shape[:2]).argsort(1)
        seen = order[:, : x.shape[1] // 4]
        x = self.encoder(torch.gather(x, 1, seen[..., None].expand(-1, -1, x.shape[2])))
        x = self.widen(x)
        hidden = self.missing.expand(x.shape[0], patches.shape[1] - x.shape[1], -1)
        back = order.argsort(1)[..., None].expand(-1, -1, x.shape[2])
        x = torch.gather(torch.cat([x, hidden], 1), 1, back) + self.decoder_positions
        out: torch.Tensor = self.pixels(self.decoder(x))
        return out


def _images(size: int, channels: int = 3, batch: int = 2) -> tuple[torch.Tensor, ...]:
    return (torch.rand(batch, channels, size, size),)


def _heads(*names: str) -> PeerSettings:
    return PeerSettings(outputs=names)


ENTRIES = [
    Entry("generative/vae_mlp", PerceptronVAE, lambda: _images(12, 1), peer=_heads("decoder.2")),
    Entry("generative/vae_conv", ConvolutionalVAE, lambda: _images(16), peer=_heads("decoder.3")),
    Entry("generative/vq_vae", VectorQuantised, lambda: _images(16), peer=_heads("decoder.2")),
    Entry("generative/dcgan_generator", Generator, lambda: (torch.randn(2, LATENT, 1, 1),), peer=_heads("9")),
    Entry("generative/dcgan_discriminator", Discriminator, lambda: _images(32), peer=_heads("9")),
    Entry(
        "generative/spectral_discriminator",
        lambda: Discriminator(spectral=True),
        lambda: _images(32),
        peer=_heads("9"),
    ),
    Entry(
        "generative/conditional_generator",
        ConditionalGenerator,
        lambda: (torch.randn(3, LATENT), torch.tensor([0, 4, 2])),
        peer=_heads("image"),
    ),
    Entry("generative/wavenet", WaveNet, lambda: (torch.randn(2, 1, 20),), peer=_heads("outputs.3")),
    Entry("generative/pixel_cnn", pixel_cnn, lambda: _images(12, 1), peer=_heads("11")),
    Entry("generative/real_nvp", RealNVP, lambda: (torch.randn(6, 10),), peer=_heads("s*.?.4")),
    Entry("generative/style_generator", StyleGenerator, lambda: (torch.randn(2, LATENT),), peer=_heads("images.?")),
    Entry("generative/tied_autoencoder", TiedAutoencoder, lambda: (torch.rand(4, 144),)),
    Entry("generative/masked_autoencoder", MaskedAutoencoder, lambda: (torch.rand(2, 16, 48),), peer=_heads("pixels")),
]

"""MONAI's networks for medical images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..entry import CLASSES, Entry, PeerSettings, library


def _net(name: str, *shape: int, attribute: str = "", peer: PeerSettings | None = None, **options: Any) -> Entry:
    """A network by its class's name, on one volume or slice of one channel."""

    def build() -> nn.Module:
        model: nn.Module = getattr(library("monai.networks.nets"), attribute or name)(**options)
        return model

    return Entry(f"monai/{name.lower()}", build, lambda: (torch.randn(1, 1, *shape),), peer=peer or PeerSettings())


_PLAIN: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": CLASSES}
_UNET: dict[str, Any] = _PLAIN | {"channels": (8, 16, 24), "strides": (2, 2)}

ENTRIES = [
    _net("UNet", 32, 32, **_UNET, num_res_units=2),
    _net("BasicUNet", 32, 32, **_PLAIN, features=(8, 8, 16, 24, 32, 8)),
    _net("AttentionUnet", 32, 32, **_UNET),
    _net(
        "DynUNet",
        32,
        32,
        **_PLAIN,
        kernel_size=(3, 3, 3),
        strides=(1, 2, 2),
        upsample_kernel_size=(2, 2),
        filters=(8, 16, 24),
    ),
    _net("SegResNet", 32, 32, **_PLAIN, init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1)),
    _net("VNet", 16, 16, 16, in_channels=1, out_channels=CLASSES),
    _net(
        "UNETR",
        32,
        32,
        **_PLAIN,
        img_size=32,
        feature_size=8,
        hidden_size=48,
        mlp_dim=64,
        num_heads=4,
    ),
    _net("SwinUNETR", 64, 64, **_PLAIN, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4)),
    _net("DenseNet121", 32, 32, **_PLAIN),
    _net(
        "ResNet",
        16,
        16,
        16,
        block="basic",
        layers=[1, 1, 1, 1],
        block_inplanes=[8, 16, 24, 32],
        spatial_dims=3,
        n_input_channels=1,
        num_classes=CLASSES,
    ),
    _net("SEResNet50", 32, 32, spatial_dims=2, in_channels=1, num_classes=CLASSES),
    _net("AutoEncoder", 32, 32, **(_PLAIN | {"channels": (8, 16), "strides": (2, 2)})),
    Entry(
        "monai/varautoencoder",
        lambda: library("monai.networks.nets").VarAutoEncoder(
            spatial_dims=2,
            in_shape=(1, 32, 32),
            out_channels=1,
            latent_size=12,
            channels=(8, 16),
            strides=(2, 2),
        ),
        lambda: (torch.randn(2, 1, 32, 32),),
        lambda model, inputs: model(*inputs)[0],
        PeerSettings(outputs=("decode.decode_1*",)),
    ),
    Entry(
        "monai/vit",
        lambda: library("monai.networks.nets").ViT(
            in_channels=1,
            img_size=32,
            patch_size=8,
            hidden_size=48,
            mlp_dim=64,
            num_layers=2,
            num_heads=4,
            classification=True,
            num_classes=CLASSES,
            spatial_dims=2,
        ),
        lambda: (torch.randn(1, 1, 32, 32),),
        lambda model, inputs: model(*inputs)[0],  # not the hidden states beside it
    ),
    _net("HighResNet", 16, 16, **_PLAIN),
    Entry(
        "monai/diffusion_unet",
        lambda: library("monai.networks.nets").DiffusionModelUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=CLASSES,
            num_res_blocks=(1, 1),
            channels=(16, 32),
            attention_levels=(False, True),
            norm_num_groups=8,
            num_head_channels=8,
        ),
        lambda: (torch.randn(1, 1, 16, 16), torch.tensor([4])),
    ),
]

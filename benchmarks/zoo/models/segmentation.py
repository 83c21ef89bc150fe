"""segmentation-models-pytorch: decoders on reduced inputs, with an encoder each."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..entry import CLASSES, Entry, PeerSettings, library


def _decoder(name: str, encoder: str, size: int = 64, **options: Any) -> Entry:
    def build() -> nn.Module:
        make = getattr(library("segmentation_models_pytorch"), name)
        model: nn.Module = make(encoder, encoder_weights=None, classes=CLASSES, **options)
        return model

    return Entry(
        f"segmentation/{name.lower()}_{encoder}",
        build,
        lambda: (torch.randn(1, 3, size, size),),
        peer=PeerSettings(outputs=("segmentation_head.0",)),
    )


ENTRIES = [
    _decoder("Unet", "resnet18", decoder_channels=(64, 32, 16, 16, 8)),
    _decoder("UnetPlusPlus", "resnet18", decoder_channels=(64, 32, 16, 16, 8)),
    _decoder("MAnet", "resnet18", decoder_channels=(64, 32, 16, 16, 8)),
    _decoder("Linknet", "resnet18"),
    _decoder("FPN", "mobilenet_v2", decoder_pyramid_channels=64, decoder_segmentation_channels=32),
    _decoder("PSPNet", "resnet18"),
    _decoder("PAN", "resnet18", 128),
    _decoder("DeepLabV3", "resnet18", decoder_channels=64),
    _decoder("DeepLabV3Plus", "mobilenet_v2", decoder_channels=64),
    _decoder("UPerNet", "mit_b0", decoder_channels=64),
    _decoder("Segformer", "mit_b0", decoder_segmentation_channels=64),
    _decoder("Unet", "efficientnet-b0", decoder_channels=(64, 32, 16, 16, 8)),
    _decoder("Unet", "timm-regnetx_002", decoder_channels=(64, 32, 16, 16, 8)),
    _decoder(
        "DPT",
        "tu-vit_tiny_patch16_224",
        decoder_intermediate_channels=(16, 24, 32, 32),
        decoder_fusion_channels=32,
        dynamic_img_size=True,
    ),
]

"""torchvision's classifiers, segmentation, video and optical-flow models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..entry import CLASSES, Entry, PeerSettings, library


def _model(name: str, size: int = 64, *, peer: PeerSettings | None = None, **options: Any) -> Entry:
    """A model of ``torchvision.models`` by its function's name."""

    def build() -> nn.Module:
        model: nn.Module = getattr(library("torchvision.models"), name)(weights=None, num_classes=CLASSES, **options)
        return model

    return Entry(f"torchvision/{name}", build, lambda: (torch.randn(2, 3, size, size),), peer=peer or PeerSettings())


def _class(
    name: str, path: str, inputs: tuple[tuple[int, ...], ...], peer: PeerSettings | None = None, **options: Any
) -> Entry:
    """A model by its class, narrower and shallower than any ready-made one."""

    def build() -> nn.Module:
        module, _, attribute = path.rpartition(".")
        model: nn.Module = getattr(library(f"torchvision.models.{module}"), attribute)(**options)
        return model

    return Entry(
        f"torchvision/{name}",
        build,
        lambda: tuple(torch.randn(*shape) for shape in inputs),
        peer=peer or PeerSettings(),
    )


def _segmentation(name: str, **options: Any) -> Entry:
    def build() -> nn.Module:
        make = getattr(library("torchvision.models.segmentation"), name)
        model: nn.Module = make(weights=None, weights_backbone=None, num_classes=CLASSES, **options)
        return model

    return Entry(
        f"torchvision/{name}",
        build,
        lambda: (torch.randn(1, 3, 64, 64),),
        peer=PeerSettings(output=lambda out: out["out"]),
    )


def _video(name: str, frames: int = 4, size: int = 32, **options: Any) -> Entry:
    def build() -> nn.Module:
        make = getattr(library("torchvision.models.video"), name)
        model: nn.Module = make(weights=None, num_classes=CLASSES, **options)
        return model

    return Entry(f"torchvision/{name}", build, lambda: (torch.randn(1, 3, frames, size, size),))


_IMAGE = ((2, 3, 64, 64),)

ENTRIES = [
    Entry("torchvision/alexnet", lambda: _narrower("alexnet", 256 * 6 * 6), lambda: (torch.randn(2, 3, 64, 64),)),
    Entry("torchvision/vgg11_bn", lambda: _narrower("vgg11_bn", 512 * 7 * 7), lambda: (torch.randn(2, 3, 32, 32),)),
    _model("resnet18"),
    _model("resnet50"),
    _model("resnext50_32x4d"),
    _model("densenet121"),
    _model("squeezenet1_1"),
    _model("googlenet", aux_logits=False, init_weights=False),
    _model("inception_v3", 96, aux_logits=False, init_weights=False),
    _model("mobilenet_v2"),
    _model("mobilenet_v3_small"),
    _model("mnasnet0_5"),
    _model("shufflenet_v2_x0_5"),
    _model("efficientnet_b0"),
    _model("efficientnet_v2_s"),
    _model("regnet_y_400mf"),
    _model("convnext_tiny"),
    _class(
        "vision_transformer",
        "vision_transformer.VisionTransformer",
        _IMAGE,
        PeerSettings(round_to=4),
        image_size=64,
        patch_size=16,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=CLASSES,
    ),
    _class(
        "swin_transformer",
        "swin_transformer.SwinTransformer",
        _IMAGE,
        patch_size=[4, 4],
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=CLASSES,
    ),
    Entry(
        "torchvision/swin_transformer_v2",
        lambda: _swin_v2(),
        lambda: (torch.randn(2, 3, 64, 64),),
    ),
    _class(
        "maxvit",
        "maxvit.MaxVit",
        _IMAGE,
        input_size=(64, 64),
        stem_channels=16,
        partition_size=4,
        block_channels=[16, 32],
        block_layers=[1, 1],
        head_dim=8,
        stochastic_depth_prob=0.1,
        num_classes=CLASSES,
    ),
    _segmentation("fcn_resnet50", aux_loss=False),
    _segmentation("deeplabv3_mobilenet_v3_large", aux_loss=False),
    _segmentation("lraspp_mobilenet_v3_large"),
    _video("r3d_18"),
    _video("r2plus1d_18"),
    _class(
        "swin3d",
        "video.swin_transformer.SwinTransformer3d",
        ((1, 3, 4, 32, 32),),
        patch_size=[2, 4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[2, 4, 4],
        num_classes=CLASSES,
    ),
    Entry(
        "torchvision/raft_small",
        lambda: library("torchvision.models.optical_flow").raft_small(weights=None),
        lambda: (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128)),
        run=lambda model, inputs: model(*inputs, num_flow_updates=2),
        peer=PeerSettings(
            outputs=("update_block.flow_head.conv2", "mask_predictor.conv", "update_block.*", "mask_predictor*")
        ),
    ),
]


def _narrower(name: str, flattened: int, width: int = 128) -> nn.Module:
    """AlexNet and VGG with their classifier's shape, but not its hundred million parameters."""
    with torch.device("meta"):
        model: nn.Module = getattr(library("torchvision.models"), name)(weights=None, num_classes=CLASSES)
    for path, module in model.named_children():
        if path != "classifier":
            module.to_empty(device="cpu")
    model.features.apply(_reset)  # type: ignore[union-attr]
    model.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(flattened, width), nn.ReLU(True), nn.Dropout(), nn.Linear(width, width), nn.ReLU(True),
        nn.Linear(width, CLASSES),
    )  # fmt: skip
    return model


def _reset(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
        module.reset_parameters()


def _swin_v2() -> nn.Module:
    swin = library("torchvision.models.swin_transformer")
    model: nn.Module = swin.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=CLASSES,
        block=swin.SwinTransformerBlockV2,
        downsample_layer=swin.PatchMergingV2,
    )
    return model

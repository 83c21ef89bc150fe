"""timm's image models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..entry import CLASSES, Entry, library


def _model(
    name: str,
    size: int = 64,
    *,
    label: str | None = None,
    heads_first: bool = False,
    across_channels: bool = False,
    **options: Any,
) -> Entry:
    """A model by its name in timm, with its class's options made smaller."""

    def build() -> nn.Module:
        model: nn.Module = library("timm").create_model(name, pretrained=False, num_classes=CLASSES, **options)
        return model

    return Entry(
        f"timm/{label or name}",
        build,
        lambda: (torch.randn(1, 3, size, size),),
        heads_first=heads_first,
        across_channels=across_channels,
    )


_VIT: dict[str, Any] = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
_WINDOWS: dict[str, Any] = {
    "img_size": 64,
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 24,
    "depths": (2, 2),
    "num_heads": (2, 4),
}

ENTRIES = [
    _model("vit_tiny_patch16_224", **_VIT),
    _model("deit_tiny_distilled_patch16_224", **_VIT),
    _model("beit_base_patch16_224", **_VIT),
    _model("eva02_tiny_patch14_224", **(_VIT | {"patch_size": 16})),
    _model("cait_xxs24_224", **(_VIT | {"num_heads": 4})),
    _model("xcit_nano_12_p16_224", across_channels=True, **_VIT),
    _model("volo_d1_224", 224, label="volo"),
    _model("swin_tiny_patch4_window7_224", **_WINDOWS),
    _model("swinv2_tiny_window8_256", **_WINDOWS),
    _model("swinv2_cr_tiny_ns_224", **_WINDOWS),
    _model("maxvit_rmlp_pico_rw_256", heads_first=True, img_size=64),
    _model("coatnet_pico_rw_224", heads_first=True, img_size=64),
    _model("convnext_atto"),
    _model("convnextv2_atto"),
    _model("resnet26t"),
    _model("seresnext26t_32x4d"),
    _model("resnest14d"),
    _model("skresnet18"),
    _model("res2net50_14w_8s"),
    _model("rexnet_100"),
    _model("focalnet_tiny_srf"),
    _model("dm_nfnet_f0", 64, label="nfnet"),
    _model("visformer_tiny", 64, img_size=64),
    _model("mixer_s32_224", img_size=64),
    _model("gmlp_ti16_224", img_size=64),
    _model("resmlp_12_224", img_size=64),
    _model("sequencer2d_s", img_size=64),
    _model("poolformer_s12"),
    _model("caformer_s18"),
    _model("edgenext_xx_small", across_channels=True),
    _model("mobilevit_xxs"),
    _model("mobilevitv2_050"),
    _model("efficientformer_l1", 224, label="efficientformer"),
    _model("levit_128s", 224, label="levit"),
    _model("pvt_v2_b0"),
    _model("twins_svt_small"),
    _model("efficientvit_b0"),
    _model("fastvit_t8"),
    _model("repvit_m0_9"),
    _model("ghostnet_050"),
    _model("hrnet_w18_small"),
    _model("densenet121", label="densenet_blur"),
    _model("dla34"),
    _model("dpn48b"),
    _model("ese_vovnet19b_dw"),
    _model("cspresnet50"),
    _model("mobilenetv4_conv_small"),
    _model("mobileone_s0"),
    _model("inception_next_atto"),
    _model("hiera_tiny_224", 64, img_size=64),
    _model("crossvit_tiny_240", 240, label="crossvit"),
    _model("davit_tiny", across_channels=True),
    Entry("timm/convit_tiny", lambda: _called_once(), lambda: (torch.randn(1, 3, 64, 64),)),
    _model("nest_tiny", 64, img_size=64),
    _model("tnt_s_legacy_patch16_224", 64, label="tnt", img_size=64),
    _model("halonet26t", 256),
    _model("lambda_resnet26t", 128),
    _model("botnet26t_256", 64, img_size=64),
    _model("selecsls42b"),
    _model("xception41"),
    _model("regnetz_b16"),
    _model("gcvit_xxtiny", 64, img_size=64),
]


def _called_once() -> nn.Module:
    """ConViT makes its table of relative positions, a buffer, in its first forward pass."""
    model: nn.Module = library("timm").create_model("convit_tiny", num_classes=CLASSES, **(_VIT | {"num_heads": 4}))
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    return model

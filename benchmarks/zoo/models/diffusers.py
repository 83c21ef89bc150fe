"""diffusers' denoisers and autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..entry import Entry, PeerSettings, library


def _model(
    name: str, attribute: str, inputs: Callable[[], dict[str, Any]], outputs: tuple[str, ...], **options: Any
) -> Entry:
    """A model by its class's name."""

    def build() -> nn.Module:
        model: nn.Module = getattr(library("diffusers"), attribute)(**options)
        return model

    return Entry(f"diffusers/{name}", build, inputs, peer=PeerSettings(outputs=outputs))


def _noisy(channels: int = 4, size: int = 8, **more: tuple[int, ...]) -> Callable[[], dict[str, Any]]:
    """A noisy image, a time step, and other random inputs by their shapes."""

    def inputs() -> dict[str, Any]:
        made = {name: torch.randn(*shape) for name, shape in more.items()}
        return {"sample": torch.randn(2, channels, size, size), "timestep": torch.tensor([3, 7]), **made}

    return inputs


def _hidden(channels: int = 4, size: int = 8, **more: tuple[int, ...]) -> Callable[[], dict[str, Any]]:
    """The same for transformers, which call it ``hidden_states``."""

    def inputs() -> dict[str, Any]:
        made = _noisy(channels, size, **more)()
        return {"hidden_states": made.pop("sample"), **made}

    return inputs


def _classed() -> dict[str, Any]:
    return _hidden()() | {"class_labels": torch.tensor([1, 4])}


def _flux() -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(2, 16, 8),
        "encoder_hidden_states": torch.randn(2, 5, 24),
        "pooled_projections": torch.randn(2, 20),
        "timestep": torch.tensor([0.3, 0.7]),
        "img_ids": torch.randint(0, 4, (16, 3)).float(),
        "txt_ids": torch.zeros(5, 3),
    }


def _controlled() -> dict[str, Any]:
    made = _noisy(encoder_hidden_states=(2, 5, 24))()
    return made | {"controlnet_cond": torch.randn(2, 3, 16, 16)}


def _image(channels: int = 3, size: int = 16) -> Callable[[], dict[str, Any]]:
    return lambda: {"sample": torch.randn(2, channels, size, size)}


_BLOCKS: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
_CONDITIONED: dict[str, Any] = _BLOCKS | {
    "in_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
}

ENTRIES = [
    _model(
        "unet2d", "UNet2DModel", _noisy(3, 16), ("conv_out",),
        **_BLOCKS, sample_size=16, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
    ),
    _model(
        "unet2d_condition", "UNet2DConditionModel", _noisy(encoder_hidden_states=(2, 5, 24)), ("conv_out",),
        **_CONDITIONED, sample_size=8, out_channels=4, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ),
    _model(
        "controlnet", "ControlNetModel", _controlled, ("controlnet_down_blocks.*", "controlnet_mid_block"),
        **_CONDITIONED, conditioning_embedding_out_channels=(8, 16),
    ),
    _model(
        "unet1d", "UNet1DModel",
        lambda: {"sample": torch.randn(2, 14, 16), "timestep": torch.tensor([3, 7])}, ("out_block.*",),
        sample_size=16, in_channels=14, out_channels=14, time_embedding_type="positional", use_timestep_embedding=True,
        flip_sin_to_cos=False, freq_shift=1, block_out_channels=(16, 32), out_block_type="OutConv1DBlock",
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"), up_block_types=("UpResnetBlock1D",),
        mid_block_type="MidResTemporalBlock1D", layers_per_block=1, act_fn="mish",
    ),
    _model(
        "autoencoder_kl", "AutoencoderKL", _image(), ("decoder.conv_out",),
        **_BLOCKS, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, sample_size=16,
    ),
    _model(
        "vq_model", "VQModel", _image(), ("decoder.conv_out",),
        **_BLOCKS, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, num_vq_embeddings=32,
    ),
    _model(
        "autoencoder_tiny", "AutoencoderTiny", _image(), ("decoder.layers.*",),
        encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    ),
    _model(
        "dit", "DiTTransformer2DModel", _classed, ("proj_out_2",),
        num_attention_heads=4, attention_head_dim=8, in_channels=4, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=10, norm_num_groups=8,
    ),
    _model(
        "pixart", "PixArtTransformer2DModel",
        _hidden(encoder_hidden_states=(2, 5, 24)), ("proj_out",),
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        cross_attention_dim=32, caption_channels=24, norm_num_groups=8, use_additional_conditions=False,
    ),
    _model(
        "stable_diffusion_3", "SD3Transformer2DModel",
        _hidden(encoder_hidden_states=(2, 5, 24), pooled_projections=(2, 20)), ("proj_out",),
        sample_size=8, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=4, attention_head_dim=8,
        caption_projection_dim=32, joint_attention_dim=24, pooled_projection_dim=20, pos_embed_max_size=8,
    ),
    _model(
        "flux", "FluxTransformer2DModel", _flux, ("proj_out",),
        in_channels=8, num_layers=1, num_single_layers=1, num_attention_heads=4, attention_head_dim=8,
        joint_attention_dim=24, pooled_projection_dim=20, axes_dims_rope=(2, 2, 4), guidance_embeds=False,
    ),
    _model(
        "prior", "PriorTransformer",
        lambda: {
            "hidden_states": torch.randn(2, 16), "timestep": torch.tensor([3, 7]),
            "proj_embedding": torch.randn(2, 16), "encoder_hidden_states": torch.randn(2, 5, 16),
        },
        ("proj_to_clip_embeddings",),
        num_attention_heads=4, attention_head_dim=8, num_layers=2, embedding_dim=16, num_embeddings=5,
    ),
    _model(
        "aura_flow", "AuraFlowTransformer2DModel",
        _hidden(encoder_hidden_states=(2, 5, 24)), ("proj_out",),
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        num_attention_heads=4, attention_head_dim=8, joint_attention_dim=24, caption_projection_dim=32,
        pos_embed_max_size=16,
    ),
]  # fmt: skip

"""Hugging Face transformers: language, vision, speech and time-series models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..entry import CLASSES, Entry, PeerSettings, Run, library

VOCABULARY = 97
TOKENS = 10
WIDTH = 48

Inputs = Callable[[], dict[str, torch.Tensor]]

_NAMES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
"""Most configs' own words for a small model."""


def _model(
    name: str,
    config: str,
    model: str,
    inputs: Inputs,
    peer: PeerSettings | None = None,
    *,
    run: Run | None = None,
    bare: bool = False,
    heads_first: bool = False,
    **options: Any,
) -> Entry:
    """A model by the names of its config and its class; ``bare``: its config doesn't know the usual words."""

    def build() -> nn.Module:
        transformers = library("transformers")
        made: nn.Module = getattr(transformers, model)(
            getattr(transformers, config)(**(options if bare else _NAMES | options))
        )
        return made

    return Entry(f"transformers/{name}", build, inputs, run, peer or PeerSettings(), heads_first)


def _tokens() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(3, VOCABULARY, (2, TOKENS))}


def _masked() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, TOKENS, dtype=torch.long)
    mask[1, -3:] = 0
    return _tokens() | {"attention_mask": mask}


def _pairs() -> dict[str, torch.Tensor]:
    return _tokens() | {"decoder_input_ids": torch.randint(3, VOCABULARY, (2, 7))}


def _images(size: int = 32) -> Inputs:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def _logits(out: Any) -> Any:
    return out.logits


def _only_logits(model: Any, inputs: Any) -> Any:
    """A model that returns hidden states and caches beside its logits, whose sizes nobody needs."""
    return model(**inputs).logits


def _picked(out: Any, *names: str) -> tuple[Any, ...]:
    """Some of a model's outputs, where it returns hidden states and caches too."""
    return tuple(getattr(out, name) for name in names)


def _generating(model: Any, inputs: Any) -> Any:
    """A prompt, then one more token with the cache of the prompt."""
    first = model(**inputs, use_cache=True)
    token = torch.full((len(first.logits), 1), 5)
    return first.logits, model(input_ids=token, past_key_values=first.past_key_values).logits


def _language(
    head: str = "lm_head",
    *,
    rotary: bool = False,
    pieces: tuple[str, ...] = (),
    output: Callable[[Any], Any] | None = _logits,
) -> PeerSettings:
    """As in Torch-Pruning's example for language models: the head ignored, whole heads where they are rotated."""
    return PeerSettings((head,), dict.fromkeys(pieces, 2), prune_heads=rotary, output=output)


_HEAD = PeerSettings(outputs=("lm_head",), output=_logits)
_ONLY_HEAD = PeerSettings(outputs=("lm_head",))
_CLASSIFIER = PeerSettings(output=_logits)
_VISION: dict[str, Any] = {"image_size": 32, "patch_size": 8, "num_labels": CLASSES}
_GROUPED: dict[str, Any] = {"num_key_value_heads": 2}


def _decoder(
    name: str, prefix: str, inputs: Inputs = _tokens, peer: PeerSettings | None = None, **options: Any
) -> Entry:
    """A causal language model whose classes are called after ``prefix``."""
    return _model(name, f"{prefix}Config", f"{prefix}ForCausalLM", inputs, peer or _language(rotary=True), **options)


_DECODERS = [
    _model(
        "gpt2", "GPT2Config", "GPT2LMHeadModel", _tokens, _language(),
        bare=True, vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=2, n_head=4, use_cache=False,
    ),
    _model(
        "gpt_neo", "GPTNeoConfig", "GPTNeoForCausalLM", _tokens, _language(),
        bare=True, vocab_size=VOCABULARY, hidden_size=WIDTH, num_layers=2, num_heads=4, intermediate_size=80,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=64, use_cache=False,
    ),
    _decoder("gpt_neox", "GPTNeoX", peer=_language("embed_out", rotary=True), heads_first=True),
    _model(
        "gptj", "GPTJConfig", "GPTJForCausalLM", _tokens, _language(rotary=True),
        bare=True, vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=2, n_head=4, rotary_dim=4,
        use_cache=False,
    ),
    _model(
        "bloom", "BloomConfig", "BloomForCausalLM", _masked, _language(),
        bare=True, heads_first=True, vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=2, n_head=4, use_cache=False,
    ),
    _decoder("opt", "OPT", _masked, _language(), word_embed_proj_dim=WIDTH, ffn_dim=80),
    _decoder("llama", "Llama", **_GROUPED),
    _decoder("llama_tied", "Llama", tie_word_embeddings=True),
    _decoder("llama_generating", "Llama", run=_generating, peer=_language(rotary=True, output=None), **_GROUPED),
    _model(
        "gpt2_generating", "GPT2Config", "GPT2LMHeadModel", _tokens, _language(output=None), run=_generating,
        bare=True, vocab_size=VOCABULARY, n_positions=64, n_embd=WIDTH, n_layer=2, n_head=4,
    ),
    _decoder("mistral", "Mistral", **_GROUPED),
    _decoder("mixtral", "Mixtral", **_GROUPED, num_local_experts=4, num_experts_per_tok=2),
    _decoder("qwen2", "Qwen2", **_GROUPED),
    _decoder("qwen3", "Qwen3", **_GROUPED, head_dim=16),
    _decoder(
        "qwen2_moe", "Qwen2Moe", **_GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        shared_expert_intermediate_size=40,
    ),
    _decoder("gemma", "Gemma", **_GROUPED, head_dim=16),
    _decoder("gemma2", "Gemma2", **_GROUPED, head_dim=16, sliding_window=8),
    _decoder("phi", "Phi"),
    _decoder(
        "phi3", "Phi3", peer=_language(rotary=True, pieces=tuple(f"model.layers.{i}.mlp.gate_up_proj" for i in (0, 1))),
        **_GROUPED,
    ),
    _decoder("falcon", "Falcon", multi_query=True, ffn_hidden_size=80),
    _decoder("stablelm", "StableLm", num_attention_heads=3, num_key_value_heads=3),
    _decoder("olmo2", "Olmo2"),
    _model(
        "mpt", "MptConfig", "MptForCausalLM", _tokens, _language(),
        bare=True, vocab_size=VOCABULARY, d_model=WIDTH, n_heads=4, n_layers=2, max_seq_len=64, expansion_ratio=2,
        use_cache=False,
    ),
    _decoder("mamba", "Mamba", peer=_language(), state_size=8),
    _decoder("mamba2", "Mamba2", peer=_language(), state_size=8, num_heads=6, head_dim=16, n_groups=2, chunk_size=8),
    _decoder("rwkv", "Rwkv", peer=_language("head"), context_length=32, attention_hidden_size=WIDTH),
]  # fmt: skip

_ENCODERS = [
    _model(
        "bert_mlm", "BertConfig", "BertForMaskedLM", _masked, PeerSettings(("cls.predictions.decoder",), output=_logits)
    ),
    _model("bert_classifier", "BertConfig", "BertForSequenceClassification", _masked, _CLASSIFIER, num_labels=CLASSES),
    _model(
        "roberta", "RobertaConfig", "RobertaForMaskedLM", _masked, PeerSettings(("lm_head.decoder",), output=_logits)
    ),
    _model(
        "albert", "AlbertConfig", "AlbertForMaskedLM", _masked, PeerSettings(("predictions.decoder",), output=_logits),
        embedding_size=24,
    ),
    _model(
        "distilbert", "DistilBertConfig", "DistilBertForMaskedLM", _masked,
        PeerSettings(("vocab_projector",), output=_logits),
        bare=True, vocab_size=VOCABULARY, max_position_embeddings=64, n_layers=2, n_heads=4, dim=WIDTH, hidden_dim=80,
    ),
    _model(
        "electra", "ElectraConfig", "ElectraForMaskedLM", _masked,
        PeerSettings(("generator_lm_head",), output=_logits), embedding_size=24,
    ),
    _model(
        "deberta_v2", "DebertaV2Config", "DebertaV2ForMaskedLM", _masked,
        PeerSettings(("cls*decoder",), output=_logits),
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True,
    ),
    _model(
        "xlnet", "XLNetConfig", "XLNetLMHeadModel", _tokens, PeerSettings(("lm_loss",)),
        run=_only_logits, bare=True, vocab_size=VOCABULARY, d_model=WIDTH, n_layer=2, n_head=4, d_inner=80,
    ),
    _model(
        "longformer", "LongformerConfig", "LongformerForSequenceClassification", _tokens, _CLASSIFIER,
        attention_window=4, num_labels=CLASSES,
    ),
    _model("fnet", "FNetConfig", "FNetForSequenceClassification", _tokens, _CLASSIFIER, num_labels=CLASSES),
]  # fmt: skip

_PAIRED: dict[str, Any] = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip


def _pair(name: str, config: str, model: str) -> Entry:
    """An encoder and decoder of BART's kind."""
    return _model(name, config, model, _pairs, _ONLY_HEAD, run=_only_logits, bare=True, **_PAIRED)


_PAIRS = [
    _model(
        "t5", "T5Config", "T5ForConditionalGeneration", _pairs, _ONLY_HEAD, run=_only_logits, bare=True,
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=12, d_ff=80, num_layers=2, num_heads=4, decoder_start_token_id=0,
    ),
    _pair("bart", "BartConfig", "BartForConditionalGeneration"),
    _pair("pegasus", "PegasusConfig", "PegasusForConditionalGeneration"),
    _pair("marian", "MarianConfig", "MarianMTModel"),
    _model(
        "whisper", "WhisperConfig", "WhisperForConditionalGeneration",
        lambda: {
            "input_features": torch.randn(2, 16, 40),
            "decoder_input_ids": torch.randint(3, VOCABULARY, (2, 7)),
        },
        PeerSettings(("proj_out",)), run=_only_logits, bare=True,
        **(_PAIRED | {"num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 32}),
    ),
]  # fmt: skip

_MIXED = [
    _model("vit", "ViTConfig", "ViTForImageClassification", _images(), _CLASSIFIER, **_VISION),
    _model("deit", "DeiTConfig", "DeiTForImageClassification", _images(), _CLASSIFIER, **_VISION),
    _model("beit", "BeitConfig", "BeitForImageClassification", _images(), _CLASSIFIER, **_VISION),
    _model("dinov2", "Dinov2Config", "Dinov2ForImageClassification", _images(), _CLASSIFIER, **_VISION),
    _model(
        "swin", "SwinConfig", "SwinForImageClassification", _images(), _CLASSIFIER, bare=True,
        image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=CLASSES,
    ),
    _model(
        "convnextv2", "ConvNextV2Config", "ConvNextV2ForImageClassification", _images(64), _CLASSIFIER, bare=True,
        hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 2, 1], num_labels=CLASSES,
    ),
    _model(
        "segformer", "SegformerConfig", "SegformerForSemanticSegmentation", _images(64),
        PeerSettings(("decode_head.classifier",), output=_logits), bare=True,
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], decoder_hidden_size=24, num_labels=CLASSES,
        num_attention_heads=[1, 2, 3, 4],
    ),
    Entry(
        "transformers/detr",
        lambda: _detr(),
        _images(64),
        lambda model, inputs: _picked(model(**inputs), "logits", "pred_boxes"),
        PeerSettings(("class_labels_classifier", "bbox_predictor.layers.2")),
    ),
    Entry(
        "transformers/clip",
        lambda: _clip(),
        lambda: _tokens() | _images()(),
        lambda model, inputs: _picked(model(**inputs), "text_embeds", "image_embeds"),
        PeerSettings(("visual_projection", "text_projection")),
    ),
    _model(
        "wav2vec2", "Wav2Vec2Config", "Wav2Vec2ForCTC", lambda: {"input_values": torch.randn(2, 400)}, _HEAD,
        conv_dim=[16, 16, 24], conv_kernel=[10, 3, 3], conv_stride=[5, 2, 2], num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4, num_feat_extract_layers=3,
    ),
    _model(
        "decision_transformer", "DecisionTransformerConfig", "DecisionTransformerModel",
        lambda: {
            "states": torch.randn(2, 4, 11),
            "actions": torch.randn(2, 4, 3),
            "rewards": torch.randn(2, 4, 1),
            "returns_to_go": torch.randn(2, 4, 1),
            "timesteps": torch.arange(4).repeat(2, 1),
            "attention_mask": torch.ones(2, 4, dtype=torch.long),
        },
        PeerSettings(("predict_*",)),
        run=lambda model, inputs: _picked(model(**inputs), "state_preds", "action_preds", "return_preds"),
        bare=True, state_dim=11, act_dim=3, hidden_size=WIDTH, n_layer=2, n_head=4, max_ep_len=32, n_positions=64,
    ),
    _model(
        "patchtst", "PatchTSTConfig", "PatchTSTForPrediction", lambda: {"past_values": torch.randn(2, 32, 3)},
        PeerSettings(("head.projection",), output=lambda out: out.prediction_outputs), bare=True,
        num_input_channels=3, context_length=32, patch_length=8, patch_stride=8, d_model=24, num_hidden_layers=2,
        num_attention_heads=4, ffn_dim=40, prediction_length=6,
    ),
    _model(
        "perceiver", "PerceiverConfig", "PerceiverForSequenceClassification",
        lambda: {"inputs": torch.randint(3, VOCABULARY, (2, TOKENS))}, _CLASSIFIER, bare=True,
        vocab_size=VOCABULARY, d_model=32, d_latents=WIDTH, num_latents=6, num_blocks=1,
        num_self_attends_per_block=2, num_self_attention_heads=4, num_cross_attention_heads=4,
        max_position_embeddings=TOKENS, num_labels=CLASSES,
    ),
]  # fmt: skip

ENTRIES = [*_DECODERS, *_ENCODERS, *_PAIRS, *_MIXED]


def _detr() -> nn.Module:
    transformers = library("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    config = transformers.DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, d_model=WIDTH,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=80,
        decoder_ffn_dim=72, num_queries=6, num_labels=CLASSES,
    )  # fmt: skip
    model: nn.Module = transformers.DetrForObjectDetection(config)
    return model


def _clip() -> nn.Module:
    transformers = library("transformers")
    small = {"hidden_size": WIDTH, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = small | {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "eos_token_id": 2}
    vision = small | {"image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)
    model: nn.Module = transformers.CLIPModel(config)
    return model

"""All models of the zoo."""

from __future__ import annotations

from functools import cache

from .entry import Entry, library
from .shims import declare_torchvision_operators

FAMILIES = {
    "control": ("stable_baselines3.sac.policies", "stable_baselines3.dqn.policies", "stable_baselines3.td3.policies"),
    "generative": ("torch.nn.utils.parametrizations",),
    "torchvision": ("torchvision",),
    "timm": ("timm",),
    "transformers": ("transformers.models.llama.modeling_llama", "transformers.models.perceiver.modeling_perceiver"),
    "diffusers": ("diffusers.models.unets.unet_2d_condition", "diffusers.models.transformers.transformer_flux"),
    "monai": ("monai.networks.nets",),
    "segmentation": ("segmentation_models_pytorch",),
}
"""Family to the modules that are imported before its cases, so that no case pays for it."""


@cache
def entries() -> tuple[Entry, ...]:
    """Every entry; nothing but torch is imported for it."""
    found = [entry for family in FAMILIES for entry in _entries_of(family)]
    names = [entry.name for entry in found]
    assert len(set(names)) == len(names), "two models have one name"
    return tuple(found)


def preload(family: str) -> None:
    """Import a family's library."""
    declare_torchvision_operators()
    for name in FAMILIES[family]:
        library(name)


def _entries_of(family: str) -> list[Entry]:
    made: list[Entry] = library(f".models.{family}", __package__).ENTRIES
    return made

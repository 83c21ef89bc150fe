"""What a saved model looks like on disk, and which of a model's tensors it holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from secateur.graph.storage import tied_names
from secateur.plan import named_tensors

TENSORS = "model.safetensors"
PLAN = "plan.json"

FORMAT = "secateur-model"
"""The value of ``format`` in the safetensors metadata, by which Secateur knows its own files."""

TIED = "tied"
"""The key in the safetensors metadata that holds, as JSON, other names of tied tensors to the first."""


def foreign_files(folder: Path) -> list[str]:
    """What a folder holds that is no part of a saved model, sorted; nothing if there is no folder."""
    return sorted(item.name for item in folder.iterdir() if item.name not in (TENSORS, PLAN)) if folder.exists() else []


def stored_tensors(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The parameters and persistent buffers of a model under their first names, and other names to the first."""
    passing = _non_persistent_names(model)
    persistent = {name: tensor for name, tensor in named_tensors(model).items() if name not in passing}
    tied = tied_names(persistent)
    return {name: tensor for name, tensor in persistent.items() if name not in tied}, tied


def _non_persistent_names(model: nn.Module) -> set[str]:
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }

"""Torch-Pruning, told what its own examples tell it."""

from __future__ import annotations

import fnmatch
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checks import Check
from .entry import CLASSES, Entry, library
from .heads import COUNTS, projections
from .libraries import COEFFICIENT, Pruned
from .matching import kept_indices
from .structure import built, called, in_double, outputs_of, tensors

torch_pruning = library("torch_pruning")

_MIXING = re.compile(r"Attention|Attn|Softmax|(?<!Batch)Norm(?!Act)|ResponseNorm|Mixer|SSM|Mamba")
_WIDTHS = ("all_head_size", "inner_dim", "embed_dim", "hidden_size", "split_size", "hidden_dim", "d_model", "dim")
_HEAD_WIDTHS = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim", "d_head", "dim_head")


class _TorchPruning:
    name = "torch-pruning"

    def version(self) -> str:
        return metadata.version("torch-pruning")  # the package itself says 1.6.0

    def prune(self, entry: Entry, model: nn.Module, inputs: Any) -> Pruned:
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pruner = torch_pruning.pruner.MagnitudePruner(
                model, inputs, torch_pruning.importance.GroupMagnitudeImportance(p=2), **_settings(entry, model)
            )
            pruner.step()
        told = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
        return Pruned(model, warnings=told)

    def equality(self, entry: Entry, pruned: Pruned, inputs: Any) -> Check:
        dense = built(entry)
        mixing = next((type(m).__name__ for m in dense.modules() if _MIXING.search(type(m).__name__)), None)
        if mixing is not None:
            return Check(None, f"the model has a {mixing}")
        reason = _mask(dense, pruned.model)
        if reason:
            return Check(None, reason)
        return _compared(entry, dense, pruned.model, inputs)

    def unscaled(self, pruned: Pruned, name: str, parameter: torch.Tensor) -> torch.Tensor:
        return parameter

    def reloaded(self, entry: Entry, pruned: Pruned, folder: Path) -> nn.Module:
        file = folder / "model.pth"
        torch.save(pruned.model, file)
        loaded: nn.Module = torch.load(file, weights_only=False)
        return loaded

    def patch(self, entry: Entry, pruned: Pruned) -> bool:
        return _patch(entry, built(entry), pruned.model)


LIBRARY = _TorchPruning()


def _settings(entry: Entry, model: nn.Module) -> dict[str, Any]:
    modules = dict(model.named_modules())
    told = entry.peer
    heads = {}
    for projection in projections(model, heads_first=entry.heads_first):
        if not isinstance(modules[projection.module], nn.MultiheadAttention):
            heads[modules[projection.module]] = projection.parts[0][1]
    pruned_heads = {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": COEFFICIENT}
    return {
        "pruning_ratio": COEFFICIENT,
        "global_pruning": False,
        "ignored_layers": [modules[name] for name in _outputs(entry, modules)],
        "num_heads": heads,
        "out_channel_groups": {modules[name]: count for name, count in told.channel_groups.items()},
        "in_channel_groups": {},
        "round_to": told.round_to,
        "forward_fn": lambda model, inputs: called(entry, model, inputs),
        "output_transform": told.output,
        **(pruned_heads if told.prune_heads else {}),
    }


def _outputs(entry: Entry, modules: dict[str, nn.Module]) -> list[str]:
    if entry.peer.outputs:
        return [name for name in modules if any(fnmatch.fnmatch(name, pattern) for pattern in entry.peer.outputs)]
    widths = {name: getattr(m, "out_features", getattr(m, "out_channels", None)) for name, m in modules.items()}
    return [name for name, width in widths.items() if width == CLASSES]


def _patch(entry: Entry, dense: nn.Module, small: nn.Module) -> bool:
    """Correct what attentions and their models keep as numbers, as the examples do; whether anything was."""
    modules, smaller = dict(dense.named_modules()), dict(small.named_modules())
    changed = False
    for projection in projections(dense, heads_first=entry.heads_first):
        if projection.parts[0][0] != "q" or projection.module not in smaller:
            continue
        old = _rows(modules[projection.layer], projection.weight)
        new = _rows(smaller[projection.layer], projection.weight)
        blocks = len(projection.blocks)
        queries = projection.parts[0][1]
        sizes = dict.fromkeys(_WIDTHS, (old * queries // blocks, new * queries // blocks))
        if entry.peer.prune_heads:
            sizes |= dict.fromkeys(COUNTS, (queries, new * queries // old))
        else:
            sizes |= dict.fromkeys(_HEAD_WIDTHS, (old // blocks, new // blocks))
        for name, (before, after) in sizes.items():
            if getattr(smaller[projection.layer], name, None) == before != after:
                setattr(smaller[projection.layer], name, after)
                changed = True
    return _patch_root(dense, small) or changed


def _patch_root(dense: nn.Module, small: nn.Module) -> bool:
    """torchvision's vision transformers keep their width in the model itself."""
    old, new = getattr(dense, "conv_proj", None), getattr(small, "conv_proj", None)
    if (
        isinstance(old, nn.Conv2d)
        and isinstance(new, nn.Conv2d)
        and getattr(small, "hidden_dim", 0) == old.out_channels
    ):
        small.hidden_dim = new.out_channels  # type: ignore[assignment]
        return True
    return False


def _rows(layer: nn.Module, weight: str) -> int:
    module = layer
    *path, name = weight.split(".")
    for part in path:
        module = getattr(module, part, module)
    tensor = getattr(module, name)
    return int(tensor.shape[1 if type(module).__name__ == "Conv1D" else 0])


@torch.no_grad()
def _mask(dense: nn.Module, small: nn.Module) -> str:
    """Zero the dense model's weights at inputs that the smaller one lost; why it can't be done, if it can't."""
    smaller = dict(small.named_modules())
    for name, module in dense.named_modules():
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
            counterpart: Any = smaller[name]
            grouped = getattr(module, "groups", 1) > 1
            axis = 0 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 1
            if grouped and module.weight.shape[1] == 1 and axis == 1:
                continue  # depthwise: an input leaves with its own output
            if module.weight.shape[axis] == counterpart.weight.shape[axis]:
                continue
            kept = kept_indices(module.weight, counterpart.weight, axis)
            if grouped or kept is None:
                return f"which inputs {name} keeps can't be told from its values"
            gone = torch.ones(module.weight.shape[axis], dtype=torch.bool)
            gone[torch.from_numpy(kept)] = False
            module.weight.index_fill_(axis, gone.nonzero().flatten(), 0.0)
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            return "which inputs a recurrent layer keeps isn't looked at"
    return ""


@torch.no_grad()
def _compared(entry: Entry, dense: nn.Module, small: nn.Module, inputs: Any) -> Check:
    first, second = outputs_of(entry, dense, inputs), tensors(called(entry, dense, inputs))
    if not all(torch.equal(one, other) for one, other in zip(first, second, strict=True)):
        return Check(None, "the model draws random numbers")
    try:
        doubled = in_double(inputs)
        masked, pruned = (outputs_of(entry, model.double(), doubled) for model in (dense, small))
    except RuntimeError:  # somewhere in the model single precision is written down
        masked, pruned = (outputs_of(entry, model.float(), inputs) for model in (dense, small))
    finally:
        small.float()
    return _difference(masked, pruned)


def _difference(masked: list[torch.Tensor], pruned: list[torch.Tensor]) -> Check:
    worst = 0.0
    for old, new in zip(masked, pruned, strict=True):
        if old.shape != new.shape:
            return Check(None, "the outputs have other shapes")
        if old.is_floating_point() and old.numel():
            worst = max(worst, float((old - new).abs().max()) / max(float(old.abs().max()), 1e-30))
    tolerance = 1e-6 if all(t.dtype != torch.float32 for t in pruned) else 1e-4
    return Check(worst <= tolerance, f"largest relative difference {worst:.1e}")

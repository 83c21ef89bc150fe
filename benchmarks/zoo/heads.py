"""Attention projections by the names that libraries give them, and whether their heads stayed whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .checks import Check
from .entry import Entry
from .matching import kept_indices

COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "num_attn_heads")
_KEY_COUNTS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
_FUSED = ("qkv", "c_attn", "query_key_value", "qkv_proj", "Wqkv", "to_qkv")
_SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q", "k", "v"),
    ("to_q", "to_k", "to_v"),
    ("q_lin", "k_lin", "v_lin"),
    ("query_proj", "key_proj", "value_proj"),
)

_UNEVEN = ("attn_ratio", "dim_qk")
"""What attentions have whose values are wider than their queries and keys; their layout isn't looked at."""

_CUT_BY_COUNT = ("MultiheadAttention", "SABlock", "CrossAttentionBlock", "EvaAttention")
"""Attentions, torch's, MONAI's and timm's, that divide by their number of heads, whatever width they say a head has."""

_WIDTHS = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim", "dim_head")

Unscaled = Callable[[str, torch.Tensor], torch.Tensor]
"""A smaller model's parameter, by its name, as it would be if nothing had been scaled."""


@dataclass(frozen=True)
class Projection:
    """One weight that makes queries, keys or values.

    Attributes:
        layer: path of the attention.
        module: path of the projection.
        weight: dotted name of its weight.
        axis: of the weight, along which its outputs lie.
        parts: what the outputs are, in order, each with its number of heads: ``(("q", 8), ("k", 2), ("v", 2))``.
        heads_first: the outputs are laid out (heads, parts, width) instead.
    """

    layer: str
    module: str
    weight: str
    axis: int
    parts: tuple[tuple[str, int], ...]
    heads_first: bool = False

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """Part and head of every run of consecutive outputs."""
        if self.heads_first:
            return [(part, head) for head in range(self.parts[0][1]) for part, _ in self.parts]
        return [(part, head) for part, heads in self.parts for head in range(heads)]


def projections(model: nn.Module, *, heads_first: bool = False) -> Iterator[Projection]:
    """Every projection whose attention says how many heads it has."""
    for path, module in model.named_modules():
        heads = _first(module, COUNTS)
        if heads is None or any(hasattr(module, name) for name in _UNEVEN):
            continue
        keys = _first(module, _KEY_COUNTS) or heads
        if isinstance(module, nn.MultiheadAttention):
            if module.in_proj_weight is not None:
                yield Projection(path, path, f"{path}.in_proj_weight", 0, (("q", heads), ("k", heads), ("v", heads)))
            continue
        yield from _fused(path, module, heads, keys, heads_first)
        yield from _separate(path, module, heads, keys)


def _fused(path: str, module: nn.Module, heads: int, keys: int, heads_first: bool) -> Iterator[Projection]:
    for name in _FUSED:
        child = getattr(module, name, None)
        if isinstance(child, nn.Module) and hasattr(child, "weight"):
            parts = (("q", heads), ("k", keys), ("v", keys))
            if _outputs(child) % sum(count for _, count in parts) == 0:
                own = f"{path}.{name}"
                yield Projection(path, own, f"{own}.weight", _axis(child), parts, heads_first)


def _separate(path: str, module: nn.Module, heads: int, keys: int) -> Iterator[Projection]:
    for names in _SEPARATE:
        children = [getattr(module, name, None) for name in names]
        if not all(isinstance(child, nn.Module) and hasattr(child, "weight") for child in children):
            continue
        for part, name, child, count in zip("qkv", names, children, (heads, keys, keys), strict=True):
            assert child is not None
            if _outputs(child) % count == 0:
                yield Projection(path, f"{path}.{name}", f"{path}.{name}.weight", _axis(child), ((part, count),))


def _first(module: nn.Module, names: tuple[str, ...]) -> int | None:
    config = getattr(module, "config", None)
    for owner in (vars(module).get, lambda name: getattr(config, name, None)):  # diffusers warns of other attributes
        for name in names:
            count = owner(name)
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                return count
    return None


def _axis(child: Any) -> int:
    return 1 if type(child).__name__ == "Conv1D" else 0  # GPT-2's is a transposed Linear


def _outputs(child: Any) -> int:
    return int(child.weight.shape[_axis(child)])


def check_heads(entry: Entry, dense: nn.Module, small: nn.Module, unscaled: Unscaled) -> Check:
    """Whether every head of the smaller model is a part of one dense head, its own, the same for queries and keys."""
    before = list(projections(dense, heads_first=entry.heads_first))
    if not before:
        return Check(None, "no attention with known heads")
    weights, smaller = (dict(model.named_parameters(remove_duplicate=False)) for model in (dense, small))
    after = {p.weight: p for p in projections(small, heads_first=entry.heads_first)}
    offsets: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for projection in before:
        name = projection.weight
        if name not in smaller:
            return Check(None, f"{name} is gone")
        kept = kept_indices(weights[name], unscaled(name, smaller[name]), projection.axis)
        if kept is None:
            return Check(None, f"the rows of {name} can't be found in the dense weight")
        width = _width(small.get_submodule(projection.layer), after.get(name), len(kept))
        broken = _broken(projection, kept, weights[name].shape[projection.axis], width, offsets)
        if broken:
            return Check(False, f"{name}: {broken}")
    different = "" if entry.across_channels else _different(offsets)
    return Check(not different, different or f"{len(before)} projections")


def _width(layer: nn.Module, projection: Projection | None, rows: int) -> int:
    """The width that the smaller attention gives to each head: what it says, or what its number of heads leaves."""
    said = next((value for name in _WIDTHS if isinstance(value := vars(layer).get(name), int)), None)
    if said is not None and type(layer).__name__ not in _CUT_BY_COUNT:
        return said
    blocks = len(projection.blocks) if projection is not None else 0
    return rows // blocks if blocks and rows % blocks == 0 else 0


def _broken(
    projection: Projection,
    kept: NDArray[np.int64],
    rows: int,
    width: int,
    offsets: dict[tuple[str, str], list[NDArray[np.int64]]],
) -> str:
    """What is wrong with one projection's heads; appends each head's kept offsets, by attention and part."""
    if not width or len(kept) % width:
        return f"{len(kept)} rows are no whole number of heads"
    dense = rows // len(projection.blocks)
    homes: list[int] = []
    for head, rows_of in enumerate(kept.reshape(-1, width)):
        found = set((rows_of // dense).tolist())
        if len(found) > 1 or found & set(homes):
            return f"head {head} has rows of {len(found)} dense heads" if len(found) > 1 else f"head {head} is a half"
        homes += found
        offsets.setdefault((projection.layer, projection.blocks[homes[-1]][0]), []).append(rows_of % dense)
    return ""


def _different(offsets: dict[tuple[str, str], list[NDArray[np.int64]]]) -> str:
    """The first head whose queries and keys keep different indices."""
    for (layer, part), queries in offsets.items():
        keys = offsets.get((layer, "k"))
        if part != "q" or not keys or len(queries) % len(keys):
            continue
        for head, query in enumerate(queries):
            if not np.array_equal(query, keys[head // (len(queries) // len(keys))]):
                return f"{layer}: head {head}'s queries and keys keep different indices"
    return ""

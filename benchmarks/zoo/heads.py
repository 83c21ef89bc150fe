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

_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead", "num_attn_heads")
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
        heads = _first(module, _COUNTS)
        if heads is None or hasattr(module, "attn_ratio"):  # LeViT's values are wider than its queries and keys
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
    before, after = (
        {p.weight: p for p in projections(model, heads_first=entry.heads_first)} for model in (dense, small)
    )
    if not before:
        return Check(None, "no attention with known heads")
    weights = dict(dense.named_parameters(remove_duplicate=False))
    smaller = dict(small.named_parameters(remove_duplicate=False))
    offsets: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for name, projection in before.items():
        if name not in after or name not in smaller:
            return Check(False, f"{name} has no whole number of heads")
        kept = kept_indices(weights[name], unscaled(name, smaller[name]), projection.axis)
        if kept is None:
            return Check(None, f"the rows of {name} can't be found in the dense weight")
        broken = _broken(projection, after[name], kept, weights[name].shape[projection.axis], offsets)
        if broken:
            return Check(False, f"{name}: {broken}")
    different = "" if entry.across_channels else _different(offsets)
    return Check(not different, different or f"{len(before)} projections")


def _broken(
    dense: Projection,
    small: Projection,
    kept: NDArray[np.int64],
    rows: int,
    offsets: dict[tuple[str, str], list[NDArray[np.int64]]],
) -> str:
    """What is wrong with one projection's heads; appends each head's kept offsets, by attention and part."""
    width, smaller = rows // len(dense.blocks), len(kept) // len(small.blocks)
    if smaller * len(small.blocks) != len(kept):
        return f"{len(kept)} rows are no whole number of {len(small.blocks)} heads"
    taken: set[int] = set()
    for (part, head), rows_of in zip(small.blocks, kept.reshape(len(small.blocks), smaller), strict=True):
        homes = set((rows_of // width).tolist())
        if len(homes) > 1:
            return f"head {head} of {part} has rows of {len(homes)} dense heads"
        home = homes.pop()
        if home in taken or dense.blocks[home][0] != part:
            return f"head {head} of {part} has rows of another one's"
        taken.add(home)
        offsets.setdefault((dense.layer, part), []).append(rows_of % width)
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

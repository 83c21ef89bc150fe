"""Integers that modules keep: surgery changes those that follow, names those that can't, and puts all back."""

from __future__ import annotations

import dataclasses
import math
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import secateur
from secateur.errors import SecateurError
from secateur.graph import DependencyGraph
from secateur.importance import Random

X = torch.randn(2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A hidden layer of 12 channels between two others; ``forward`` and the attributes come from the test."""

    def __init__(self, use: Callable[[Any, torch.Tensor], torch.Tensor], wide: int = 12, **attributes: Any) -> None:
        super().__init__()
        self.inner = nn.Linear(6, wide)
        self.outer = nn.Linear(12, 3)
        self.use = use
        for name, value in attributes.items():
            setattr(self, name, value)
        self.double()

    def forward(self, x: torch.Tensor) -> Any:
        return self.outer(self.use(self, torch.cos(self.inner(x))))


def pruned(model: nn.Module, fraction: float = 0.5, x: torch.Tensor = X) -> tuple[DependencyGraph, Any]:
    """The graph, and a smaller model, proved to be the original without the channels that left."""
    torch.manual_seed(0)
    graph = secateur.trace(model, x)
    plan = secateur.plan(graph, Random(seed=0)(graph, model), {g.name: fraction for g in graph.groups})
    small = secateur.apply(model, plan)
    secateur.verify(model, small, plan)
    return graph, small


def reasons(graph: DependencyGraph, parameter: str, axis: int = 0) -> str:
    return "; ".join(r for u in graph.unprunable if (u.parameter, u.axis) == (parameter, axis) for r in u.reasons)


def viewed(m: Any, h: torch.Tensor) -> torch.Tensor:
    return h.view(h.shape[0], h.shape[1], m.width)


class Sizes(NamedTuple):
    heads: int
    width: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    heads: int
    width: int
    name: str = "frozen"


class Computed:
    def __init__(self, heads: int, each: int) -> None:
        self.heads, self.each = heads, each

    @property
    def width(self) -> int:
        return self.heads * self.each


def test_an_attribute_follows_the_width_that_it_gives() -> None:
    model: Any = Block(viewed, width=12)
    graph, small = pruned(model)
    assert [g.size for g in graph.groups] == [12]
    assert (small.width, small.inner.out_features) == (6, 6)
    assert model.width == 12
    assert type(model.width) is type(small.width) is int


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        (SimpleNamespace(width=12, depth=12), lambda s: s.width),
        (Frozen(3, 12), lambda s: s.width),
        (Sizes(3, 12), lambda s: s.width),
        ((3, 12), lambda s: s[1]),
        ([3, 12], lambda s: s[1]),
        ({"width": 12, "act": "relu"}, lambda s: s["width"]),
        (SimpleNamespace(widths=[3, 12]), lambda s: s.widths[1]),
        (SimpleNamespace(text=SimpleNamespace(width=12)), lambda s: s.text.width),
        ({"text": {"width": 12}}, lambda s: s["text"]["width"]),
        ([[1, 2], [12, 4]], lambda s: s[1][0]),
        (({"width": 12},), lambda s: s[0]["width"]),
        ({12: 12, 3: 4}, lambda s: s[12]),
        (defaultdict(int, width=12), lambda s: s["width"]),
        (SimpleNamespace(each=[Frozen(3, 12)]), lambda s: s.each[0].width),
        (Frozen(3, 12), lambda s: dataclasses.replace(s, heads=4).width),
        (Namespace(width=12), lambda s: s.width),
    ],
    ids=[
        "namespace", "frozen dataclass", "named tuple", "tuple", "list", "dictionary", "list in settings",
        "namespaces", "dictionaries", "lists", "dictionary in a tuple", "whole number as key", "default dictionary",
        "dataclass in a list", "replaced dataclass", "arguments of a program",
    ],
)  # fmt: skip
def test_settings_follow_and_the_given_ones_stay(settings: Any, width: Callable[[Any], int]) -> None:
    def use(m: Any, h: Any) -> Any:
        return h.view(h.shape[0], h.shape[1], width(m.settings))

    model: Any = Block(use, settings=settings)
    kind, before = type(settings), repr(settings)
    _, small = pruned(model)
    assert width(small.settings) == 6
    assert type(small.settings) is kind
    assert model.settings is settings
    assert (type(settings), repr(settings)) == (kind, before)


def test_a_computed_setting_is_followed_to_what_it_is_computed_from() -> None:
    model: Any = Block(lambda m, h: h.view(2, 5, m.settings.heads, m.settings.each).reshape(2, 5, m.settings.width))
    model.settings = Computed(3, 4)
    _, small = pruned(model)
    assert (small.settings.heads, small.settings.each, small.settings.width) == (3, 2, 6)


def test_settings_that_modules_share_are_copied_for_the_one_that_changes() -> None:
    class Shared(nn.Module):
        def __init__(self, settings: Any) -> None:
            super().__init__()
            self.first, self.second = Block(named, config=settings), Block(named, config=settings)
            self.config = settings

        def forward(self, x: torch.Tensor) -> Any:
            return self.first(x), self.second(x)

    def named(m: Any, h: torch.Tensor) -> torch.Tensor:
        return h.view(h.shape[0], h.shape[1], m.config.width)

    model: Any = Shared(SimpleNamespace(width=12))
    graph = secateur.trace(model, X)
    assert [g.name for g in graph.groups] == ["first.inner", "second.inner"]
    plan = secateur.plan(graph, Random(seed=0)(graph, model), {"first.inner": 0.5, "second.inner": 0.25})
    small = secateur.apply(model, plan)
    secateur.verify(model, small, plan)
    assert (small.first.config.width, small.second.config.width, small.config.width) == (6, 9, 12)
    assert model.first.config is model.second.config is model.config
    assert model.config.width == 12


def test_two_widths_that_one_attribute_gives_leave_alike() -> None:
    class Two(Block):
        def __init__(self) -> None:
            super().__init__(viewed, width=12)
            self.other = nn.Linear(6, 12).double()
            self.last = nn.Linear(12, 2).double()

        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), self.last(viewed(self, torch.sin(self.other(x))))

    graph, small = pruned(Two())
    assert len(graph.groups) == 2
    assert len(graph.ties) == 1
    assert (small.width, small.inner.out_features, small.other.out_features) == (6, 6, 6)


@pytest.mark.parametrize(
    ("use", "attributes", "expected"),
    [
        (lambda m, h: h.view(2, 5, m.heads, m.each).reshape(2, 5, m.heads * m.each), {"heads": 3, "each": 4}, (3, 2)),
        (lambda m, h: h.view(2, 5, m.heads, m.each).flatten(2), {"heads": 3, "each": 4}, (3, 2)),
        (lambda m, h: h.view(2, 5, m.heads, h.shape[-1] // m.heads).flatten(2), {"heads": 3, "each": 4}, (3, 4)),
        (lambda m, h: h.view(2, 5, -1, 4).view(2, 5, m.heads * 4), {"heads": 3, "each": 9}, (2, 9)),
        (lambda m, h: torch.cat(h.split([m.heads, m.each], -1)[::-1], -1), {"heads": 4, "each": 8}, (2, 4)),
        (lambda m, h: torch.cat([h[..., m.each :], h[..., : m.each]], -1), {"heads": 3, "each": 6}, (3, 3)),
        (lambda m, h: torch.cat([h[..., -m.each :], h[..., : -m.each]], -1), {"heads": 3, "each": 6}, (3, 3)),
        (lambda m, h: h + torch.zeros(m.each, dtype=h.dtype), {"heads": 3, "each": 12}, (3, 6)),
        (lambda m, h: h + h.new_full((2, 1, m.each), 0.5), {"heads": 3, "each": 12}, (3, 6)),
        (lambda m, h: F.layer_norm(h, (m.each,)), {"heads": 3, "each": 12}, (3, 6)),
        (lambda m, h: h.unflatten(-1, (m.heads, m.each)).flatten(2), {"heads": 3, "each": 4}, (3, 2)),
    ],
    ids=[
        "product", "split", "quotient", "whole blocks", "pieces", "cut", "cut from the end", "zeros",
        "constants", "norm", "unflatten",
    ],
)  # fmt: skip
def test_arithmetic_with_attributes(
    use: Callable[[Any, torch.Tensor], torch.Tensor], attributes: dict[str, int], expected: tuple[int, int]
) -> None:
    graph, small = pruned(Block(use, **attributes))
    assert graph.groups
    assert (small.heads, small.each) == expected
    assert small(X).shape == (2, 5, 3)


def test_pieces_of_one_projection_cut_at_sums_of_products() -> None:
    """Fused queries, keys and values of a grouped-query attention, cut as decoders of language models do."""

    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.shared, self.width = 4, 2, 6
            self.qkv = nn.Linear(6, 8 * 6)
            self.out = nn.Linear(4 * 6, 3)
            self.double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, _ = x.shape
            qkv, cut = self.qkv(x), self.heads * self.width
            q, k = qkv[..., :cut], qkv[..., cut : cut + self.shared * self.width]
            v = qkv[..., cut + self.shared * self.width :]
            q = q.view(b, n, self.heads, self.width).transpose(1, 2)
            k, v = (t.view(b, n, self.shared, self.width).transpose(1, 2) for t in (k, v))
            k, v = (t.repeat_interleave(self.heads // self.shared, dim=1) for t in (k, v))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, self.heads * self.width)
            out: torch.Tensor = self.out(y)
            return out

    _, small = pruned(Fused())
    assert (small.heads, small.shared, small.width) == (4, 2, 3)
    assert small.qkv.out_features == 8 * 3


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda m, h: h.view(2, 5, m.width) if m.width == 12 else h, "width goes through a comparison with 12"),
        (lambda m, h: h.view(2, 5, m.width + m.width % 5 - 2), "width goes through mod"),
        (lambda m, h: h.view(2, 5, int(m.width)), "has a size given as a number"),
        (lambda m, h: h.view(2, 5, m.width) * torch.arange(m.width).sum(), "width goes through the numbers of arange"),
        (lambda m, h: h.view(2, 5, m.more - 2), "size given to view(2, 5, 12)"),
        (lambda m, h: h.view(2, 5, m.more - m.less), "size given to view(2, 5, 12)"),
    ],
    ids=["comparison", "remainder", "plain", "numbers", "and a number", "difference"],
)
def test_what_cannot_follow_is_named(use: Callable[[Any, torch.Tensor], torch.Tensor], reason: str) -> None:
    graph = secateur.trace(Block(use, width=12, more=14, less=2), X)
    assert not graph.groups
    assert reason in reasons(graph, "inner.weight")
    assert "test_attribute_sizes.py" in reasons(graph, "inner.weight")


class Slots:
    __slots__ = ("width",)

    def __init__(self) -> None:
        self.width = 12


class Listed(list[int]):
    pass


class Widths(IntEnum):
    WIDE = 12


class OfTheClass:
    width = 12


def endless() -> list[Any]:
    sizes: list[Any] = [12]
    sizes.append(sizes)
    return sizes


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        (Slots(), lambda s: s.width),
        (Listed([12]), lambda s: s[0]),
        (Widths.WIDE, lambda s: s),
        (OfTheClass(), lambda s: s.width),
        (np.array([12]), lambda s: int(s[0])),
        ({(1, 2): 12}, lambda s: s[1, 2]),
        ({"a'b": 12}, lambda s: s["a'b"]),
        (Frozen(3, 12), lambda s: dataclasses.astuple(s)[1]),
        (endless(), lambda s: s[1][1][0]),
    ],
    ids=["slots", "list", "enumeration", "class", "array", "pair as key", "quote in a key", "tuple", "endless list"],
)
def test_settings_that_cannot_be_traced_pin_what_they_measure(settings: Any, width: Callable[[Any], int]) -> None:
    model: Any = Block(lambda m, h: h.view(2, 5, width(m.settings)), settings=settings)
    graph = secateur.trace(model, X)
    assert not graph.groups
    assert "has a size given as a number" in reasons(graph, "inner.weight")
    assert model.settings is settings


@pytest.mark.parametrize("root", [math.sqrt, np.sqrt, lambda n: n**0.5], ids=["math", "numpy", "power"])
def test_an_attribute_that_is_a_scale_mixes(root: Callable[[int], float]) -> None:
    graph = secateur.trace(Block(lambda m, h: h.view(2, 5, m.width) / root(m.width), width=12), X)
    (group,) = graph.groups
    assert any("width used as a number" in reason for reason in group.mixing)


def test_a_grouped_convolution_of_the_users_own() -> None:
    class Same(nn.Conv1d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv1d(F.pad(x, (1, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    class Depthwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make, self.each, self.use = nn.Conv1d(6, 12, 1), Same(12, 12, 3, groups=12), nn.Conv1d(12, 3, 1)
            self.double()

        def forward(self, x: torch.Tensor) -> Any:
            return self.use(torch.cos(self.each(self.make(x.transpose(1, 2)))))

    graph, small = pruned(Depthwise())
    assert [g.size for g in graph.groups] == [12]
    assert (small.each.groups, small.each.out_channels) == (6, 6)


def test_sizes_of_torchs_own_modules_are_followed() -> None:
    _, small = pruned(Block(lambda m, h: h.view(2, 5, m.inner.out_features) * (m.outer.in_features > 0)))
    assert small.inner.out_features == 6


def test_every_attribute_is_back_when_the_run_fails() -> None:
    def fails(m: Any, h: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"width {m.width} of {m.config.width} in {m.sizes[0]}")

    config = SimpleNamespace(width=12)
    model: Any = Block(fails, width=12, config=config, sizes=(12, 3))
    with pytest.raises(SecateurError, match="width 12 of 12 in 12"):
        secateur.trace(model, X)
    assert type(model.width) is type(model.sizes[0]) is type(config.width) is int
    assert type(config) is SimpleNamespace


def test_a_plan_with_settings_survives_json() -> None:
    model: Any = Block(lambda m, h: h.view(2, 5, m.config.width), config=SimpleNamespace(width=12))
    graph = secateur.trace(model, X)
    plan = secateur.plan(graph, Random(seed=0)(graph, model), {"inner": 0.5})
    assert plan.attributes == {"config.width": 6}
    read = secateur.PruningPlan.from_json(plan.to_json())
    assert read == plan
    assert secateur.apply(model, read).config.width == 6

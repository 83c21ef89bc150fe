"""einops computes sizes from shapes, and keeps them: they are followed, whatever was cached before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
from einops.layers.torch import Rearrange
from torch import nn

from secateur.errors import TraceError
from secateur.graph import trace
from secateur.surgery import apply
from tests.models.case import Step, unsettle
from tests.removal import largest_difference, masked, outputs, random_plan

X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)).double()
Function = Callable[[Any, torch.Tensor], torch.Tensor]


def between(function: Function) -> Any:
    """A function of the hidden channels between two linear layers."""

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = m.inner[1](function(m, torch.tanh(m.inner[0](x))))
        return made

    torch.manual_seed(0)
    model = Step(forward, nn.Linear(6, 24), nn.Linear(24, 2), Rearrange("b n (h d) -> b n (d h)", h=4))
    model.heads, model.width = 4, 24  # type: ignore[assignment]
    model = model.double().eval()
    unsettle(model)
    return model


def by_heads(m: Any, h: torch.Tensor) -> torch.Tensor:
    split = einops.rearrange(h, "b n (h d) -> b h n d", h=4)
    return torch.as_tensor(einops.rearrange(2 * split, "b h n d -> b n (h d)"))


def by_an_attribute(m: Any, h: torch.Tensor) -> torch.Tensor:
    split = einops.rearrange(h, "b n (h d) -> b h n d", h=m.heads, d=h.shape[-1] // m.heads)
    return torch.as_tensor(einops.rearrange(2 * split, "b h n d -> b n (h d)"))


def by_width(m: Any, h: torch.Tensor) -> torch.Tensor:
    split = einops.rearrange(h, "... (h d) -> ... h d", d=6)
    return torch.as_tensor(einops.rearrange(2 * split, "... h d -> ... (h d)"))


def by_a_layer(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(m.inner[2](h))


def repeated(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(einops.repeat(einops.reduce(h, "b n c -> b c", "mean"), "b c -> b n c", n=3))


def in_two_halves(m: Any, h: torch.Tensor) -> torch.Tensor:
    half = einops.reduce(h, "b n (two c) -> b n c", "sum", two=2)
    return torch.as_tensor(einops.repeat(half, "b n c -> b n (two c)", two=2))


def checked(m: Any, h: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(einops.rearrange(h, "b n c -> n b c", c=m.width))


CASES: dict[Function, tuple[int, int]] = {
    by_heads: (24, 4),
    by_an_attribute: (24, 4),
    by_width: (4, 1),
    by_a_layer: (6, 1),
    repeated: (24, 1),
    in_two_halves: (12, 1),
    checked: (24, 1),
}
"""To the channels of the only group, and its blocks."""


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("function", CASES)
def test_sizes_are_followed(function: Function, warm: bool) -> None:
    model = between(function)
    einops.einops._reconstruct_from_shape.cache_clear()
    if warm:
        model(X)
    run = lambda m: m(X)  # noqa: E731
    graph = trace(model, run=run)
    (group,) = graph.groups
    assert (group.size, group.blocks) == CASES[function]
    plan = random_plan(graph, 0)
    assert largest_difference(outputs(run, apply(model, plan)), outputs(run, masked(model, graph, plan))) < 1e-9


def test_a_number_that_einops_compares_stays() -> None:
    graph = trace(between(lambda m, h: einops.rearrange(h, "b n c -> n b c", c=24)), X)
    assert not graph.groups
    (item,) = [item for item in graph.unprunable if (item.parameter, item.axis) == ("inner.0.weight", 0)]
    assert any("comparison with 24" in reason for reason in item.reasons)


def test_equal_widths_of_two_layers_stay_two_groups() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = (einops.rearrange(m.inner[i](x), "b n (h d) -> b n h d", h=4) for i in (0, 1))
        made: torch.Tensor = m.inner[2](a.flatten(2)) + m.inner[3](b.flatten(2))
        return made

    graph = trace(Step(forward, *(nn.Linear(*size) for size in ((6, 24), (6, 24), (24, 2), (24, 2)))), X.float())
    assert {(g.name, g.tie) for g in graph.groups} == {("inner.0", 0), ("inner.1", 1)}


def test_the_cache_sees_plain_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compute, seen = einops.einops._reconstruct_from_shape, list[type]()

    def spy(recipe: Any, shape: Any, axes_dims: Any) -> Any:
        seen.extend(map(type, [*shape, *(length for _, length in axes_dims)]))
        return compute(recipe, shape, axes_dims)

    monkeypatch.setattr(einops.einops, "_reconstruct_from_shape", spy)
    trace(between(by_an_attribute), X)
    assert einops.einops._reconstruct_from_shape is spy
    assert seen == [int] * (5 + 4)


def test_what_does_not_fit_is_reported_as_ever() -> None:
    with pytest.raises(TraceError, match="can't divide axis of length 24 in chunks of 5"):
        trace(between(lambda m, h: einops.rearrange(h, "b n (h d) -> b h n d", h=5)), X)

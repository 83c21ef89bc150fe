"""Views made from strides that the code reads: whatever is followed is right, and what is plainly right is followed."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secateur import apply, plan, verify
from secateur.graph import DependencyGraph, trace
from secateur.importance import Magnitude

WIDTH = 6


class Strided(nn.Module):
    """A view of a layer's output, whose first dimension is as long as there are channels, and a layer after it."""

    def __init__(self, view: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.view = view
        self.first, self.last = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.view(torch.cos(self.first(x))).flatten(1)
        places = torch.arange(made.shape[1], dtype=made.dtype)
        result: torch.Tensor = self.last((made * torch.sin(places)).sum(1))
        return result


def traced(view: Callable[[torch.Tensor], torch.Tensor]) -> DependencyGraph:
    """The graph, once the smaller model has been compared with the original without those channels."""
    torch.manual_seed(0)
    model, x = Strided(view).double(), torch.randn(2, 4, 3, 4).double()
    graph = trace(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = plan(graph, Magnitude()(graph, model), 0.5)
    verify(model, apply(model, chosen), chosen)
    return graph


def windows(seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A random view of a tensor in a random layout, its sizes and strides made from those of the tensor."""
    draw = random.Random(seed)
    order = draw.sample(range(4), 4)
    steps = [(draw.randrange(4), draw.choice([1, 1, 2, 3]), draw.choice([1, 1, 1, 2])) for _ in range(3)]

    def view(h: torch.Tensor) -> torch.Tensor:
        h = h.permute(order).contiguous()
        channel = order.index(3)
        size, stride, room = [h.shape[channel], 1], [h.stride(channel), 0], list(h.shape)
        for dim, length, times in steps:
            if dim != channel and (length - 1) * times < room[dim]:
                room[dim] -= (length - 1) * times
                size, stride = [*size, length], [*stride, times * h.stride(dim)]
        return h.as_strided(size, stride)

    return view


@pytest.mark.parametrize("seed", range(24))
def test_windows_along_dimensions_that_stay_are_followed(seed: int) -> None:
    (group,) = traced(windows(seed)).groups
    assert group.size == WIDTH


FOLLOWED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "itself": lambda h: h.as_strided(h.shape, h.stride()).permute(3, 0, 1, 2),
    "from where it begins": lambda h: h.as_strided(h.shape[::-1], h.stride()[::-1], 0),
    "by keywords": lambda h: torch.as_strided(h, size=h.shape[::-1], stride=h.stride()[::-1]),
    "in place": lambda h: h.mT.as_strided_(h.shape[::-1], h.stride()[::-1]),
    "strides made of sizes": lambda h: h.as_strided((h.shape[3], 24), (1, h.shape[-1])),
    "two dimensions as one": lambda h: h.as_strided((h.shape[3], 12, 2), (1, h.stride(2), 12 * h.stride(2))),
    "across two dimensions": lambda h: h.as_strided((h.shape[3], 5, 4), (1, h.stride(0) // 3, h.stride(2))),
    "a part": lambda h: h[1].as_strided((h.shape[3], 4, 2), (1, h.stride(1), h.stride(2))),
    "no step": lambda h: h.as_strided((h.shape[3], 7, 1), (1, 0, 100)),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_follows(name: str) -> None:
    (group,) = traced(FOLLOWED[name]).groups
    assert group.size == WIDTH


PINNED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a size as a number": lambda h: h.as_strided((6, 24), (1, h.stride(2))),
    "a stride as a number": lambda h: h.as_strided((h.shape[3], 24), (1, 6)),
    "windows of channels": lambda h: h.as_strided((6, 4, h.shape[3] - 4), (h.stride(2), h.stride(2), 1)),
    "every other channel": lambda h: h.as_strided((6, h.shape[3] // 2), (h.stride(2), 2)),
    "diagonally": lambda h: h.as_strided((h.shape[3], 3), (1, h.stride(2) + 1)),
    "from further on": lambda h: h.as_strided((h.shape[3], 3), (1, h.stride(2)), 6),
    "beyond a part": lambda h: h[0].as_strided((h.shape[3], 24), (1, h.stride(2))),
    "a part with gaps": lambda h: h[..., :3].as_strided((6, 3), (h.stride(2), 1)),
    "half of the width": lambda h: h.as_strided((h.shape[3], 24), (1, h.stride(2) // 2)),
}


@pytest.mark.parametrize("name", PINNED)
def test_what_cannot_be_shown_to_be_right_stays(name: str) -> None:
    graph = traced(PINNED[name])
    assert not graph.groups
    (stays,) = (u for u in graph.unprunable if (u.parameter, u.axis) == ("first.weight", 0))
    assert any("as_strided" in reason and "test_strides.py" in reason for reason in stays.reasons), stays.reasons


def test_a_stride_used_as_a_number_is_noted() -> None:
    (group,) = traced(lambda h: h.permute(3, 0, 1, 2) * h.stride(2)).groups
    assert "width used as a number by mul" in group.mixing[0]


def test_strides_of_a_part_are_plain_integers() -> None:
    """Those of what it is a part of aren't known; used as sizes of it, they would be."""
    seen: list[type] = []

    def view(h: torch.Tensor) -> torch.Tensor:
        seen.extend(map(type, (h.stride(2), h[..., :3].stride(2))))
        return h.permute(3, 0, 1, 2)

    traced(view)
    assert seen[1] is int
    assert seen[0] is not int

"""The tracer itself: what it sees of unusual runs, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur.graph import trace


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def test_inference_mode_hides_nothing() -> None:
    def run(model: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.ones(2, 5))

    graph = trace(mlp(), run=run)
    assert [str(m) for m in graph.groups[0].members] == ["0.weight[0]", "0.bias[0]", "2.weight[1]"]


def test_tracing_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys, torch, secateur\n"
        "secateur.trace(torch.nn.Linear(5, 8), torch.ones(2, 5))\n"
        "assert 'torch._dynamo' not in sys.modules, 'seconds lost'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_meta_device_is_traced_without_memory() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4096, 16384), nn.ReLU(), nn.Linear(16384, 4096))
        graph = trace(model, torch.empty(2, 4096))
    assert [g.size for g in graph.groups] == [16384]


def test_a_value_read_from_a_mixing_operation_is_in_use() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            return self.second(h / h.abs().max().item())

    (group,) = trace(Scaled(), torch.ones(2, 5)).groups
    assert group.mixing


def test_attention_weights_that_nobody_uses_mix_nothing() -> None:
    class Attention(nn.Module):
        def __init__(self, use: bool) -> None:
            super().__init__()
            self.use = use
            self.embed, self.heads = nn.Linear(5, 16), nn.MultiheadAttention(16, 4, batch_first=True)
            self.out = nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.embed(x)
            values, weights = self.heads(h, h, h)
            return self.out(values) + weights.sum() if self.use else self.out(values)

    x = torch.ones(2, 3, 5)
    assert not any(g.mixing for g in trace(Attention(use=False), x).groups)
    assert any(g.mixing for g in trace(Attention(use=True), x).groups)


@pytest.mark.parametrize(
    "choose",
    [
        lambda y: y.argmax(-1),
        lambda y: y.argmin(-1),
        lambda y: y.max(-1)[1],
        lambda y: y.median(-1).indices,
        lambda y: y.cummax(-1).indices,
        lambda y: torch.tensor(y.argmax().item()),
        lambda y: torch.eye(6)[y.argmax(-1)],
    ],
)
def test_channels_whose_positions_are_used_stay(choose: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
    graph = trace(model, run=lambda m: choose(m(torch.randn(8, 4))))
    assert [group.name for group in graph.groups] == ["0"]
    (reasons,) = (axis.reasons for axis in graph.unprunable if (axis.parameter, axis.axis) == ("2.weight", 0))
    assert any("positions among these channels are used" in reason for reason in reasons)


def test_channels_whose_positions_nobody_uses_may_leave() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
    graph = trace(model, run=lambda m: m(torch.randn(8, 4)).max(-1)[0])
    assert [group.name for group in graph.groups] == ["0", "2"]


def test_a_size_cached_by_the_code_from_an_earlier_trace_pins() -> None:
    widths: dict[str, int] = {}

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            return self.second(h.view(-1, widths.setdefault("h", h.shape[1])))

    model = Cached()
    assert [g.size for g in trace(model, torch.ones(2, 5)).groups] == [8]
    assert trace(model, torch.ones(2, 5)).groups == ()


def test_sizes_given_by_keyword_are_seen() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 24), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(input=x)
            h = F.layer_norm(input=h, normalized_shape=h.shape[1:])
            left, right = torch.split(tensor=h, split_size_or_sections=h.size(dim=1) // 2, dim=1)
            h = torch.cat(tensors=[right, left], dim=1)
            h = torch.narrow(input=h, dim=1, start=0, length=h.shape[1])
            rows = torch.reshape(input=h, shape=(len(x), 4, -1))
            return self.second(rows.reshape(shape=(len(x), -1)) + h.new_zeros(size=h.shape))

    (group,) = trace(Keywords(), torch.ones(2, 5)).groups
    # Halves for the split, and halves of these for the four rows.
    assert (group.size, group.blocks, group.units) == (24, 4, 6)
    assert group.mixing

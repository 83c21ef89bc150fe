from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from secateur.surgery import apply
from tests.handmade import keeping

HALF = [0, 2]


def shrunk(module: nn.Module, kept: dict[str, dict[int, Any]], attributes: dict[str, int] | None = None) -> Any:
    """The module with these indices kept: parameter name to axis to indices."""
    axes = {(name, axis): indices for name, per_axis in kept.items() for axis, indices in per_axis.items()}
    return apply(module, keeping(module, axes, attributes))


CASES: list[tuple[nn.Module, dict[str, dict[int, Any]], dict[str, int], nn.Module]] = [
    (nn.Linear(4, 4), {"weight": {0: HALF, 1: [1]}, "bias": {0: HALF}}, {}, nn.Linear(1, 2)),
    (nn.Bilinear(4, 4, 4), {"weight": {0: HALF, 1: [1], 2: [0, 1, 2]}, "bias": {0: HALF}}, {}, nn.Bilinear(1, 3, 2)),
    (nn.Conv1d(4, 4, 3), {"weight": {0: HALF, 1: [1]}, "bias": {0: HALF}}, {}, nn.Conv1d(1, 2, 3)),
    (nn.Conv2d(4, 4, 3), {"weight": {0: HALF, 1: [1]}, "bias": {0: HALF}}, {}, nn.Conv2d(1, 2, 3)),
    (nn.Conv3d(4, 4, 3), {"weight": {0: HALF, 1: [1]}, "bias": {0: HALF}}, {}, nn.Conv3d(1, 2, 3)),
    (
        nn.Conv2d(4, 4, 3, groups=4),
        {"weight": {0: HALF}, "bias": {0: HALF}},
        {"groups": 2},
        nn.Conv2d(2, 2, 3, groups=2),
    ),
    (
        nn.Conv2d(8, 8, 3, groups=2),
        {"weight": {0: [0, 1, 5, 6], 1: [0, 3]}, "bias": {0: [0, 1, 5, 6]}},
        {},
        nn.Conv2d(4, 4, 3, groups=2),
    ),
    (nn.ConvTranspose1d(4, 6, 3), {"weight": {0: HALF}}, {}, nn.ConvTranspose1d(2, 6, 3)),
    (nn.ConvTranspose2d(4, 6, 3), {"weight": {1: [1]}, "bias": {0: [1]}}, {}, nn.ConvTranspose2d(4, 1, 3)),
    (
        nn.ConvTranspose3d(4, 4, 3, groups=4),
        {"weight": {0: HALF}, "bias": {0: HALF}},
        {"groups": 2},
        nn.ConvTranspose3d(2, 2, 3, groups=2),
    ),
    (
        nn.BatchNorm2d(4),
        {name: {0: HALF} for name in ("weight", "bias", "running_mean", "running_var")},
        {},
        nn.BatchNorm2d(2),
    ),
    (
        nn.BatchNorm1d(4, affine=False),
        {name: {0: HALF} for name in ("running_mean", "running_var")},
        {},
        nn.BatchNorm1d(2, affine=False),
    ),
    (
        nn.InstanceNorm1d(4, affine=True),
        {"weight": {0: HALF}, "bias": {0: HALF}},
        {},
        nn.InstanceNorm1d(2, affine=True),
    ),
    (nn.GroupNorm(2, 4), {"weight": {0: HALF}, "bias": {0: HALF}}, {}, nn.GroupNorm(2, 2)),
    (nn.GroupNorm(4, 4), {"weight": {0: HALF}, "bias": {0: HALF}}, {"num_groups": 2}, nn.GroupNorm(2, 2)),
    (nn.LayerNorm(4), {"weight": {0: HALF}, "bias": {0: HALF}}, {}, nn.LayerNorm(2)),
    (nn.LayerNorm((3, 4)), {"weight": {1: HALF}, "bias": {1: HALF}}, {}, nn.LayerNorm((3, 2))),
    (nn.RMSNorm(4), {"weight": {0: HALF}}, {}, nn.RMSNorm(2)),
    (
        nn.LayerNorm(4, elementwise_affine=False),
        {},
        {"normalized_shape[0]": 2},
        nn.LayerNorm(2, elementwise_affine=False),
    ),
    (nn.Embedding(5, 4), {"weight": {1: HALF}}, {}, nn.Embedding(5, 2)),
    (nn.EmbeddingBag(5, 4), {"weight": {1: HALF}}, {}, nn.EmbeddingBag(5, 2)),
    (nn.PReLU(4), {"weight": {0: HALF}}, {}, nn.PReLU(2)),
    (nn.Unflatten(1, (4, 3)), {}, {"unflattened_size[0]": 2}, nn.Unflatten(1, (2, 3))),
    (
        nn.RNN(4, 4),
        {
            "weight_ih_l0": {0: HALF, 1: [0, 1, 2]},
            "weight_hh_l0": {0: HALF, 1: HALF},
            "bias_ih_l0": {0: HALF},
            "bias_hh_l0": {0: HALF},
        },
        {},
        nn.RNN(3, 2),
    ),
    (
        nn.LSTM(4, 2),
        {
            "weight_ih_l0": {0: [0, 2, 4, 6], 1: [0, 1, 2]},
            "weight_hh_l0": {0: [0, 2, 4, 6], 1: [0]},
            "bias_ih_l0": {0: [0, 2, 4, 6]},
            "bias_hh_l0": {0: [0, 2, 4, 6]},
        },
        {},
        nn.LSTM(3, 1),
    ),
    (
        nn.LSTM(4, 3, proj_size=2),
        {"weight_hh_l0": {1: [0]}, "weight_hr_l0": {0: [0]}},
        {},
        nn.LSTM(4, 3, proj_size=1),
    ),
    (
        nn.GRUCell(4, 2),
        {
            "weight_ih": {0: [0, 2, 4], 1: [0, 1, 2]},
            "weight_hh": {0: [0, 2, 4], 1: [0]},
            "bias_ih": {0: [0, 2, 4]},
            "bias_hh": {0: [0, 2, 4]},
        },
        {},
        nn.GRUCell(3, 1),
    ),
]


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(module).items() if isinstance(v, (int, tuple, str)) and k != "_is_full_backward_hook"}


@pytest.mark.parametrize(("module", "kept", "attributes", "same"), CASES, ids=lambda v: type(v).__name__)
def test_attributes_are_those_of_a_module_made_that_size(
    module: nn.Module, kept: dict[str, dict[int, Any]], attributes: dict[str, int], same: nn.Module
) -> None:
    small = shrunk(module, kept, attributes)
    assert plain_attributes(small) == plain_attributes(same)
    assert {n: t.shape for n, t in small.state_dict().items()} == {n: t.shape for n, t in same.state_dict().items()}


def heads(kept: list[int], head_dim: int, count: int, times: int) -> list[int]:
    rows = [h * head_dim + i for h in kept for i in range(head_dim)]
    return [part * count * head_dim + r for part in range(times) for r in rows]


def test_attention_loses_whole_heads() -> None:
    module = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    inner = heads([0, 2], 4, 3, 1)
    packed = heads([0, 2], 4, 3, 3)
    small = shrunk(
        module,
        {
            "in_proj_weight": {0: packed, 1: inner},
            "in_proj_bias": {0: packed},
            "out_proj.weight": {0: inner, 1: inner},
            "out_proj.bias": {0: inner},
        },
    )
    assert plain_attributes(small) == plain_attributes(nn.MultiheadAttention(8, 2, batch_first=True).eval())
    x = torch.randn(1, 5, 8)
    small(x, x, x)


def test_attention_with_separate_weights() -> None:
    module = nn.MultiheadAttention(12, 3, kdim=6, vdim=5)
    inner = heads([0, 2], 4, 3, 1)
    packed = heads([0, 2], 4, 3, 3)
    small = shrunk(
        module,
        {
            "q_proj_weight": {0: inner, 1: inner},
            "k_proj_weight": {0: inner, 1: [0, 1, 2]},
            "v_proj_weight": {0: inner, 1: [1]},
            "in_proj_bias": {0: packed},
            "out_proj.weight": {0: inner, 1: inner},
            "out_proj.bias": {0: inner},
        },
    )
    assert plain_attributes(small) == plain_attributes(nn.MultiheadAttention(8, 2, kdim=3, vdim=1))
    small(torch.randn(4, 1, 8), torch.randn(6, 1, 3), torch.randn(6, 1, 1))


def test_attention_heads_may_shrink_when_the_plan_says_so() -> None:
    module = nn.MultiheadAttention(8, 2)
    half = [0, 1, 4, 5]
    packed = [part * 8 + i for part in range(3) for i in half]
    kept: dict[str, dict[int, Any]] = {
        "in_proj_weight": {0: packed, 1: half},
        "in_proj_bias": {0: packed},
        "out_proj.weight": {0: half, 1: half},
        "out_proj.bias": {0: half},
    }
    small = shrunk(module, kept, {"head_dim": 2})
    assert plain_attributes(small) == plain_attributes(nn.MultiheadAttention(4, 2))


def test_the_transformer_follows_its_layers() -> None:
    module = nn.Transformer(8, 2, 1, 1, 4, batch_first=True)
    inner, packed = heads([1], 4, 2, 1), heads([1], 4, 2, 3)
    kept: dict[str, dict[int, Any]] = {}
    for name, parameter in module.named_parameters():
        axes = {axis: inner if n == 8 else packed for axis, n in enumerate(parameter.shape) if n in (8, 24)}
        kept[name] = axes
    small = shrunk(module, kept)
    assert (small.d_model, small.nhead) == (4, 1)
    small(torch.randn(1, 3, 4), torch.randn(1, 2, 4))


def test_subclasses_are_updated_like_their_base() -> None:
    class Wide(nn.Linear):
        pass

    small = shrunk(Wide(4, 4), {"weight": {1: HALF}})
    assert (small.in_features, small.out_features) == (2, 4)


def test_parametrised_weights() -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    small = shrunk(
        module,
        {
            "parametrizations.weight.original0": {0: HALF},
            "parametrizations.weight.original1": {0: HALF},
            "bias": {0: HALF},
        },
    )
    assert (small.in_features, small.out_features) == (4, 2)
    torch.testing.assert_close(small(torch.eye(4)), module(torch.eye(4))[:, HALF])


@pytest.mark.parametrize("inplace", [False, True])
def test_a_smaller_lstm_runs(inplace: bool) -> None:
    module = nn.LSTM(4, 2, batch_first=True)
    rows = [0, 2, 4, 6]
    axes = {("weight_ih_l0", 0): rows, ("weight_hh_l0", 0): rows, ("weight_hh_l0", 1): [0]}
    made = keeping(module, {**axes, ("bias_ih_l0", 0): rows, ("bias_hh_l0", 0): rows})
    x = torch.randn(2, 3, 4)
    small = apply(module, made, inplace=inplace)
    small(x)[0].sum().backward()
    assert small(x)[0].shape == (2, 3, 1)


def test_modules_that_keep_their_shapes_are_left_alone() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].in_features = 99
    small = shrunk(model, {"0.weight": {1: HALF}})
    assert (small[0].in_features, small[1].in_features) == (2, 99)

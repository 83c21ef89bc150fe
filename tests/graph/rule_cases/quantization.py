"""Rounding as a quantised model would."""

from __future__ import annotations

from typing import Any

import torch

from tests.graph.oracle import Case
from tests.graph.rule_cases.inputs import X, aten, normal, positive

# Few levels, so that some values lie beyond them: only there does a zero point matter.
LEVELS = (-8, 7)
IMAGE = normal(2, 4, 3).float()
SCALES = positive(4).float() / 20
ZEROS = torch.tensor([0, 1, 2, 3], dtype=torch.int32)


def _observed(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, *, axis: int) -> Any:
    """One step of a fused observer, with the statistics it has so far."""
    on, scale = torch.tensor([1]), torch.ones_like(low)
    zero = torch.zeros_like(low, dtype=torch.int32)
    given = (x, on, on, low, high, scale, zero, 0.5, *LEVELS, max(axis, 0), axis >= 0)
    return aten._fused_moving_avg_obs_fq_helper(*given)[0]


CASES = [
    Case(
        "fake_quantize_per_tensor_affine_cachemask",
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.05, 3, *LEVELS),
        [X],
    ),
    Case(
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
        lambda x: torch.fake_quantize_per_tensor_affine(x, torch.tensor(0.05), torch.tensor(3), *LEVELS),
        [normal(*X).float()],
    ),
    Case(
        "_fake_quantize_learnable_per_tensor_affine",
        lambda x: torch._fake_quantize_learnable_per_tensor_affine(
            x, torch.tensor([0.05]), torch.tensor([3.0]), *LEVELS
        ),
        [normal(*X).float()],
    ),
    Case(
        "fake_quantize_per_channel_affine_cachemask",
        lambda x, s, z: torch.fake_quantize_per_channel_affine(x, s, z, 1, *LEVELS),
        [IMAGE, SCALES, ZEROS],
    ),
    Case(
        "_fake_quantize_learnable_per_channel_affine",
        lambda x, s, z: torch._fake_quantize_learnable_per_channel_affine(x, s, z, 1, *LEVELS),
        [IMAGE, SCALES, ZEROS.float()],
    ),
    Case(
        "_fused_moving_avg_obs_fq_helper",
        lambda x: _observed(x, torch.tensor([-1.0]), torch.tensor([1.0]), axis=-1),
        [normal(*X).float()],
        "one scale",
        mixed=[(0, 0), (0, 1)],
    ),
    Case(
        "_fused_moving_avg_obs_fq_helper",
        lambda x, low, high: _observed(x, low, high, axis=0),
        [normal(*X).float(), -positive(3).float(), positive(3).float()],
        "a scale for each row",
        mixed=[(0, 1)],
    ),
]

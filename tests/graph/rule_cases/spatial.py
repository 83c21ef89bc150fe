"""Pooling, padding, resizing, sampling."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import X, aten, normal, unit

IMAGE = (2, 3, 4, 6)
POSITIONS = {(0, 2): ALL, (0, 3): ALL}


def _on_images(ops: str, run: Any, shape: tuple[int, ...] = IMAGE) -> Case:
    return Case(ops, run, [shape], pinned={(0, a): ALL for a in range(2, len(shape)) if shape[a] > 1})


SIGNAL, VOLUME = (2, 3, 6), (2, 3, 4, 4, 4)
SPATIAL = [
    _on_images("avg_pool2d", lambda x: F.avg_pool2d(x, 2)),
    Case("avg_pool2d", lambda x: F.avg_pool2d(x, 2), [IMAGE[1:]], "no batch", pinned={(0, 1): ALL, (0, 2): ALL}),
    _on_images("avg_pool3d", lambda x: F.avg_pool3d(x, 2), VOLUME),
    _on_images("_adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, 2)),
    _on_images("_adaptive_avg_pool3d", lambda x: F.adaptive_avg_pool3d(x, 2), VOLUME),
    Case("mean", lambda x: F.adaptive_avg_pool2d(x, 1), [IMAGE], "global pooling", mixed=[(0, 2), (0, 3)]),
    _on_images("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, 2)),
    _on_images("adaptive_max_pool3d", lambda x: F.adaptive_max_pool3d(x, 2), VOLUME),
    _on_images("max_pool2d_with_indices", lambda x: F.max_pool2d(x, 2, return_indices=True)),
    _on_images("max_pool2d_with_indices", lambda x: F.max_pool1d(x, 2), SIGNAL),
    _on_images("max_pool3d_with_indices", lambda x: F.max_pool3d(x, 2), VOLUME),
    _on_images("upsample_nearest1d", lambda x: F.interpolate(x, scale_factor=2), SIGNAL),
    _on_images("upsample_nearest2d", lambda x: F.interpolate(x, scale_factor=2)),
    _on_images("upsample_nearest3d", lambda x: F.interpolate(x, scale_factor=2), VOLUME),
    *(
        _on_images(f"_upsample_nearest_exact{n}d", lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"), s)
        for n, s in ((1, SIGNAL), (2, IMAGE), (3, VOLUME))
    ),
    _on_images("upsample_linear1d", lambda x: F.interpolate(x, size=8, mode="linear"), SIGNAL),
    _on_images("upsample_bilinear2d", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    _on_images("upsample_bicubic2d", lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")),
    *(
        _on_images(f"_upsample_{m}2d_aa", lambda x, m=m: F.interpolate(x, scale_factor=0.5, mode=m, antialias=True))
        for m in ("bilinear", "bicubic", "lanczos")
    ),
    _on_images("upsample_trilinear3d", lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), VOLUME),
    *(
        _on_images(f"{op}_pad{n}d", lambda x, n=n, m=m: F.pad(x, (1, 2) * n, mode=m), s)
        for op, m in (("reflection", "reflect"), ("replication", "replicate"))
        for n, s in ((1, SIGNAL), (2, IMAGE), (3, VOLUME))
    ),
    Case(
        "fractional_max_pool2d",
        lambda x, r: F.fractional_max_pool2d(x, 2, output_size=3, _random_samples=r),
        [(2, 3, 7, 7), unit(2, 3, 2)],
        pinned=POSITIONS | {(1, 2): ALL},
    ),
    Case(
        "fractional_max_pool3d",
        lambda x, r: F.fractional_max_pool3d(x, 2, output_size=3, _random_samples=r),
        [(2, 3, 7, 7, 7), unit(2, 3, 3)],
        pinned={(0, a): ALL for a in (2, 3, 4)} | {(1, 2): ALL},
    ),
    Case(
        "max_unpool2d",
        lambda x, i: aten.max_unpool2d(x, i, [4, 6]),
        [(2, 3, 2, 3), F.max_pool2d(normal(*IMAGE), 2, return_indices=True)[1]],
        pinned=POSITIONS | {(1, 2): ALL, (1, 3): ALL},
    ),
    Case(
        "max_unpool3d",
        lambda x, i: aten.max_unpool3d(x, i, [4, 4, 4], [2, 2, 2], [0, 0, 0]),
        [(2, 3, 2, 2, 2), F.max_pool3d(normal(*VOLUME), 2, return_indices=True)[1]],
        pinned={(i, a): ALL for i in (0, 1) for a in (2, 3, 4)},
    ),
    Case(
        "grid_sampler_2d",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        [IMAGE, unit(2, 3, 2, 2) - 0.5],
        pinned=POSITIONS | {(1, a): ALL for a in (1, 2, 3)},
    ),
    Case(
        "grid_sampler_3d",
        lambda x, g: F.grid_sample(x, g, align_corners=False),
        [VOLUME, unit(2, 2, 2, 2, 3) - 0.5],
        pinned={(i, a): ALL for i in (0, 1) for a in (2, 3, 4)} | {(1, 1): ALL},
    ),
    Case(
        "affine_grid_generator",
        lambda t: F.affine_grid(t, [len(t), 3, 2, 4], align_corners=False),
        [(3, 2, 3)],
        pinned={(0, 1): ALL, (0, 2): ALL},
    ),
    Case("constant_pad_nd", lambda x: F.pad(x, (1, 2)), [X]),
    Case("constant_pad_nd", lambda x: F.pad(x, (0, 0, 2, 1), value=0.5), [X], "an outer dimension"),
    Case("constant_pad_nd", lambda x: F.pad(x, (-1, 2)), [X], "cuts", pinned={(0, 1): [0]}),
    Case("constant_pad_nd", lambda x: F.pad(x, (1, -2)), [X], "cuts the end", pinned={(0, 1): [2, 3]}),
    Case("im2col", lambda x: F.unfold(x, 2), [IMAGE], pinned=POSITIONS),
    Case("im2col", lambda x: F.unfold(x, (1, 2)), [IMAGE[1:]], "no batch", pinned={(0, 1): ALL, (0, 2): ALL}),
    Case("col2im", lambda x: F.fold(x, (2, 3), (2, 2)), [(2, 12, 2)], pinned={(0, 2): ALL}),
    Case("col2im", lambda x: F.fold(x, (2, 3), (2, 2)), [(12, 2)], "no batch", pinned={(0, 1): ALL}),
    Case("col2im", lambda x: F.fold(x.view(2, -1, 2), (2, 3), (2, 2)), [(1, 24, 2)], "rows", pinned={(0, 2): ALL}),
]

CASES = [*SPATIAL]

"""Matrix products, convolutions, attention, distances."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import aten, whole

PRODUCTS = [
    Case("mm", torch.mm, [(2, 3), (3, 4)]),
    Case("mm", F.linear, [(2, 3), (4, 3)], "linear"),
    Case("mm", F.linear, [(2, 3, 4), (5, 4)], "linear in three dimensions", pinned={(0, 0): ALL}),
    Case("bmm", torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    Case("bmm", lambda x, y: torch.einsum("bhmd,bhnd->bhmn", x, y), [(1, 2, 3, 4), (1, 2, 5, 4)], "einsum", macs=120),
    Case("mv", torch.mv, [(2, 3), (3,)], macs=6),
    Case("dot", torch.dot, [(3,), (3,)], macs=3),
    Case("vdot", torch.vdot, [(3,), (3,)], macs=3),
    Case("addmm", lambda x, w, b: F.linear(x, w, b), [(2, 3), (4, 3), (4,)], "linear"),
    Case("linear", whole(F.linear), [(2, 3), (4, 3), (4,)], "as a whole"),
    Case("linear", whole(F.linear), [(3, 5, 2), (4, 2), (4,)], "as a whole, of three dimensions"),
    Case("linear", whole(F.linear), [(2, 3, 1, 3), (4, 3)], "as a whole, without bias"),
    Case("linear", whole(F.linear), [(3,), (4, 3), (4,)], "as a whole, of one row"),
    Case("linear", whole(F.linear), [(2, 3), (3,)], "as a whole, by a vector", macs=6),
    Case("addmm", torch.addmm, [(2, 4), (2, 3), (3, 4)]),
    Case("addmm", torch.addmm, [(2, 1), (2, 3), (3, 4)], "broadcast"),
    Case("_addmm_activation", lambda b, x, w: aten._addmm_activation(b, x, w), [(4,), (2, 3), (3, 4)], macs=24),
    Case("addbmm", torch.addbmm, [(3, 5), (2, 3, 4), (2, 4, 5)], macs=120),
    Case("baddbmm", torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
    Case("baddbmm", torch.baddbmm, [(5,), (2, 3, 4), (2, 4, 5)], "broadcast"),
    Case("addmv", torch.addmv, [(2,), (2, 3), (3,)], macs=6),
    Case("addr", torch.addr, [(2, 3), (2,), (3,)], macs=6),
    Case("_trilinear", lambda x, y, w: F.bilinear(x, y, w), [(2, 3), (2, 4), (5, 3, 4)], macs=2 * 3 * 4 * 5),
    Case("_cdist_forward", torch.cdist, [(2, 3, 5), (2, 4, 5)], macs=0),
    Case("_cdist_forward", lambda x, y: torch.cdist(x, y, 1), [(2, 3, 5), (4, 5)], "p = 1, broadcast", macs=0),
    Case("_euclidean_dist", torch.cdist, [(2, 30, 5), (2, 4, 5)], "many rows", macs=0),
]


CONVOLUTIONS = [
    Case("convolution", F.conv1d, [(2, 4, 6), (3, 4, 2), (3,)], "1d", pinned={(0, 2): ALL, (1, 2): ALL}),
    Case(
        "convolution",
        lambda x, w: F.conv2d(x, w, stride=2, padding=1, dilation=(1, 2)),
        [(2, 3, 4, 5), (4, 3, 2, 2)],
        "2d strided",
        pinned={(0, 2): ALL, (0, 3): ALL, (1, 2): ALL, (1, 3): ALL},
    ),
    Case("convolution", F.conv2d, [(2, 3, 4, 5), (4, 3, 1, 1)], "1x1"),
    Case("convolution", F.conv2d, [(3, 4, 5), (4, 3, 1, 1)], "no batch"),
    Case(
        "convolution",
        lambda x, w: F.conv2d(x, w, stride=(1, 2), padding=(0, 1)),
        [(2, 3, 4, 5), (4, 3, 1, 1)],
        "1x1 strided",
        pinned={(0, 3): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=(1, 2), padding=(0, 1), output_padding=(0, 1)),
        [(2, 4, 3, 4), (4, 3, 1, 2), (3,)],
        "transposed, one position high",
        pinned={(0, 3): ALL, (1, 3): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv1d(x, w, b, groups=2),
        [(2, 6, 4), (4, 3, 1), (4,)],
        "two groups, 1x1",
    ),
    Case(
        "convolution",
        F.conv3d,
        [(1, 3, 2, 2, 2), (2, 3, 2, 2, 1), (2,)],
        "3d",
        pinned={(0, a): ALL for a in (2, 3)} | {(1, 2): ALL, (1, 3): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2),
        [(2, 4, 3), (4, 3, 2), (3,)],
        "transposed 1d",
        pinned={(0, 2): ALL, (1, 2): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1),
        [(2, 4, 3, 2), (4, 3, 3, 3), (3,)],
        "transposed 2d",
        pinned={(0, 2): ALL, (0, 3): ALL, (1, 2): ALL, (1, 3): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv1d(x, w, b, groups=2),
        [(2, 6, 4), (4, 3, 2), (4,)],
        "two groups",
        pinned={(0, 2): ALL, (1, 2): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv_transpose1d(x, w, b, groups=2),
        [(2, 6, 4), (6, 3, 2), (6,)],
        "transposed, two groups",
        pinned={(0, 2): ALL, (1, 2): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv1d(x, w, b, groups=4),
        [(2, 4, 4), (4, 1, 2), (4,)],
        "depthwise, groups a number",
        pinned={(0, 1): ALL, (0, 2): ALL, (1, 0): ALL, (1, 2): ALL, (2, 0): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b: F.conv1d(x, w, b, groups=3),
        [(2, 3, 4), (9, 1, 2), (9,)],
        "depthwise with a multiplier, groups a number",
        pinned={(0, 1): ALL, (0, 2): ALL, (1, 2): ALL},
    ),
    Case(
        "convolution",
        lambda x, w, b, groups: F.conv2d(x, w, b, groups=groups),
        [(2, 4, 3, 3), (4, 1, 2, 2), (4,)],
        "depthwise",
        pinned={(0, 2): ALL, (0, 3): ALL, (1, 2): ALL, (1, 3): ALL},
        adapt=lambda kept: {"groups": len(kept[0, 1])},
        resizable=True,
    ),
    Case(
        "convolution",
        lambda x, w, b, groups: F.conv1d(x, w, b, groups=groups),
        [(2, 4, 3), (8, 1, 2), (8,)],
        "depthwise with a multiplier",
        pinned={(0, 2): ALL, (1, 2): ALL},
        adapt=lambda kept: {"groups": len(kept[0, 1])},
        resizable=True,
    ),
    Case(
        "convolution",
        lambda x, w, b, groups: F.conv1d(x, w, b, groups=groups),
        [(2, 8, 3), (4, 2, 2), (4,)],
        "whole groups",
        pinned={(0, 2): ALL, (1, 1): ALL, (1, 2): ALL},
        adapt=lambda kept: {"groups": len(kept[0, 1]) // 2},
        resizable=True,
    ),
    Case(
        "convolution",
        lambda x, w, b, groups: F.conv_transpose1d(x, w, b, groups=groups),
        [(2, 8, 3), (8, 2, 2), (8,)],
        "transposed, whole groups",
        pinned={(0, 2): ALL, (1, 1): ALL, (1, 2): ALL},
        adapt=lambda kept: {"groups": len(kept[0, 1]) // 2},
        resizable=True,
    ),
    Case(
        "convolution",
        lambda x, w, groups: F.conv_transpose1d(x, w, groups=groups),
        [(2, 4, 3), (4, 1, 2)],
        "transposed, depthwise",
        pinned={(0, 2): ALL, (1, 2): ALL},
        adapt=lambda kept: {"groups": len(kept[0, 1])},
        resizable=True,
    ),
    Case(
        "_convolution",
        lambda x, w, b: aten._convolution(x, w, b, [1], [0], [1], False, [0], 1, False, False, False, False),
        [(2, 4, 6), (3, 4, 2), (3,)],
        pinned={(0, 2): ALL, (1, 2): ALL},
    ),
]


def _heads(x: torch.Tensor) -> torch.Tensor:
    """(batch, positions, 2 * width) to (batch, 2, positions, width)."""
    return x.view(1, x.shape[1], 2, -1).transpose(1, 2)


FLASH = "_scaled_dot_product_flash_attention_for_cpu"
ATTENTION = [
    Case(
        FLASH,
        F.scaled_dot_product_attention,
        [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5)],
        mixed=[(0, 3), (1, 2), (1, 3), (2, 2)],
        macs=2 * 3 * 4 * 6 * (5 + 5),
    ),
    Case(
        FLASH,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5),
        [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5)],
        "scale",
        mixed=[(1, 2), (2, 2)],
        macs=2 * 3 * 4 * 6 * (5 + 5),
    ),
    Case(
        FLASH,
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, scale=0.5),
        [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5), (1, 3, 4, 6)],
        "mask per head",
        mixed=[(1, 2), (2, 2), (3, 3)],
        macs=2 * 3 * 4 * 6 * (5 + 5),
    ),
    Case(
        FLASH,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.5),
        [(2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5)],
        "causal",
        pinned={(0, 2): ALL, (1, 2): ALL, (2, 2): ALL},
        mixed=[(1, 2), (2, 2)],
        macs=2 * 3 * 4 * 4 * (5 + 5),
    ),
    Case(
        FLASH,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5, enable_gqa=True),
        [(2, 6, 4, 5), (2, 3, 6, 5), (2, 3, 6, 5)],
        "grouped queries",
        mixed=[(1, 2), (2, 2)],
        macs=2 * 6 * 4 * 6 * (5 + 5),
    ),
    Case(
        FLASH,
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5, enable_gqa=True),
        [(2, 6, 4, 5), (2, 1, 6, 5), (2, 1, 6, 5)],
        "one key and value head",
        mixed=[(1, 2), (2, 2)],
        macs=2 * 6 * 4 * 6 * (5 + 5),
    ),
    Case(
        FLASH,
        lambda q, k, v: F.scaled_dot_product_attention(_heads(q), _heads(k), _heads(v), scale=0.5),
        [(1, 4, 6), (1, 5, 6), (1, 5, 6)],
        "split heads",
        mixed=[(1, 1), (2, 1)],
        macs=2 * 4 * 5 * (3 + 3),
    ),
    Case(
        "bmm _safe_softmax",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5),
        [(3, 4, 5), (3, 6, 5), (3, 6, 2)],
        "math",
        mixed=[(1, 1), (2, 1)],
    ),
]

CASES = [*PRODUCTS, *CONVOLUTIONS, *ATTENTION]

"""The reshape family."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import X, aten

SHAPES = [
    Case("view", lambda x: x.view(x.shape[0], -1), [(3, 4, 1)], "drops a one"),
    Case("view", lambda x: x.view(len(x), -1), [(3, 2, 4)], "merge", pinned={(0, 1): ALL}),
    Case("view", lambda x: x.view(len(x), -1), [(3, 4, 2)], "merge, the outer longer", pinned={(0, 2): ALL}),
    Case("view", lambda x: x.view(len(x), 2, -1), [(2, 8)], "split"),
    Case("view", lambda x: x.view(len(x), -1, 2), [(2, 8)], "split, whole blocks", flexible=frozenset({1})),
    Case("view", lambda x: x.view(2, -1), [(8, 3)], "split and merge", pinned={(0, 1): ALL}),
    Case("view", lambda x: x.view(3, 8), [(4, 6)], "straddling", pinned={(0, 0): ALL, (0, 1): ALL}),
    Case("view", lambda x: x.view(len(x), 2, -1).view(len(x), -1), [(2, 8)], "there and back"),
    Case("view", lambda x: x.view(len(x), 2, 2, -1), [(2, 8)], "split in three"),
    Case("view", lambda x: x.view(torch.int64), [X], "dtype"),
    Case("_unsafe_view", lambda x: aten._unsafe_view(x, [x.shape[0], -1]), [(3, 4, 1)]),
    Case("view_copy", lambda x: aten.view_copy(x, [x.shape[0], 2, -1]), [(3, 8)]),
    Case("_reshape_alias", lambda x: aten._reshape_alias(x, list(x.shape), x.stride()), [X]),
    Case("_reshape_copy", lambda x: aten._reshape_copy(x, [x.shape[0], 2, -1]), [(3, 8)]),
    Case("permute", lambda x: x.permute(2, 0, -2), [(2, 3, 4)]),
    Case("permute", lambda x: x.view(len(x), 2, -1).permute(2, 0, 1), [(2, 8)], "a split axis"),
    Case("permute_copy", lambda x: aten.permute_copy(x, [1, 0]), [X]),
    Case("transpose", lambda x: aten.transpose(x, -1, 0), [(2, 3, 4)]),
    Case("transpose", lambda x: (x * 1).transpose_(0, 1), [(2, 3)], "in place"),
    Case("transpose_copy", lambda x: aten.transpose_copy(x, 0, 1), [X]),
    Case("t", torch.t, [X]),
    Case("t", lambda x: x.t() + 1, [(4,)], "one dimension"),
    Case("t_copy", aten.t_copy, [X]),
    Case("unsqueeze", lambda x: x.unsqueeze(-1).unsqueeze(1).unsqueeze(0), [X]),
    Case("unsqueeze_copy", lambda x: aten.unsqueeze_copy(x, -2), [X]),
    Case("squeeze", torch.squeeze, [(1, 3, 1, 4)]),
    Case("squeeze", lambda x: x.squeeze(-2), [(1, 3, 1, 4)], "one dimension"),
    Case("squeeze", lambda x: x.squeeze((0, 1, -2)), [(1, 3, 1, 4)], "several dimensions"),
    Case("squeeze_copy", lambda x: aten.squeeze_copy(x, 0), [(1, 3, 4)]),
    Case("repeat", lambda x: x.repeat(1, 2), [X]),
    Case("repeat", lambda x: x.repeat(5, 1, 2), [(3, 1)], "new and longer dimensions"),
    Case("repeat", lambda x: x.view(len(x), 2, -1).repeat(1, 2, 1), [(2, 6)], "rows"),
    Case("clone view", lambda x: x.repeat_interleave(2, dim=-1), [X], "repeat_interleave"),
    Case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), [(2, 12, 2, 3)], pinned={(0, 2): ALL, (0, 3): ALL}),
    Case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), [(2, 2, 8, 1, 1)], "two batch dimensions"),
    Case("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), [(2, 3, 4, 6)], pinned={(0, 2): ALL, (0, 3): ALL}),
    Case("channel_shuffle", lambda x: F.channel_shuffle(x, 2), [(2, 8, 1, 3)]),
]

CASES = [*SHAPES]

"""Two dimensions paired by position."""

from __future__ import annotations

import torch

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import BOTH, X, aten

SQUARE = (3, 3)
PAIR = {(0, 1): ALL, (0, 2): ALL}

CASES = [
    *(Case(name, getattr(torch, name), [(2, 4, 4)]) for name in ("tril", "triu")),
    Case("tril", lambda x: x.tril(-1), [(4, 4)], "below the diagonal"),
    Case("triu", lambda x: x.triu(1), [(4, 4)], "above the diagonal"),
    Case("tril", lambda x: x.tril(1), [(2, 4, 4)], "an offset", pinned=PAIR),
    Case("triu", lambda x: x.triu(-1), [(2, 4, 4)], "an offset", pinned=PAIR),
    Case("triu", torch.triu, [(2, 4, 3)], "not square", pinned=PAIR),
    Case(
        "triu", lambda x: x[:, None].expand(-1, 2, -1).clone().triu(), [(3, 4)], "one of a pair", pinned={(0, 1): ALL}
    ),
    Case("diagonal", lambda x: x.diagonal(0, 0, 2), [(3, 4, 3)]),
    Case("diagonal", torch.diagonal, [SQUARE], "default"),
    Case("diagonal", lambda x: x.diagonal(1), [SQUARE], "an offset", pinned=BOTH),
    Case("diagonal", torch.diagonal, [X], "not square", pinned=BOTH),
    Case("diagonal", lambda x: torch.einsum("bii->bi", x), [(2, 3, 3)], "einsum"),
    Case(
        "diagonal",
        lambda x: x.view(len(x), 2, -1).diagonal(0, 0, 1),
        [(2, 6)],
        "rows of a split axis",
        pinned={(0, 0): ALL},
    ),
    Case("diagonal_copy", aten.diagonal_copy, [SQUARE]),
    Case("trace", torch.trace, [(4, 4)]),
    Case("trace", torch.trace, [X], "not square", pinned=BOTH),
    Case("diag_embed", torch.diag_embed, [X]),
    Case("diag_embed", lambda x: torch.diag_embed(x, 0, 0, 2), [X], "dims"),
    Case("diag_embed", lambda x: torch.diag_embed(x, 1), [X], "an offset", pinned={(0, 1): ALL}),
    Case("diag_embed", lambda x: torch.diag_embed(x.view(len(x), 2, -1)), [(2, 6)], "columns of a split axis"),
    Case("diagonal_scatter", torch.diagonal_scatter, [SQUARE, (3,)]),
    Case("diagonal_scatter", lambda x, y: x.diagonal_scatter(y, 0, 2, 0), [(3, 4, 3), (4, 3)], "dims"),
    Case(
        "diagonal_scatter",
        lambda x, y: x.diagonal_scatter(y, 1),
        [SQUARE, (2,)],
        "an offset",
        pinned=BOTH | {(1, 0): ALL},
    ),
    Case("block_diag", torch.block_diag, [X, (2, 3)]),
    Case("block_diag", lambda x, y: torch.block_diag(x, torch.tensor(2.0), y), [X, (3,)], "a number and a row"),
]

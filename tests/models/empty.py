"""Empty tensors: tokens, registers or memories of which a model has none, and pieces of length zero."""

from __future__ import annotations

from typing import Any

import torch

from tests.models.habits import ENC, TOKENS, chain, habit, hidden, tensors


def no_tokens_in_front(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](torch.cat((m.tokens.expand(len(x), -1, -1), h), 1))


def no_tokens_seen_in_heads(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    none = h[:, :0].reshape(len(x), 0, 3, h.shape[2] // 3).flatten(2)
    return m.inner[1](torch.cat((none, h), 1))


def no_tokens_one_by_one(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    none = h[:, :0].flatten(0, 1)
    return m.inner[1](torch.cat((none, h.flatten(0, 1))))


def no_tokens_by_number(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](torch.cat((h[:, :0].reshape(0, 12), h.flatten(0, 1))))


CASES = [
    habit(
        "no-tokens-in-front",
        no_tokens_in_front,
        chain(12, 12),
        {"tokens": 12},
        shape=TOKENS,
        tensors=tensors(tokens=(0, 12)),
    ),
    habit("no-tokens-seen-in-heads", no_tokens_seen_in_heads, chain(12, 12), {ENC: 12}, shape=TOKENS, blocks={ENC: 3}),
    habit("no-tokens-one-by-one", no_tokens_one_by_one, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("no-tokens-by-number", no_tokens_by_number, chain(12, 12), {}, shape=TOKENS),
]

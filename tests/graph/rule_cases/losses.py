"""Losses."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import X, aten, integers, unit

ELEMENTWISE: dict[str, list[Any]] = {
    "mse_loss": [X, X],
    "smooth_l1_loss": [X, X],
    "huber_loss": [X, X],
    "soft_margin_loss": [X, X],
    "binary_cross_entropy": [unit(*X), unit(*X)],
    "binary_cross_entropy_with_logits": [X, unit(*X), (4,)],
}
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def _elementwise(name: str, reduction: str) -> Case:
    inputs = ELEMENTWISE[name]
    mixed = [] if reduction == "none" else [(0, 0), (0, 1), (1, 0), (1, 1), *([(2, 0)] if len(inputs) > 2 else [])]
    return Case(name, partial(getattr(aten, name), reduction=REDUCTIONS[reduction]), inputs, reduction, mixed=mixed)


TARGET = integers(2, high=3)
SCORES = (2, 3)
CASES = [
    *(_elementwise(name, reduction) for name in ELEMENTWISE for reduction in ("none", "mean")),
    _elementwise("mse_loss", "sum"),
    Case(
        "nll_loss_forward",
        lambda x, t: F.nll_loss(x, t, reduction="none"),
        [SCORES, TARGET],
        "none",
        pinned={(0, 1): ALL},
    ),
    Case("nll_loss_forward", F.nll_loss, [SCORES, TARGET], pinned={(0, 1): ALL}, mixed=[(0, 0), (1, 0)]),
    Case(
        "nll_loss_forward",
        lambda x, w: F.nll_loss(x, torch.tensor(1), w, reduction="sum"),
        [(3,), unit(3)],
        "one sample, weighted",
        pinned={(0, 0): ALL, (1, 0): ALL},
    ),
    Case(
        "_log_softmax nll_loss_forward",
        lambda x: F.cross_entropy(x, TARGET),
        [SCORES],
        "cross entropy",
        pinned={(0, 0): ALL, (0, 1): ALL},
        mixed=[(0, 0), (0, 1)],
    ),
    Case(
        "nll_loss2d_forward",
        lambda x, t: F.nll_loss(x, t, reduction="none"),
        [(2, 3, 4, 5), integers(2, 4, 5, high=3)],
        pinned={(0, 1): ALL},
    ),
    Case(
        "multi_margin_loss",
        lambda x, t: F.multi_margin_loss(x, t, reduction="none"),
        [SCORES, TARGET],
        pinned={(0, 1): ALL},
    ),
    Case(
        "multilabel_margin_loss_forward",
        lambda x, t: F.multilabel_margin_loss(x, t, reduction="none"),
        [SCORES, torch.tensor([[0, -1, 2], [1, 0, -1]])],
        pinned={(0, 1): ALL, (1, 1): ALL},
    ),
    Case(
        "_ctc_loss",
        lambda x: F.ctc_loss(
            x.log_softmax(2), torch.tensor([[1, 2], [2, 1]]), torch.tensor([4, 4]), torch.tensor([2, 2])
        ),
        [(4, 2, 3)],
        pinned={(0, 0): ALL, (0, 1): ALL, (0, 2): ALL},
        mixed=[(0, 2)],
    ),
]

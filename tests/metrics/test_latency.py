from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.errors import ObjectiveError, TraceError
from secateur.metrics import Latency


class Sleeper(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.01 if self.training else 0.002)
        return x


def test_it_is_the_time_of_one_run_in_evaluation_mode() -> None:
    model, x = Sleeper().train(), torch.ones(1)
    once = Latency(x, repeats=5)(model)
    assert 0.002 <= once < 0.006
    assert 0.004 <= Latency(run=lambda m: m(m(x)), repeats=5)(model) < 0.010
    assert model.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 0}, "latency needs repeats to be a whole number, at least 1, not 0"),
        ({"repeats": 2.5}, "latency needs repeats to be a whole number, at least 1, not 2.5"),
        ({"threads": 0}, "latency needs threads to be a whole number, at least 1, not 0"),
        ({"shortest": -1.0}, "latency needs shortest to be seconds, at least 0, not -1.0"),
        ({"shortest": float("nan")}, "latency needs shortest to be seconds, at least 0, not nan"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        Latency(torch.ones(1), **settings)


def test_exactly_one_of_inputs_and_run() -> None:
    with pytest.raises(TraceError, match="neither given"):
        Latency()
    with pytest.raises(TraceError, match="both given"):
        Latency(torch.ones(1), run=lambda m: m(torch.ones(1)))

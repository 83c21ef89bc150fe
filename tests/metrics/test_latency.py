from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from secateur.errors import TraceError
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


def test_exactly_one_of_inputs_and_run() -> None:
    with pytest.raises(TraceError, match="neither given"):
        Latency()
    with pytest.raises(TraceError, match="both given"):
        Latency(torch.ones(1), run=lambda m: m(torch.ones(1)))

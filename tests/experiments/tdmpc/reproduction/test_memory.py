from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.experiments.tdmpc.reproduction import memory
from secateur.experiments.tdmpc.reproduction.memory import peak_memory, peak_tensors

FLOAT = 4


def test_tensors_that_live_together_are_added_up() -> None:
    x = torch.ones(1000)

    def call() -> None:
        a = x + 1
        b = a * 2
        c = b - a
        c.add_(1)

    assert peak_tensors(call) == 3 * 1000 * FLOAT


def test_what_is_let_go_is_not_counted() -> None:
    x = torch.ones(1000)

    def call() -> None:
        y = x + 1
        for _ in range(10):
            y = y + 1

    assert peak_tensors(call) == 2 * 1000 * FLOAT


def test_views_and_given_tensors_take_no_memory() -> None:
    x = torch.ones(10, 100)
    assert peak_tensors(lambda: x.t()[:50].flatten(0).view(-1)[:10]) == 500 * FLOAT
    assert peak_tensors(lambda: x.add_(1)) == 0


def test_nothing_stays_counted_from_one_call_to_the_next() -> None:
    x = torch.ones(100)
    assert [peak_tensors(lambda: x + 1) for _ in range(3)] == [100 * FLOAT] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process needed at its peak")
def test_the_process_needs_what_is_allocated() -> None:
    with peak_memory() as peak:
        block = np.ones(64 * 2**20 // 8)
        assert block[-1] == 1
        del block
        small = np.ones(1)
    assert small[0] == 1
    assert peak.extra is not None
    assert 60e6 < peak.extra < 90e6


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process needed at its peak")
def test_an_earlier_peak_does_not_count() -> None:
    block = np.ones(64 * 2**20 // 8)
    del block
    with peak_memory() as peak:
        assert np.ones(8).sum() == 8
    assert peak.extra is not None
    assert peak.extra < 10e6


def test_where_the_system_is_silent_there_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_RESET", Path("/nowhere/at/all"))
    with peak_memory() as peak:
        pass
    assert peak.extra is None

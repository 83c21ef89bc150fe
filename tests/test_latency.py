from __future__ import annotations

import time
from collections import Counter

import pytest
import torch

from secateur.latency import measure_latency


def test_a_slower_call_measures_slower_by_what_it_waits() -> None:
    found = measure_latency({"long": lambda: time.sleep(0.008), "short": lambda: time.sleep(0.002)}, repeats=5)
    assert 0.008 <= found["long"].median < 0.03
    assert 0.002 <= found["short"].median < 0.008
    assert found["long"].repeats == 5
    assert found["long"].spread >= 0


def test_the_calls_take_turns() -> None:
    order: list[str] = []

    def call(name: str) -> None:
        order.append(name)
        time.sleep(0.002)

    measure_latency({"a": lambda: call("a"), "b": lambda: call("b")}, repeats=4)
    assert order[-8:] == ["a", "b"] * 4


def test_a_quick_call_is_repeated_within_a_measurement() -> None:
    count: Counter[str] = Counter()
    measure_latency({"quick": lambda: count.update(["quick"])}, repeats=3, shortest=1e-3)
    assert count["quick"] > 100


def test_threads_are_set_stated_and_put_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    found = measure_latency({"x": lambda: seen.append(torch.get_num_threads())}, repeats=2, threads=2, shortest=1e-6)
    assert set(seen) == {2}
    assert found["x"].threads == 2
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError):
        measure_latency({"x": lambda: 1 / 0}, threads=2)
    assert torch.get_num_threads() == before


def test_runs_without_gradients() -> None:
    grad_enabled: list[bool] = []
    measure_latency({"x": lambda: grad_enabled.append(torch.is_grad_enabled())}, repeats=1, shortest=1e-6)
    assert set(grad_enabled) == {False}


def test_no_repeats_is_an_error() -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1, not 0"):
        measure_latency({}, repeats=0)

"""Latency, measured: median and spread over repeats, with the candidates interleaved and the threads stated."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Latency:
    """Time of one call.

    Attributes:
        median: seconds.
        spread: seconds between the first and the third quartile.
        repeats: measurements taken, each the mean of several calls where one is too short for the clock.
        threads: torch's intra-op threads while measuring.
    """

    median: float
    spread: float
    repeats: int
    threads: int


def measure_latency(
    calls: Mapping[_Key, Callable[[], Any]], *, repeats: int = 30, threads: int = 1, shortest: float = 1e-3
) -> dict[_Key, Latency]:
    """Time several calls against each other.

    Every repeat measures each call once, in turn, so that what else the machine does meanwhile touches all alike.

    Args:
        calls: what to time, without arguments; they run without gradients.
        repeats: measurements per call, after a warm-up.
        threads: torch's intra-op threads while measuring; put back afterwards.
        shortest: seconds that one measurement takes at least; a quicker call is repeated inside it.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats}")
    with _threads(threads), torch.no_grad():
        inner = {key: _calls_per_measurement(call, shortest) for key, call in calls.items()}
        times: dict[_Key, list[float]] = {key: [] for key in calls}
        for _ in range(repeats):
            for key, call in calls.items():
                times[key].append(_seconds(call, inner[key]) / inner[key])
    return {key: _summary(values, threads) for key, values in times.items()}


def _seconds(call: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - start


def _calls_per_measurement(call: Callable[[], Any], shortest: float) -> int:
    _seconds(call, 3)
    once = max(_seconds(call, 3) / 3, 1e-9)
    return max(1, int(np.ceil(shortest / once)))


def _summary(values: list[float], threads: int) -> Latency:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Latency(float(median), float(high - low), len(values), threads)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

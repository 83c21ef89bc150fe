"""Seconds and peak memory of a piece of work in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROCESS = Path("/proc/self")


@dataclass
class Measured:
    """Filled in when the work has ended.

    Attributes:
        seconds: that passed; some kernels count a process's own time in steps that are longer than a case.
        peak: largest resident memory, MiB.
    """

    seconds: float = 0.0
    peak: float = 0.0


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure the body; the peak is that of the body alone (Linux)."""
    result = Measured()
    (_PROCESS / "clear_refs").write_text("5")  # sets the peak back to what is resident now
    started = time.perf_counter()
    try:
        yield result
    finally:
        result.seconds = time.perf_counter() - started
        result.peak = _status("VmHWM")


def _status(key: str) -> float:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}")

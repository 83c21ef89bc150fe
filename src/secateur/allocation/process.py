"""Which process made a claim, and whether it has ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


@cache
def _machine() -> str | None:
    """The boot and the process namespace, in which a process id means one process; None where the system can't say."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the boot; None if there is none or it is a zombie."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def this_process() -> dict[str, Any]:
    """What tells this process from all others, as JSON."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "machine": _machine(), "started": _started(pid)}


def has_ended(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine has ended; False where that can't be known."""
    here = _machine()
    return here is not None and process.get("machine") == here and _started(process["pid"]) != process["started"]

"""A family's cases for one library, each in a child of a process that has imported both and run nothing.

Reads nothing but its arguments: ``python -m benchmarks.zoo.worker LIBRARY FOLDER NAME...``. Every child writes what it
knows, as it learns it, to ``FOLDER/NAME.json``; this process enforces the limits and adds how a child ended.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .catalogue import entries
from .entry import Entry

SECONDS = 120
"""A case that takes more of a processor's time is ended; one that waits for neighbours has ten times as long."""

MEMORY = 10 * 2**30
"""Bytes of address space that a case may use."""

UNFINISHED = f"not finished after {SECONDS} s"
"""How a case that took too long ended."""

_POLL = 0.02


def file_of(folder: Path, name: str) -> Path:
    """Where the case of the model ``name`` is kept."""
    return folder / f"{name.replace('/', '__')}.json"


def write(file: Path, record: dict[str, Any]) -> None:
    """Write ``record`` whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1))
    part.replace(file)


def main(library_name: str, folder: Path, names: list[str]) -> None:
    """Run the cases one after the other; says a line when each has ended."""
    chosen = [entry for entry in entries() if entry.name in names]
    from .case import Case, forward_memory
    from .libraries import library_called

    library = library_called(library_name)
    _warm(chosen)
    for entry in chosen:
        file = file_of(folder, entry.name)
        forward = file.with_suffix(".forward")
        _in_child(lambda entry=entry, forward=forward: write(forward, forward_memory(entry)))  # type: ignore[misc]
        ending = _in_child(
            lambda entry=entry, file=file: write(file, Case(entry, library, lambda r: write(file, r)).run())  # type: ignore[misc]
        )
        _conclude(file, forward, entry, library_name, library.version(), ending)
        print(entry.name, flush=True)


def _warm(chosen: list[Entry]) -> None:
    """Import what the models' libraries import when one is first built, so that no case pays for it."""
    from .catalogue import preload

    for family in {entry.family for entry in chosen}:
        preload(family)
    gc.collect()
    gc.freeze()  # children leave what is here alone, and so share it


def _in_child(work: Callable[[], None]) -> str:
    """Do ``work`` in a forked child under the limits; how it ended, or nothing if it went well."""
    pid = os.fork()
    if pid == 0:
        _limit_and_do(work)
    started = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - started > 10 * SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return UNFINISHED
        time.sleep(_POLL)
    if not os.WIFSIGNALED(status):
        return "" if os.WEXITSTATUS(status) == 0 else "failed"
    ended_by = os.WTERMSIG(status)
    return UNFINISHED if ended_by == signal.SIGXCPU else f"ended by {signal.Signals(ended_by).name}"


def _limit_and_do(work: Callable[[], None]) -> None:
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        work()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _conclude(file: Path, forward: Path, entry: Entry, library: str, version: str, ending: str) -> None:
    """Add to the record what the child couldn't know: how it ended, and the plain forward pass's memory."""
    record: dict[str, Any] = {"checks": {}, "doing": "starting"}
    if file.exists():
        record = json.loads(file.read_text())
    record |= {"model": entry.name, "family": entry.family, "library": library, "version": version}
    if ending:
        record["checks"]["runs"] = {"passed": False, "text": f"{ending}, while {record['doing']}"}
        record["fully_ok"] = False
    if forward.exists():
        record["forward"] = json.loads(forward.read_text())
        forward.unlink()
    write(file, record)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])

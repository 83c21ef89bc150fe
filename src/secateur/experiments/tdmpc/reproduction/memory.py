"""Memory that work needs: the process's peak, as Linux counts it, and the peak of living tensors."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class PeakMemory:
    """What a piece of work needed.

    Attributes:
        extra: bytes at its peak beyond what the process held at its beginning; None where the system doesn't say.
    """

    extra: int | None = None


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the process's peak memory inside; the answer is there at the end.

    Only Linux says it. Memory that was freed before is first given back, as far as the C library can; what it keeps is
    used again inside and isn't counted, so that work of a few megabytes may seem to need none.
    """
    peak = PeakMemory()
    before = _resident("VmRSS") if _reset() else None
    try:
        yield peak
    finally:
        if before is not None:
            peak.extra = max(0, _resident("VmHWM") - before)


def _reset() -> bool:
    """Let the peak begin anew; False where there is no such thing."""
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if give_back is not None:
        give_back(0)
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
    assert found is not None
    return 1024 * int(found.group(1))


def peak_tensors(call: Callable[[], Any]) -> int:
    """Bytes of the tensors that live at once while a function runs, at most, beyond those that it is given.

    Counts what each operator returns, as long as anything holds it; not what an operator needs inside itself.
    """
    living = _Living()
    with torch.no_grad(), living:
        call()
    return living.peak


class _Living(TorchDispatchMode):
    """Counts the storages that operators return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._known.setdefault(tensor.untyped_storage()._cdata, 0)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._add(tensor)
        self.peak = max(self.peak, self._now)
        return result

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self._now += storage.nbytes()
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._known.pop(key)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))

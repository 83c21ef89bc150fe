"""Python's cyclic garbage collector, paused where only long-lived objects are made.

Each of its full passes visits every object of the process, torch's hundreds of thousands included. Building a graph or
copying a model makes many objects and no garbage, so that the passes would cost more than the work, and more than in
proportion to its size.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection while the context lasts, if there was any before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

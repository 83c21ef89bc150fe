"""Python's cyclic garbage collector, paused where only long-lived objects are made, and rare where most are.

Each of its full passes visits every object of the process, torch's hundreds of thousands included. Building a graph or
copying a model makes many objects and no garbage, so that the passes would cost more than the work, and more than in
proportion to its size.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = 50_000
"""New objects before the next pass over these; Python's own number is 700."""


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


@contextmanager
def collector_relaxed() -> Iterator[None]:
    """Garbage is collected rarely while the context lasts, if at all before: user code may make some, but little.

    What a trace learns stays, and so would pass after pass go through all of it, and through all that there was.
    """
    thresholds = gc.get_threshold()
    if thresholds[0]:
        gc.set_threshold(max(thresholds[0], _RARELY), *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)

"""Global random states: put back, so that a run by Secateur leaves the user's random stream as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def same_randomness() -> Iterator[Callable[[], None]]:
    """Gives a function that puts Python's, NumPy's and torch's random states back to what they are now.

    It is called at the end, too.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restart() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    try:
        yield restart
    finally:
        restart()

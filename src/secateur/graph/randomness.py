"""Global random states: put back, so that a run by Secateur leaves the user's random stream as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class RandomState:
    """The state of the global random generators of torch (all devices), NumPy and Python."""

    torch_cpu: torch.Tensor
    torch_cuda: tuple[torch.Tensor, ...]
    numpy: Any
    python: Any

    @classmethod
    def capture(cls) -> RandomState:
        """The state now."""
        cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()
        return cls(torch.get_rng_state(), cuda, np.random.get_state(), random.getstate())

    def restore(self) -> None:
        """Set the generators back to this state."""
        torch.set_rng_state(self.torch_cpu)
        torch.cuda.set_rng_state_all(self.torch_cuda)
        np.random.set_state(self.numpy)
        random.setstate(self.python)


@contextmanager
def same_randomness() -> Iterator[Callable[[], None]]:
    """Gives a function that puts the global random states back to what they are now; it is called at the end, too."""
    state = RandomState.capture()
    try:
        yield state.restore
    finally:
        state.restore()

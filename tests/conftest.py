"""What every test shares: one thread, a fixed seed, and no changed global state left behind."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("secateur", deadline=None, derandomize=True)
settings.load_profile("secateur")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    """Seed every generator before a test, and put the default dtype back after it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)

"""Fourier transforms."""

from __future__ import annotations

import torch

from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import BOTH, X, normal

COMPLEX = torch.complex(normal(*X), normal(*X, seed=7))

CASES = [
    Case("_fft_r2c", lambda x: torch.fft.rfft(x, dim=1), [(3, 4, 2)], pinned={(0, 1): ALL}),
    Case("_fft_r2c", lambda x: torch.fft.rfft(x.view(len(x), 2, -1), dim=1), [(2, 6)], "rows"),
    Case("_fft_c2c", lambda x: torch.fft.ifft(x, dim=0), [COMPLEX], pinned={(0, 0): ALL}),
    Case("_fft_c2c", torch.fft.fft2, [COMPLEX], "both dimensions", pinned=BOTH),
    Case("_fft_c2r", lambda x: torch.fft.irfft(x, n=6, dim=0), [COMPLEX], pinned={(0, 0): ALL}),
]

"""Fourier transforms: along dimensions without labels (time, space) every channel is transformed by itself."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.labels import Factors
from secateur.graph.rules.base import OpCall, rule


@rule("_fft_c2c", "_fft_r2c", "_fft_c2r")
def fourier(call: OpCall) -> Sequence[Factors]:
    """Every frequency depends on every index of the transformed dimensions, which must stay."""
    rank = call["self"].dim()
    dims = [d % rank for d in call["dim"]]
    return [call.fix_dims(call.factors("self"), dims, "a Fourier transform over its channels")]

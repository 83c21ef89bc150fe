"""All models of the zoo."""

from __future__ import annotations

from tests.models import habits, maps, sequences, vectors

CASES = [*vectors.CASES, *maps.CASES, *sequences.CASES, *habits.CASES]

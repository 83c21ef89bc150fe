"""All models of the zoo."""

from __future__ import annotations

from tests.models import habits, maps, operators, sequences, sharing, sizes, vectors

CASES = [case for family in (vectors, sharing, maps, sequences, sizes, habits, operators) for case in family.CASES]

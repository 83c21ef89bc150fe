"""All models of the zoo."""

from __future__ import annotations

from tests.models import (
    attention,
    attributed,
    empty,
    ensembles,
    habits,
    layers,
    maps,
    mixtures,
    operators,
    recurrent,
    sequences,
    sharing,
    sizes,
    vectors,
)

_FAMILIES = (
    vectors, sharing, layers, maps, sequences, attention, recurrent, mixtures, ensembles, sizes, attributed, habits,
    operators, empty,
)  # fmt: skip

CASES = [case for family in _FAMILIES for case in family.CASES]

"""All models of the zoo."""

from __future__ import annotations

from tests.models import (
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

_FAMILIES = (vectors, sharing, layers, maps, sequences, recurrent, mixtures, ensembles, sizes, habits, operators)

CASES = [case for family in _FAMILIES for case in family.CASES]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secateur.allocation import Sparsity
from secateur.errors import TargetError


def test_what_is_not_said_has_a_default() -> None:
    target = Sparsity(0.5)
    assert (target.tolerance, target.of, target.minimum_width, target.round_to) == (0.01, "params", 1, 1)
    assert Sparsity(np.float32(0.5)).rho == 0.5  # type: ignore[arg-type]
    assert Sparsity(components={"encoder": 0.3}).rho is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give a target"),
        ({"rho": 0}, r"the target sparsity must lie in \(0, 1\), the fraction to remove; it is 0"),
        ({"rho": 1.0}, r"must lie in \(0, 1\)"),
        ({"rho": -0.2}, r"must lie in \(0, 1\)"),
        ({"rho": 50}, r"must lie in \(0, 1\), the fraction to remove; it is 50"),
        ({"rho": float("nan")}, r"must lie in \(0, 1\)"),
        ({"rho": True}, r"must lie in \(0, 1\)"),
        ({"rho": "half"}, r"must lie in \(0, 1\), the fraction to remove; it is 'half'"),
        ({"components": {"encoder": 1.5}}, r"the target sparsity of component 'encoder' must lie in \(0, 1\)"),
        ({"components": ["encoder"]}, "components must map component names to sparsities"),
        ({"rho": 0.5, "tolerance": -0.1}, r"the tolerance must lie in \[0, 1\); it is -0.1"),
        ({"rho": 0.5, "tolerance": float("inf")}, "the tolerance must lie in"),
        ({"rho": 0.5, "tolerance": None}, "the tolerance must lie in"),
        ({"rho": 0.5, "of": "latency"}, "sparsity of 'latency' is not offered; choose one of 'params', 'macs'"),
        ({"rho": 0.5, "minimum_width": 0}, "minimum_width must be a whole number of channels, at least 1; it is 0"),
        ({"rho": 0.5, "round_to": 2.5}, "round_to must be a whole number of channels, at least 1; it is 2.5"),
        ({"rho": 0.5, "round_to": True}, "round_to must be a whole number"),
    ],
)
def test_malformed_targets(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Sparsity(**arguments)

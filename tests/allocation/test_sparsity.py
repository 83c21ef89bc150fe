from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from secateur.allocation import Smallest, Sparsity
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
        ({"components": ["encoder"]}, "components must map names to fractions"),
        ({"rho": 0.5, "tolerance": -0.1}, r"the tolerance must lie in \[0, 1\); it is -0.1"),
        ({"rho": 0.5, "tolerance": float("inf")}, "the tolerance must lie in"),
        ({"rho": 0.5, "tolerance": None}, "the tolerance must lie in"),
        ({"rho": 0.5, "of": "flops"}, "sparsity of 'flops' is not offered; choose one of 'params', 'macs', 'latency'"),
        ({"components": {"encoder": 0.5}, "of": "latency"}, "a target of latency is one of the whole model"),
        (
            {"rho": 0.5, "caps": {"encoder": 1.0}},
            r"cap of 'encoder' must lie in \[0, 1\), the most to remove; it is 1.0",
        ),
        ({"rho": 0.5, "caps": 0.5}, "caps must map names to fractions, not be 0.5"),
        (
            {"components": {"encoder": 0.5}, "caps": {"encoder": 0.4}},
            "can't lose 0.5 of its cost: its cap is 0.4",
        ),
        ({"interfaces": {"latent": 1.0}}, r"the coefficient of interface 'latent' must lie in \[0, 1\); it is 1.0"),
        (
            {"rho": 0.5, "protected": "encoder"},
            "protected must be a list of names .* 'encoder'",
        ),
        ({"rho": 0.5, "protected": None}, "protected must be a list of names of components and groups; it is None"),
        ({"rho": 0.5, "protected": 3}, "protected must be a list of names"),
        ({"rho": 0.5, "protected": (n for n in ["encoder"])}, "protected must be a list of names .* <generator"),
        ({"rho": 10**400}, r"must lie in \(0, 1\)"),
        ({"rho": 0.5, "minimum_width": 0}, "minimum_width must be a whole number of channels, at least 1; it is 0"),
        ({"rho": 0.5, "round_to": 2.5}, "round_to must be a whole number of channels, at least 1; it is 2.5"),
        ({"rho": 0.5, "round_to": True}, "round_to must be a whole number"),
    ],
)
def test_malformed_targets(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Sparsity(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 0}, r"the resolution must lie in \(0, 1\)"),
        ({"largest": 1}, r"the largest sparsity must lie in \(0, 1\)"),
        ({"of": "seconds"}, "sparsity of 'seconds' is not offered"),
    ],
)
def test_malformed_questions_for_the_smallest(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        Smallest(**arguments)

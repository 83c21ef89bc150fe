from __future__ import annotations

import pytest

from secateur.allocation import Smallest, Sparsity
from secateur.cli.targets import components, fractions, target


def test_a_decimal_point_makes_a_target_and_a_comma_a_module() -> None:
    found = components(["a=0.5", "b=encoder,decoder", "c=0.5,", "d=0", "e=.25", "f=1e-1", "a=encoder"])
    assert found.targets == {"a": 0.5, "e": 0.25, "f": 0.1}
    assert found.modules == {"b": ["encoder", "decoder"], "c": ["0.5"], "d": ["0"], "a": ["encoder"]}


def test_no_definitions_leave_the_components_to_the_library() -> None:
    assert components([]).modules is None
    assert components(["a=0.5"]).modules is None


def test_fractions_by_name() -> None:
    assert fractions(["encoder=0.5", "decoder.0#2=1e-1"], "--cap") == {"encoder": 0.5, "decoder.0#2": 0.1}


@pytest.mark.parametrize(
    ("rho", "parts", "expected"),
    [
        (None, {}, Sparsity(0.5)),
        ("0.7", {}, Sparsity(0.7)),
        (None, {"encoder": 0.5}, Sparsity(components={"encoder": 0.5})),
        ("0.7", {"encoder": 0.5}, Sparsity(0.7, components={"encoder": 0.5})),
        ("smallest", {}, Smallest()),
    ],
)
def test_what_is_asked(rho: str | None, parts: dict[str, float], expected: Sparsity | Smallest) -> None:
    assert target(rho, None, parts, {}) == expected


def test_the_tolerance_of_the_smallest_is_its_resolution() -> None:
    assert target("smallest", 0.02, {}, {}, of="macs") == Smallest(resolution=0.02, of="macs")
    assert target("0.5", 0.02, {}, {}, of="macs") == Sparsity(0.5, tolerance=0.02, of="macs")

"""Fingerprints of settings that stand in the code: what other settings made is never taken for what today's make."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from secateur.allocation.identity import digest, parts


def fingerprint(*settings: Any) -> str:
    """A short hash of values, containers, and dataclasses of Secateur with all their fields; of functions, the name."""
    return digest(parts(settings))


def with_fingerprint(key: Mapping[str, Any], found: str, first: Collection[str]) -> dict[str, Any]:
    """A key of a run with the fingerprint of what made it.

    Args:
        key: what was asked.
        found: the fingerprint.
        first: fingerprints that are left out: of the settings that runs were made with when keys held none yet.
    """
    return dict(key) if found in first else {**key, "fingerprint": found}

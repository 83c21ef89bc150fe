"""What ``--target``, ``--component`` and their like say, as a target of the library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from secateur.allocation import Smallest, Sparsity, Target

SMALLEST = "smallest"
DEFAULT = 0.5

_FRACTION = re.compile(r"[-+]?(\d*\.\d+|\d+\.)(e[-+]?\d+)?|[-+]?\d+e[-+]?\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Components:
    """What the ``--component`` options say.

    Attributes:
        modules: component name to its modules, or None if no component is defined.
        targets: component name to the fraction of its own cost to remove.
    """

    modules: Mapping[str, list[str]] | None
    targets: Mapping[str, float]


def components(texts: Sequence[str]) -> Components:
    """Tell definitions, ``name=module,module``, from targets, ``name=0.5``.

    A number with a decimal point is a target. A module of such a path (the child 5 of a child 0) is named with a comma
    behind it: ``name=0.5,``.
    """
    modules: dict[str, list[str]] = {}
    targets: dict[str, float] = {}
    for text in texts:
        name, value = _pair(text, "--component", "name=module,module or name=0.5")
        if _FRACTION.fullmatch(value):
            targets[name] = float(value)
        else:
            modules[name] = [path for path in value.split(",") if path]
    return Components(modules or None, targets)


def fractions(texts: Sequence[str], option: str) -> dict[str, float]:
    """Names to numbers, of the form ``name=0.5``."""
    found = {}
    for text in texts:
        name, value = _pair(text, option, "name=0.5")
        found[name] = _number(value, f"{option} {text!r}")
    return found


def target(
    rho: str | None, tolerance: float | None, parts: Mapping[str, float], interfaces: Mapping[str, float], **limits: Any
) -> Target:
    """The target that the options ask for.

    Args:
        rho: a fraction, "smallest", or None: half of the whole model, or the targets of parts alone if there are any.
        tolerance: how far from it, or, for the smallest model, how finely to search; the library's own if None.
        parts: component name to its own target.
        interfaces: group name to its own coefficient.
        limits: attributes of ``Limits``.

    Raises:
        TargetError: a value outside its range.
    """
    if rho == SMALLEST:
        if parts or interfaces:
            raise typer.BadParameter("--target smallest can't be joined with targets of components or interfaces")
        return Smallest(**limits) if tolerance is None else Smallest(resolution=tolerance, **limits)
    if tolerance is not None:
        limits["tolerance"] = tolerance
    whole = DEFAULT if rho is None and not parts and not interfaces else rho
    number = None if whole is None else _number(str(whole), f"--target {whole!r}")
    return Sparsity(number, components=parts, interfaces=interfaces, **limits)


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, _, value = text.rpartition("=")
    if not name or not value:
        raise typer.BadParameter(f"{option} {text!r} is not of the form {form}")
    return name, value


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{what}: {text!r} is not a number") from error

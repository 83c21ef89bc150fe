"""What ``--maximize``, ``--minimize`` and ``--constraint`` say, as objective and constraints of the library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import typer

from secateur.allocation import Constraint, Minimize, Objective
from secateur.allocation.objective import Metric
from secateur.cli.names import function
from secateur.errors import ConstraintError

_CONSTRAINT = re.compile(r"\s*([^<>=]+?)\s*(>=|<=)\s*(\S+)\s*")


def objective(maximize: str | None, minimize: str | None, home: str) -> Objective | None:
    """The metric to keep high or low, if one is named.

    Args:
        maximize: name of a metric.
        minimize: name of a metric.
        home: the factory, in whose module a bare name is looked up.
    """
    if maximize is not None and minimize is not None:
        raise typer.BadParameter("--maximize and --minimize are both given; one metric can be the objective")
    if maximize is not None:
        return function(maximize, home)
    return None if minimize is None else Minimize(function(minimize, home))


def constraints(texts: Sequence[str], home: str) -> tuple[Constraint, ...]:
    """Bounds on metrics, each of the form ``name>=number`` or ``name<=number``; those on one metric become one."""
    bounds: dict[str, dict[str, float]] = {}
    for text in texts:
        name, side, bound = _parsed(text)
        if side in bounds.setdefault(name, {}):
            raise typer.BadParameter(f"--constraint {text!r} bounds {name} a second time")
        bounds[name][side] = bound
    return tuple(_constraint(function(name, home), name, sides) for name, sides in bounds.items())


def _constraint(metric: Metric, name: str, sides: Mapping[str, float]) -> Constraint:
    try:
        return Constraint(metric, at_least=sides.get("at_least"), at_most=sides.get("at_most"), name=name)
    except ConstraintError as error:  # of its form, and not one that a candidate misses
        raise typer.BadParameter(f"--constraint: {error}") from error


def _parsed(text: str) -> tuple[str, str, float]:
    found = _CONSTRAINT.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"--constraint {text!r} is not of the form 'metric>=number' or 'metric<=number'")
    name, relation, bound = found.groups()
    try:
        return name, "at_least" if relation == ">=" else "at_most", float(bound)
    except ValueError as error:
        raise typer.BadParameter(f"--constraint {text!r}: {bound!r} is not a number") from error

"""Sparsities that a method can't reach: results like others, kept and shown, so that all else goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from secateur.errors import InfeasibleError

NOT_REACHABLE = "not reachable"
"""What stands in a table in place of a number."""

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, kw_only=True)
class Unreachable:
    """A sparsity that a method can't reach.

    Attributes:
        method: its name.
        target: the sparsity asked for; None for the smallest model.
        refit: whether it was to be refitted.
        reason: what came nearest, and what to do about it.
        seed: of the dense model; None where there is only one.
    """

    method: str
    target: float | None
    refit: bool
    reason: str
    seed: int | None = None


def attempted(
    make: Callable[[], RecordT], *, method: str, target: float | None, refit: bool, seed: int | None = None
) -> RecordT | Unreachable:
    """What ``make`` returns; or why it can't reach the sparsity."""
    try:
        return make()
    except InfeasibleError as error:
        return Unreachable(method=method, target=target, refit=refit, reason=str(error), seed=seed)


def or_unreachable(
    read: Callable[[Mapping[str, Any]], RecordT],
) -> Callable[[Mapping[str, Any]], RecordT | Unreachable]:
    """Reads what JSON has kept of either kind; ``read`` is for the one that was reached."""
    return lambda data: Unreachable(**data) if "reason" in data else read(data)


def reasons(missed: Iterable[tuple[str, Unreachable]]) -> str:
    """Sentences for the note of a table, each once: where a method doesn't get, and why."""
    told = dict.fromkeys(f"{where}: {each.reason}" for where, each in missed)
    return "".join(f" Not reachable: {'; '.join(told)}." if told else "")

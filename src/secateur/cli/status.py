"""Exit status, and the one line on stderr that goes with it."""

from __future__ import annotations

import sys

from secateur.errors import ConstraintError, InfeasibleError, SecateurError, VerificationError

BOUND_NOT_MET = 1
BAD_INPUT = 2


class BoundNotMetError(SecateurError):
    """The result is there, but outside a bound that the user set."""


_BOUNDS = (BoundNotMetError, ConstraintError, InfeasibleError, VerificationError)


def status_of(error: SecateurError) -> int:
    """1 for a bound that was not met, 2 for anything else that the user can mend."""
    return BOUND_NOT_MET if isinstance(error, _BOUNDS) else BAD_INPUT


def fail(message: str, status: int) -> int:
    """Say what is wrong, in one line on stderr; returns the status."""
    print(f"secateur: error: {one_line(message)}", file=sys.stderr)
    return status


def one_line(message: str) -> str:
    """The message without its line breaks."""
    return " ".join(message.split())

"""The errors Secateur raises. Every message says what went wrong, where, and what to do about it."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path
from types import FrameType

# Frames that are nobody's call: the package's own, and those of its context managers.
_INSIDE = (f"{Path(__file__).parent}{os.sep}", contextlib.__file__)


class SecateurError(Exception):
    """Base of every error a user's input can cause; anything else that escapes is a bug in Secateur."""


class TraceError(SecateurError):
    """The model or its entry point can't be traced: no parameters, a failing run, unknown names."""


class TargetError(SecateurError):
    """A sparsity target is malformed or can't be met; the message names the nearest that can."""


class InfeasibleError(TargetError):
    """A well-formed target can't be met by whole channels; the message names the nearest that can."""


class ObjectiveError(SecateurError):
    """An objective or constraint gives no finite number, fails on every candidate, or is missing where needed."""


class ConstraintError(SecateurError):
    """A constraint is malformed, or no candidate satisfies all of them; the message names the nearest miss."""


class SearchError(SecateurError):
    """The settings of a search are malformed, or one of its worker processes died."""


class ScoreError(SecateurError):
    """Importance scores are missing, have the wrong size, or are not finite."""


class PlanError(SecateurError):
    """A plan doesn't fit the graph or model it is used with, or its JSON is malformed."""


class VerificationError(SecateurError):
    """The smaller model is not the original with channels removed; the user's model is untouched."""


class CalibrationError(SecateurError):
    """Calibration data never reaches a consumer, or differs between the dense and the smaller model."""


class ControlError(SecateurError):
    """A control task or an agent's configuration is unknown or malformed, or an episode can't go on to its end."""


class StorageError(SecateurError):
    """A file is missing, truncated, or was not written by Secateur."""


class SecateurWarning(UserWarning):
    """Something the user should know that doesn't stop the work, such as few calibration rows."""


def warn(message: str) -> None:
    """Give a :class:`SecateurWarning` that points at the line which called Secateur, however deep inside this is."""
    frame: FrameType = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_INSIDE) and frame.f_back is not None:
        frame = frame.f_back
    # What warnings.warn does with a stacklevel; its skip_file_prefixes exists from Python 3.12 on only.
    warnings.warn_explicit(
        message,
        SecateurWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )

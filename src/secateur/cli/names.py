"""What the user names as ``package.module:name``: models, functions and data."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from operator import attrgetter
from typing import Any

import torch
import typer
from torch import nn

from secateur.errors import TraceError


def named(name: str) -> Any:
    """The object that ``package.module:name`` stands for.

    Raises:
        TraceError: there is none.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise TraceError(f"{name!r} is not of the form package.module:name")
    if os.getcwd() not in sys.path:
        # The installed script starts without the current folder, `python -m` with it. Worker processes get this path.
        sys.path.insert(0, os.getcwd())
    with users_code(f"{module} can't be imported"):
        imported = importlib.import_module(module)
    try:
        return attrgetter(attribute)(imported)
    except AttributeError as error:
        raise TraceError(f"{module} has no {attribute}") from error


def model_and_inputs(factory: str, shapes: Sequence[str], run: str | None) -> tuple[nn.Module, Any, Any]:
    """The model, its example inputs and its entry point; one of the last two is None.

    Raises:
        TraceError: a name stands for nothing, the factory fails, or there is no one way to exercise the model.
    """
    made = _made(factory)
    model, exercise = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise TraceError(f"{factory} must return a torch.nn.Module, or one and its inputs; it made a {_type(model)}")
    given = [what for what in (exercise, shapes or None, run) if what is not None]
    if len(given) != 1:
        raise TraceError(
            f"{len(given)} ways to exercise the model are given and one is needed: "
            f"--input-shape, --run, or inputs that {factory} returns with the model"
        )
    if run is not None:
        return model, None, named(run)
    if shapes:
        return model, tuple(_input(shape) for shape in shapes), None
    return (model, None, exercise) if callable(exercise) else (model, exercise, None)


def _made(name: str) -> Any:
    factory = named(name)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise TraceError(f"{name} is a {_type(factory)}, neither a model nor a function that makes one")
    with users_code(f"{name} failed"):
        return factory()


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """Whatever the user's own code raises inside becomes one line that begins with ``what``."""
    try:
        yield
    except Exception as error:  # whatever the user's own code raises is the user's to read, in one line
        raise TraceError(f"{what}: {_type(error)}: {error}") from error


def _input(text: str) -> torch.Tensor:
    shape, _, kind = text.partition(":")
    try:
        lengths = [int(length) for length in shape.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--input-shape {text!r} is not a list of lengths such as 1,784") from error
    if kind not in ("", "int") or min(lengths) < 1:
        raise typer.BadParameter(f"--input-shape {text!r}: lengths are at least 1, and only :int may follow them")
    return torch.zeros(lengths, dtype=torch.int64) if kind else torch.randn(lengths)


def function(name: str, home: str) -> Callable[..., Any]:
    """The function that ``module:name`` stands for, or ``name`` in the module of the factory ``home``.

    Raises:
        TraceError: there is none, or it can't be called.
    """
    found: object = named(_full(name, home))
    if not callable(found):
        raise TraceError(f"{name} is a {_type(found)}, not a function")
    return found


def reported(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The same function, of which whatever it raises becomes one line."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        with users_code(f"{name} failed"):
            return function(*arguments)

    return call


def data(name: str, home: str) -> Any:
    """What ``module:name``, or ``name`` in the module of the factory ``home``, stands for, as data.

    An iterable, or a function that takes the model and exercises it; what a function without arguments makes.

    Raises:
        TraceError: there is none, or making it fails.
    """
    found = named(_full(name, home))
    if not callable(found) or not _takes_nothing(found):
        return found
    with users_code(f"{name} failed"):
        return found()


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        return not signature(function).parameters
    except ValueError:  # a built-in function that doesn't say what it takes
        return False


def _full(name: str, home: str) -> str:
    return name if ":" in name else f"{home.partition(':')[0]}:{name}"


def _type(value: object) -> str:
    return type(value).__name__

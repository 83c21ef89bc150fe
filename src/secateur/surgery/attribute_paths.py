"""Paths to integers that modules keep: ``module.attribute``, ``module.sizes[0]``, ``module.config.text['width']``."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from torch import nn

from secateur.errors import PlanError
from secateur.graph.settings_views import is_of_settings

_STEP = re.compile(r"\.?(?P<name>[^.\[\]]+)|\[(?P<index>-?\d+)\]|\['(?P<item>[^']*)'\]")

Step = str | int | tuple[str]
"""A name of an attribute, a position in a list or a number that is a key of a mapping, or (a key of a mapping,)."""

Copies = dict[Any, tuple[Any, Any]]
"""What was copied, and its changed copy, by object and change: what was shared and changes alike stays shared."""


def parse(modules: Mapping[str, nn.Module], path: str) -> tuple[nn.Module, list[Step]]:
    """The innermost module on the way to an attribute, and the steps from there.

    Raises:
        PlanError: it is no path to an attribute of a module.
    """
    holder, _, name = path.rpartition(".")
    if name and "[" not in path and "]" not in path and holder in modules and path not in modules:
        return modules[holder], [name]  # as nearly all are
    steps: list[Step] = []
    end = 0
    while end < len(path):
        match = _STEP.match(path, end)
        if match is None or (match.start() == 0) != (match[0] == match["name"]):
            raise PlanError(f"the plan sets {path!r}; expected a path such as 'module.attribute[0]'")
        steps.append(int(match["index"]) if match["index"] else match["name"] or (match["item"],))
        end = match.end()
    names = [step for step in steps if isinstance(step, str)]
    depth = next(d for d in range(len(names), -1, -1) if ".".join(names[:d]) in modules)
    if depth == len(steps) or not steps:
        raise PlanError(f"the plan sets {path!r}, which is no attribute of a module")
    return modules[".".join(names[:depth])], steps[depth:]


def has(holder: Any, step: Step) -> bool:
    """Whether a step leads anywhere."""
    if isinstance(step, str):
        return hasattr(holder, step)
    if isinstance(holder, dict):
        return _place(step) in holder
    return isinstance(step, int) and isinstance(holder, (tuple, list)) and 0 <= step < len(holder)


def get(holder: Any, step: Step) -> Any:
    """What is one step away."""
    return getattr(holder, step) if isinstance(step, str) else holder[_place(step)]


def put(module: nn.Module, steps: Sequence[Step], value: int, copies: Copies) -> None:
    """Set an integer of a module; containers and settings on the way are copied, not changed."""
    name, *rest = steps
    made = _with(getattr(module, str(name)), rest, value, copies)
    if name in vars(module):
        # Not through the class, which may check or forbid what it is given.
        vars(module)[str(name)] = made
    else:
        setattr(module, str(name), made)


def _place(step: Step) -> Any:
    return step[0] if isinstance(step, tuple) else step


def _with(holder: Any, steps: Sequence[Step], value: int, copies: Copies) -> Any:
    """A copy of a container or of settings with another value at the end of the steps; the value if there are none."""
    if not steps:
        return value
    key = id(holder), tuple(steps), value
    if key not in copies:
        first, *rest = steps
        # The holder is kept beside its copy, so that nothing else can take its id.
        copies[key] = holder, _copy_with(holder, first, _with(get(holder, first), rest, value, copies))
    return copies[key][1]


def _copy_with(holder: Any, step: Step, inner: Any) -> Any:
    if isinstance(holder, nn.Module):
        setattr(holder, str(step), inner)  # a module kept in a plain list
        return holder
    if isinstance(holder, tuple):
        items = [inner if place == step else item for place, item in enumerate(holder)]
        return holder._make(items) if hasattr(holder, "_make") else type(holder)(items)
    made = _copied(holder)
    if isinstance(step, str):
        # Not through the class: settings are often frozen, or check what they are given.
        vars(made)[step] = inner
    else:
        made[_place(step)] = inner
    return made


def _copied(holder: Any) -> Any:
    cls = type(holder)
    if cls is SimpleNamespace:
        return SimpleNamespace(**vars(holder))
    if not is_of_settings(cls):
        return copy.copy(holder)
    # Not by the class's own way of copying, which may give the same object again.
    made = object.__new__(cls)
    vars(made).update(vars(holder))
    return made

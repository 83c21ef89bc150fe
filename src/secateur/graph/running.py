"""Where the run is: the modules whose forwards are running, and the line of the user's code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from secateur.graph.attributes import paths_of_modules
from secateur.graph.components import ComponentMap
from secateur.graph.entry_point import call_forward
from secateur.graph.own_sizes import keeps_its_sizes

_OWN_FOLDER = str(Path(__file__).parent)
_TORCH_FOLDER = str(Path(torch.__file__).parent)
_FORWARD = call_forward.__code__


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class _Running:
    """A module whose forward is running; of one that is no part of the model, path and component of those around it.

    Attributes:
        module: the module; None outside all.
        path: dotted path of the innermost module that is part of the model.
        component: index of the component whose code it is; None for that of the model itself, which is glue.
        keeps_its_sizes: whether surgery keeps its integers true.
    """

    module: nn.Module | None
    path: str
    component: int | None
    keeps_its_sizes: bool


class RunningModules:
    """Follows which module's forward is running, so that where an operator runs costs no search.

    Args:
        model: the model that runs.
        components: which component owns which path.
    """

    def __init__(self, model: nn.Module, components: ComponentMap) -> None:
        self._components = components
        self._paths = paths_of_modules(model)
        self._stack = [_Running(None, "", None, False)]
        self._places: dict[tuple[str, str, int], str] = {}

    @property
    def modules(self) -> Sequence[nn.Module | None]:
        """The modules whose forwards are running, the innermost last."""
        return [running.module for running in self._stack[1:]]

    @property
    def innermost(self) -> _Running:
        """The innermost module whose forward is running, and what is known of it."""
        return self._stack[-1]

    def where(self) -> str:
        """Module path and source line of the user's code that is running, as far as there are any."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _users_file(frame.f_code.co_filename) is None:
            # Below the call of the model's forward there is only what called Secateur.
            frame = frame.f_back if frame.f_code is not _FORWARD else None
        path = self._stack[-1].path
        if frame is None:
            return path or "the entry point"
        key = path, frame.f_code.co_filename, frame.f_lineno
        place = self._places.get(key)
        if place is None:
            line = f"{_users_file(frame.f_code.co_filename)}:{frame.f_lineno}"
            place = self._places[key] = sys.intern(f"{path} at {line}" if path else line)
        return place

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Know which module's forward is running, while the context lasts."""

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            while len(self._stack) > 1 and self._stack.pop().module is not module:
                # A forward that raised and was caught left its modules behind.
                continue

        with ExitStack() as stack:
            for register, hook in (
                (nn.modules.module.register_module_forward_pre_hook, lambda module, args: self._enter(module)),
                (nn.modules.module.register_module_forward_hook, leave),
            ):
                stack.callback(register(hook).remove)
            yield

    def _enter(self, module: nn.Module) -> None:
        around = self._stack[-1]
        path = self._paths.get(id(module))
        if path is None:
            running = _Running(module, around.path, around.component, False)
        else:
            component = self._components.of(path) if path else around.component
            running = _Running(module, path, component, keeps_its_sizes(module))
        self._stack.append(running)


@cache
def _users_file(path: str) -> str | None:
    """A file's name; None if its code is not the user's: ours, torch's, or that of einops, which only calls torch."""
    file = Path(path)
    return None if path.startswith((_OWN_FOLDER, _TORCH_FOLDER)) or file.parent.name == "einops" else file.name

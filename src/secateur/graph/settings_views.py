"""Settings (configurations) as the code of one module sees them: the same object, but its integers are traced sizes.

A module that keeps settings is given a view of them in their place. A view shares the ``__dict__`` of what it shows,
and its class is derived from the class of that: methods, properties and writing work as before, and only what is read
as an attribute is traced, under the path that leads to it. So of modules that share settings each has its own sizes,
and code that comes to the settings by another way, such as a global name, finds plain numbers.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Follow = Callable[[Any, str], Any]
"""A value with its integers traced, given the path that leads to it."""

_FOREIGN = frozenset(sys.stdlib_module_names) - {"abc", "argparse", "collections", "types", "typing"}
_LEFT_ALONE = _FOREIGN | {"torch", "numpy"}
"""Libraries whose classes, and what is derived from them, are no settings."""

_OF_PYTHON = 1 << 9
"""The flag of classes that Python code made, as against those of extensions."""


class SettingsViews:
    """The views of one run.

    Args:
        follow: traces what is read through a view.
    """

    def __init__(self, follow: Follow) -> None:
        self.follow = follow
        self._views: dict[tuple[int, str], Any] = {}
        self._shown: dict[int, tuple[Any, Any, str]] = {}
        self._before: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._classes: dict[type, type | None] = {}

    def view(self, settings: Any, path: str) -> Any:
        """The view of an object under this path; the object itself if it isn't settings, or a view already."""
        kind = self._class_for(type(settings))
        if kind is None or id(settings) in self._shown:
            return settings
        if (id(settings), path) not in self._views:
            view: Any = object.__new__(kind)
            object.__setattr__(view, "__dict__", vars(settings))
            self._before.setdefault(id(settings), (settings, dict(vars(settings))))
            # Kept beside its path, so that no other object can take its id.
            self._shown[id(view)] = view, settings, path
            self._views[id(settings), path] = view
        return self._views[id(settings), path]

    def put_back(self) -> None:
        """Settings have the attributes again that they had when they were first read."""
        for settings, before in self._before.values():
            vars(settings).clear()
            vars(settings).update(before)

    def path_of(self, view: Any) -> str | None:
        """The path that leads to a view; None if it is a copy of one."""
        return self._shown[id(view)][2] if id(view) in self._shown else None

    def original(self, settings: Any) -> Any:
        """What a view shows; of anything else, itself."""
        return self._shown[id(settings)][1] if id(settings) in self._shown else settings

    def _class_for(self, cls: type) -> type | None:
        if cls not in self._classes:
            self._classes[cls] = _class_of_views(cls, self) if is_of_settings(cls) else None
        return self._classes[cls]


def is_of_settings(cls: type) -> bool:
    """Whether objects of a class are settings: of a plain class of the user's, with attributes and nothing else."""
    if cls is SimpleNamespace:
        return True
    if type(cls) not in (type, ABCMeta) or hasattr(cls, "__del__"):
        return False  # an enumeration, say, whose class makes its objects itself
    return cls is not object and all(_is_plain(base) for base in cls.__mro__ if base is not object)


def _is_plain(cls: type) -> bool:
    slots = vars(cls).get("__slots__", ())
    own_layout = set([slots] if isinstance(slots, str) else slots) - {"__dict__", "__weakref__"}
    return bool(cls.__flags__ & _OF_PYTHON) and not own_layout and cls.__module__.partition(".")[0] not in _LEFT_ALONE


class _Namespace:
    """Stands in for ``SimpleNamespace``, whose objects have a layout of their own."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimpleNamespace) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"namespace({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class _Unannounced:
    """A base whose derived classes the user's classes aren't told of."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None: ...


def _class_of_views(shown: type, views: SettingsViews) -> type:
    """A class that differs from another only in what its objects give when their attributes are read."""
    base: Any = _Namespace if shown is SimpleNamespace else shown
    read = base.__getattribute__
    other_names = getattr(shown, "attribute_map", None)  # of the configurations of Hugging Face's models

    def traced(self: Any, name: str) -> Any:
        if name == "__class__":
            return shown
        value = read(self, name)
        path = views.path_of(self)
        if isinstance(other_names, dict):
            name = other_names.get(name, name)
        # What is computed is made of what was read already.
        if path is None or read(self, "__dict__").get(name, views) is not value:
            return value
        return views.follow(value, f"{path}.{name}")

    made = {"__getattribute__": traced, "__module__": shown.__module__, "__slots__": ()}
    if base.__eq__ is object.__eq__:
        # Without an equality of its own, an object equals itself alone: a view, what it shows.
        made["__eq__"] = lambda self, other: views.original(self) is views.original(other)
        made["__hash__"] = lambda self: object.__hash__(views.original(self))
    derived: type = type(base)(shown.__name__, (_Unannounced, base), made)
    return derived

"""Classes of modules that keep their own sizes, which surgery makes true again: torch's, and those that users register.

While the code of such a module runs, the integers that it gives to operators follow whatever shrinks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

_Update = TypeVar("_Update", bound=Callable[[Any], None])

REGISTERED: dict[type[nn.Module], Callable[[Any], None]] = {}
"""Users' classes of modules to what puts a module's sizes right once its parameters have shrunk."""


def updates_sizes(cls: type[nn.Module]) -> Callable[[_Update], _Update]:
    """Register a function that puts the sizes of a class of modules right once their parameters have shrunk.

    For modules that keep sizes where the trace can't see them: in arrays, in ``__slots__``, in closures. The integers
    that their ``forward`` gives to operators then count as following, and after surgery the function is called with
    each such module, its parameters already small, to read the sizes off them. Integers in attributes, tuples, lists,
    dictionaries and settings of a module need no such function.

    Args:
        cls: the class; classes derived from it are meant too.

    Raises:
        ValueError: the class is registered already.
    """

    def register(update: _Update) -> _Update:
        if cls in REGISTERED:
            raise ValueError(f"{cls.__name__} already has a function that updates its sizes")
        REGISTERED[cls] = update
        return update

    return register


def registered_update(cls: type[nn.Module]) -> Callable[[Any], None] | None:
    """What users have registered for a class or the nearest of its bases."""
    return next((REGISTERED[base] for base in cls.__mro__ if base in REGISTERED), None)


def keeps_its_sizes(module: nn.Module) -> bool:
    """Whether surgery makes a module's own sizes true again."""
    cls = type(module)
    return cls.__module__.startswith("torch.nn.modules") or registered_update(cls) is not None

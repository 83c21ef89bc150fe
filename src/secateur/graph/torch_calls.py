"""Calls of torch functions by the user's code, their arguments by name, and who handles which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.graph.rules.base import names
from secateur.graph.traced_size import TracedFloat, TracedSize
from secateur.graph.tracer import Tracer


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
class Called:
    """One call of a torch function by the user's code, its arguments by name.

    Attributes:
        tracer: the tracer of the run.
        func: the function.
        args: its positional arguments, as given.
        kwargs: its keyword arguments, as given.
        named: all arguments that have a name.
        rest: positional arguments beyond those that have a name.
    """

    tracer: Tracer
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    named: dict[str, Any]
    rest: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The function's name."""
        name: str = self.func.__name__
        return name

    def __getitem__(self, argument: str) -> Any:
        return self.named[argument]

    def get(self, *names: str, default: Any = None) -> Any:
        """An argument under the first of several names that is given."""
        return next((self.named[name] for name in names if name in self.named), default)

    def run(self) -> Any:
        """Call the function itself."""
        return self.func(*self.args, **self.kwargs)


Handler = Callable[[Called], Any]
HANDLERS: dict[Any, tuple[tuple[str, ...], Handler]] = {}


def handles(*functions: Any, arguments: str) -> Callable[[Handler], Handler]:
    """Register a handler for functions whose positional arguments begin with these names."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(functions, (names(arguments), handler)))
        return handler

    return register


_ARITHMETIC = frozenset(
    prefix + name
    for prefix in ("", "r", "i")
    for name in names("add sub subtract mul multiply div divide truediv true_divide pow float_power")
) | set(names("addcdiv addcmul clamp clamp_max clamp_min clip fill full_like lerp masked_fill where"))


def note_numbers(func: Any, arguments: Sequence[Any]) -> None:
    """A traced size given to arithmetic is a number; to any other function, it may be a size that can't be followed."""
    for argument in arguments:
        for item in argument if isinstance(argument, (tuple, list)) else (argument,):
            if isinstance(item, (TracedSize, TracedFloat)):
                name = getattr(func, "__name__", "an operator")
                if name.strip("_") in _ARITHMETIC:
                    item.source.note_number(name)
                else:
                    item.source.pin(name)

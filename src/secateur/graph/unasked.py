"""Functions that take an integer's value without asking it, so that a traced size would leave as a plain number.

C code reads the value of any ``int`` directly: ``math.log``, ``range``, scripted functions. While a model is traced,
stand-ins note the sizes that they are given, and return what the functions return. Another thread's operators aren't
seen at all: what goes into them stays.
"""

from __future__ import annotations

import builtins
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from secateur.graph.dispatch import EagerDispatchMode
from secateur.graph.rules.base import names
from secateur.graph.traced_size import TracedFloat, TracedSize
from secateur.graph.tracer import Tracer


@contextmanager
def unasked_values_noted(classes: Iterable[type], tracer: Tracer) -> Iterator[None]:
    """Note the sizes given to functions that don't ask them, while the context lasts.

    Args:
        classes: of the model's parts; where they are defined, and functions that are imported there, ``range`` and
            what is imported by name have stand-ins too.
        tracer: of the run; what its threads use is pinned there.
    """
    replaced: list[tuple[Any, str, Any]] = []
    try:
        for holder, name, stand_in in _stand_ins(classes, tracer):
            replaced.append((holder, name, vars(holder).get(name, _MISSING)))
            setattr(holder, name, stand_in)
        yield
    finally:
        for holder, name, before in reversed(replaced):
            if before is _MISSING:
                delattr(holder, name)
            else:
                setattr(holder, name, before)


def _stand_ins(classes: Iterable[type], tracer: Tracer) -> Iterator[tuple[Any, str, Any]]:
    """What to replace: where, under which name, and by what."""
    for function in _FUNCTIONS:
        yield math, function.__name__, _FUNCTIONS[function]
    yield torch._C.ScriptFunction, "__call__", _scripted
    yield threading.Thread, "start", _starting(tracer)
    for module in _modules_of(classes):
        yield from _stand_ins_in(module)


def _stand_ins_in(module: ModuleType) -> Iterator[tuple[Any, str, Any]]:
    for name, value in list(vars(module).items()):
        if type(value) is _BUILT_IN and value in _FUNCTIONS:
            yield module, name, _FUNCTIONS[value]
    if "range" not in vars(module):
        yield module, "range", _Range


def _modules_of(classes: Iterable[type]) -> list[ModuleType]:
    """The modules of Python that define these classes, or functions imported there, and the script that runs."""
    found = {"__main__": None} | {base.__module__: None for cls in classes for base in cls.__mro__}
    for module in _loaded(found):
        found |= {value.__module__: None for value in vars(module).values() if type(value) is FunctionType}
    return _loaded(found)


def _loaded(paths: Iterable[str]) -> list[ModuleType]:
    own = (sys.modules.get(path) for path in paths if path and path.partition(".")[0] not in _LEFT_ALONE)
    return [module for module in own if isinstance(module, ModuleType)]


# --- functions of Python ----------------------------------------------------------------------------------------------


def _sizes_in(arguments: Iterable[Any]) -> list[TracedSize]:
    return [a for a in arguments if isinstance(a, TracedSize) and not a.source.tracer.is_over]


def _pin(arguments: Iterable[Any], what: str) -> None:
    for size in _sizes_in(arguments):
        if not size.source.tracer.in_own_sizes:
            size.source.pin(what)


def _of_a_number(function: Any) -> Any:
    """A stand-in for a function that makes a number."""

    @wraps(function)
    def stand_in(*arguments: Any) -> Any:
        sizes = _sizes_in(arguments)
        if not sizes:
            return function(*arguments)
        for size in sizes:
            size.source.note_number(function.__name__)
        return TracedFloat.of(function(*arguments), sizes[0].source)

    return stand_in


def _opaque(function: Any) -> Any:
    """A stand-in for a function that makes an integer that can't be followed."""

    @wraps(function)
    def stand_in(*arguments: Any) -> Any:
        _pin(arguments, f"{function.__name__}()")
        return function(*arguments)

    return stand_in


_BUILT_IN = type(math.log)
_FUNCTIONS = {getattr(math, name): _of_a_number(getattr(math, name)) for name in names("log log2 log10 ldexp")} | {
    getattr(math, name): _opaque(getattr(math, name)) for name in names("comb perm factorial isqrt gcd lcm")
}
_MISSING = object()
_LEFT_ALONE = sys.stdlib_module_names | {"torch", "numpy", "einops"}
"""Libraries whose own code is left as it is."""


class _OfRange(type):
    def __call__(cls, *bounds: Any) -> Any:
        _pin(bounds, "range()")
        return builtins.range(*bounds)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, builtins.range)


class _Range(metaclass=_OfRange):
    """Stands in for ``range``: how often a loop runs is no size."""


# --- torch ------------------------------------------------------------------------------------------------------------


_call_scripted = torch._C.ScriptFunction.__call__


def _scripted(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What goes on in a scripted function is seen, but not the sizes that it gives to operators."""
    leaves, what = tree_leaves((args, kwargs)), f"the scripted function {function.name}()"
    sizes = _sizes_in(leaves)
    _pin(sizes, what)
    for tensor in leaves if sizes else ():
        if isinstance(tensor, torch.Tensor):
            tracer = sizes[0].source.tracer
            for factor in tracer.labels_of(tensor):
                tracer.facts.fix(factor.labels, f"{what} is given sizes, which can't be followed ({tracer.where()})")
    return _call_scripted(function, *args, **kwargs)


def _starting(tracer: Tracer) -> Callable[[threading.Thread], None]:
    """A stand-in for ``Thread.start``: the operators that run in the new thread pin what they use."""
    start = threading.Thread.start

    def stand_in(thread: threading.Thread) -> None:
        run = thread.run

        def watched() -> None:
            del thread.run
            with _OtherThread(tracer):
                run()

        thread.run = watched  # type: ignore[method-assign]
        start(thread)

    return stand_in


class _OtherThread(EagerDispatchMode):
    """Pins what the operators of another thread use."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._tracer.is_over:
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, torch.Tensor):
                    self._pin(tensor)
        return func(*args, **(kwargs or {}))

    def _pin(self, tensor: torch.Tensor) -> None:
        state, trace = self._tracer.state(tensor), self._tracer.trace
        trace.mixed_in_use |= state.mixed
        if state.owner is not None:
            trace.reached.add(state.owner)
        for factor in (*state.factors, *state.positions):
            trace.facts.fix(factor.labels, f"used in another thread, which isn't followed ({self._tracer.where()})")

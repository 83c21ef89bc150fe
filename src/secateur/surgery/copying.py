"""Deep copies of modules: as ``copy.deepcopy`` makes them, several times faster, and of what holds activations, too.

Unlike those of ``copy.deepcopy``, the copies have functions of their own where these close over the model.

``copy.deepcopy`` asks of every object anew how it is to be copied, and a module has a dozen mappings for hooks, nearly
all empty; that was most of the time of making a smaller model. Modules with torch's own way of being copied, and plain
containers, are copied here; everything else goes to ``copy.deepcopy``, with the same memo.
"""

from __future__ import annotations

import copy
import functools
import operator
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from secateur.graph.attributes import kept_activations
from secateur.surgery.closures import ATOMIC, CALLABLES, CONTAINERS, Owned, cells_of, inside, is_filled

Value = TypeVar("Value")

_MAPPINGS = frozenset({dict, OrderedDict})
_WAYS_TO_COPY = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__getattribute__")
_MISSING = object()


def deep_copy(value: Value, memo: dict[int, Any], *, model: nn.Module | None = None) -> Value:
    """A deep copy.

    Functions in it that reach what ``value`` holds, by their closures, defaults or attributes, are copied with all that
    leads there; whatever else a function holds, and every other function, is shared.

    Args:
        value: what is copied.
        memo: as of ``copy.deepcopy``: copies that are there already, by the identity of what they are copies of; all
            others are added.
        model: the model that warnings are about, where ``value`` only holds it.

    Warns:
        SecateurWarning: a function reaches a module or tensor of the original by an object that can't be made anew.
    """
    copier = _Copier(value, memo)
    made: Value = copier.copied(value)
    about = model if model is not None else value
    if isinstance(about, nn.Module):
        copier.warn_of_what_is_left(about)
    return made


class _Copier:
    def __init__(self, root: Any, memo: dict[int, Any]) -> None:
        self._root = root
        self._memo = memo
        self._plain: dict[type, bool] = {}
        # What is known by its identity is kept, so that nothing else gets it.
        self._shared: dict[int, Any] = {}
        """Functions that hold nothing that could be the model's."""
        self._settled: dict[int, Any] = {}
        self._met_functions = False

    @functools.cached_property
    def _owned(self) -> Owned:
        self._met_functions = True
        return Owned(self._root)

    def warn_of_what_is_left(self, model: nn.Module) -> None:
        """Warn of functions that still reach the original; only where there are functions that hold anything."""
        if self._met_functions:
            self._owned.warn_of_what_is_left(model)

    def copied(self, value: Any) -> Any:
        kind = type(value)
        if kind in ATOMIC:
            return value
        made = self._memo.get(id(value), _MISSING)
        if made is not _MISSING:
            return made
        if kind in _MAPPINGS:
            return self._mapping(value, kind())
        if kind is list:
            made = self._memo[id(value)] = []
            made.extend(map(self.copied, value))
            return made
        if kind is set:
            made = self._memo[id(value)] = set(map(self.copied, value))
            return made
        if kind is tuple:
            return self._tuple(value, self.copied)
        if kind is types.FunctionType:
            return self._rebound(value)
        if kind in CALLABLES:
            return self._callable(value, self.copied)
        if kind not in self._plain:
            self._plain[kind] = _is_plain(kind)
        if self._plain[kind]:
            return self._module(value)
        return self._deep_copied(value)

    def _deep_copied(self, value: Any) -> Any:
        # Torch copies no tensor that has a gradient's history; what a run has left behind goes along without it.
        for tensor in kept_activations(value):
            self._memo[id(tensor)] = tensor.detach().clone()
        made = copy.deepcopy(value, self._memo)
        if made is not value and not isinstance(made, torch.Tensor):
            self._settle(made)
        return made

    def _settle(self, made: Any) -> None:
        """Bind the functions in what ``copy.deepcopy`` has made, where they are the original's."""
        stack = [made]
        while stack:
            holder = stack.pop()
            if id(holder) in self._settled:
                continue
            self._settled[id(holder)] = holder
            held = holder if type(holder) in CONTAINERS else getattr(holder, "__dict__", None)
            if not isinstance(held, (dict, list)) or isinstance(holder, type):
                continue
            for key, item in list(held.items() if isinstance(held, dict) else enumerate(held)):
                if type(item) in CALLABLES or type(item) is tuple:
                    held[key] = self._rebound(item)
                elif type(item) not in ATOMIC and not isinstance(item, torch.Tensor):
                    stack.append(item)

    # --- functions --------------------------------------------------------------------------------------------------

    def _rebound(self, value: Any) -> Any:
        """The value itself, or a copy of what leads from it to the model, with the model's parts copied."""
        kind = type(value)
        if kind in ATOMIC or id(value) in self._shared:
            return value
        made = self._memo.get(id(value), _MISSING)
        if made is not _MISSING:
            return made
        if kind is types.FunctionType and all(map(_is_bare, inside(value))):
            self._shared[id(value)] = value
            return value
        if value in self._owned:
            return self.copied(value)
        if not self._owned.reaches(value):
            return value
        if kind in CALLABLES:
            return self._callable(value, self._rebound)
        if kind in CONTAINERS:
            return self._container(value)
        if kind is frozenset:
            return frozenset(map(self._rebound, value))
        return self._tuple(value, self._rebound) if kind is tuple else value

    def _callable(self, value: Any, each: Callable[[Any], Any]) -> Any:
        """A function, a method, a partial or a remembering function of what ``each`` makes of its parts."""
        made: Any
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            made = types.MethodType(each(value.__func__), each(value.__self__))
        elif isinstance(value, functools.partial):
            keywords = {name: each(item) for name, item in value.keywords.items()}
            made = functools.partial(each(value.func), *map(each, value.args), **keywords)
            vars(made).update({name: each(item) for name, item in vars(value).items()})
        else:
            inner = self._rebound(value.__wrapped__)
            # What it remembers was computed by the original.
            made = value if inner is value.__wrapped__ else functools.lru_cache(**value.cache_parameters())(inner)
        return self._remembered(value, made)

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        cells = [(cell, self._memo.get(id(cell), _MISSING)) for cell in cells_of(function)]
        new = [types.CellType() if made is _MISSING else made for _, made in cells]
        self._memo.update((id(cell), made) for (cell, _), made in zip(cells, new, strict=True))
        made = types.FunctionType(function.__code__, function.__globals__, function.__name__, closure=tuple(new))
        self._remembered(function, made)
        for (cell, known), fresh in zip(cells, new, strict=True):
            if known is _MISSING and is_filled(cell):
                fresh.cell_contents = self._rebound(cell.cell_contents)
        if function.__defaults__:
            made.__defaults__ = tuple(map(self._rebound, function.__defaults__))
        if function.__kwdefaults__:
            made.__kwdefaults__ = {name: self._rebound(item) for name, item in function.__kwdefaults__.items()}
        for name in functools.WRAPPER_ASSIGNMENTS:
            setattr(made, name, getattr(function, name))
        vars(made).update({name: self._rebound(item) for name, item in vars(function).items()})
        return made

    def _container(self, value: Any) -> Any:
        made: Any = defaultdict(value.default_factory) if isinstance(value, defaultdict) else type(value)()
        self._remembered(value, made)
        if isinstance(value, dict):
            made.update((self._rebound(key), self._rebound(item)) for key, item in value.items())
        else:
            (made.update if isinstance(value, set) else made.extend)(map(self._rebound, value))
        return made

    # --- containers and modules -------------------------------------------------------------------------------------

    def _mapping(self, value: Any, made: Any) -> Any:
        self._memo[id(value)] = made
        for key, item in value.items():
            made[self.copied(key)] = self.copied(item)
        return made

    def _tuple(self, value: tuple[Any, ...], each: Callable[[Any], Any]) -> Any:
        items = [each(item) for item in value]
        if all(map(operator.is_, items, value)):
            return value
        # One that holds itself, through a list say, has been copied meanwhile.
        return self._remembered(value, tuple(items))

    def _remembered(self, value: Any, made: Any) -> Any:
        """What the memo holds for a value from now on: what it held already, or what was made.

        The value is kept as well, as ``copy.deepcopy`` does: were it freed, something else might get its identity.
        """
        self._memo.setdefault(id(self._memo), []).append(value)
        return self._memo.setdefault(id(value), made)

    def _module(self, module: nn.Module) -> nn.Module:
        made: nn.Module = object.__new__(type(module))
        self._memo[id(module)] = made
        self._settled[id(made)] = made
        attributes = vars(made)
        for name, value in vars(module).items():
            attributes[name] = self.copied(value)
        return made


def _is_bare(item: Any) -> bool:
    """Whether something is a function that closes over nothing."""
    return type(item) is types.FunctionType and not cells_of(item)


def _is_plain(kind: type) -> bool:
    """Whether objects of a class are modules that are copied as ``nn.Module`` is: all that is in their ``__dict__``."""
    return (
        issubclass(kind, nn.Module)
        # Those of torch's own modules only add what was lacking in files of older versions.
        and kind.__setstate__.__module__.startswith("torch.nn.")
        and all(getattr(kind, way, None) is getattr(nn.Module, way, None) for way in _WAYS_TO_COPY)
        and kind.__new__ is object.__new__
        and not hasattr(kind, "__getnewargs__")
        and not hasattr(kind, "__getnewargs_ex__")
        and not any(vars(base).get("__slots__") for base in kind.__mro__)
        and kind not in copy._deepcopy_dispatch  # type: ignore[attr-defined]
    )

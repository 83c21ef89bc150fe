"""Deep copies of modules: as ``copy.deepcopy`` makes them, several times faster, and of what holds activations, too.

``copy.deepcopy`` asks of every object anew how it is to be copied, and a module has a dozen mappings for hooks, nearly
all empty; that was most of the time of making a smaller model. Modules with torch's own way of being copied, and plain
containers, are copied here; everything else goes to ``copy.deepcopy``, with the same memo.
"""

from __future__ import annotations

import copy
import operator
import types
from collections import OrderedDict
from typing import Any, TypeVar

from torch import nn

from secateur.graph.attributes import kept_activations

Value = TypeVar("Value")

_UNCHANGING = frozenset(
    {type(None), bool, int, float, complex, str, bytes, type, types.FunctionType, types.BuiltinFunctionType}
)
_MAPPINGS = frozenset({dict, OrderedDict})
_WAYS_TO_COPY = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__getattribute__")
_MISSING = object()


def deep_copy(value: Value, memo: dict[int, Any]) -> Value:
    """A deep copy.

    Args:
        value: what is copied.
        memo: as of ``copy.deepcopy``: copies that are there already, by the identity of what they are copies of; all
            others are added.
    """
    made: Value = _Copier(memo).copied(value)
    return made


class _Copier:
    def __init__(self, memo: dict[int, Any]) -> None:
        self._memo = memo
        self._plain: dict[type, bool] = {}

    def copied(self, value: Any) -> Any:
        kind = type(value)
        if kind in _UNCHANGING:
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
            return self._tuple(value)
        if kind not in self._plain:
            self._plain[kind] = _is_plain(kind)
        if self._plain[kind]:
            return self._module(value)
        return self._deep_copied(value)

    def _deep_copied(self, value: Any) -> Any:
        # Torch copies no tensor that has a gradient's history; what a run has left behind goes along without it.
        for tensor in kept_activations(value):
            self._memo[id(tensor)] = tensor.detach().clone()
        return copy.deepcopy(value, self._memo)

    def _mapping(self, value: Any, made: Any) -> Any:
        self._memo[id(value)] = made
        for key, item in value.items():
            made[self.copied(key)] = self.copied(item)
        return made

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        items = [self.copied(item) for item in value]
        if all(map(operator.is_, items, value)):
            return value
        # One that holds itself, through a list say, has been copied meanwhile.
        return self._memo.setdefault(id(value), tuple(items))

    def _module(self, module: nn.Module) -> nn.Module:
        made: nn.Module = object.__new__(type(module))
        self._memo[id(module)] = made
        attributes = vars(made)
        for name, value in vars(module).items():
            attributes[name] = self.copied(value)
        return made


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

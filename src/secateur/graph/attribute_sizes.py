"""The integers that modules keep: while a model is traced, they remember which attribute they are.

Modules of the user's own have theirs replaced, also in tuples, lists and dictionaries of them. An object that holds
settings (a configuration) gives them when it is read by the code of a module that holds it, so that each module that
shares it has its own. What torch's own modules say of their parameters (``out_features``) counts these parameters'
labels. Everything is put back when the context ends (``attributes_kept`` puts back the modules' attributes themselves).
"""

from __future__ import annotations

from abc import ABCMeta
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from secateur.graph.expression import Attribute, Expression
from secateur.graph.labels import labels_along
from secateur.graph.own_sizes import keeps_its_sizes
from secateur.graph.traced_size import Source, TracedSize
from secateur.graph.tracer import Tracer

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, torch.Tensor, torch.dtype, torch.device, nn.Module)

# Attributes of torch's own modules: the parameter and the axis whose length they are, and where they lie in a tuple.
_TORCH: dict[type[nn.Module], dict[str, tuple[str, int]]] = {
    nn.Linear: {"in_features": ("weight", 1), "out_features": ("weight", 0)},
    nn.Embedding: {"embedding_dim": ("weight", 1), "num_embeddings": ("weight", 0)},
    nn.modules.batchnorm._NormBase: {"num_features": ("weight", 0)},
    nn.GroupNorm: {"num_channels": ("weight", 0)},
    nn.GRUCell: {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)},
    nn.LSTMCell: {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)},
    nn.RNNCell: {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)},
    nn.RNNBase: {"input_size": ("weight_ih_l0", 1)},
}


@contextmanager
def traced_attributes(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Let the integers that modules keep be traced sizes; modules' own attributes are put back by the caller."""
    tracing = _Tracing(tracer)
    try:
        for path, module in model.named_modules():
            tracing.replace(path, module)
        yield
    finally:
        tracing.put_back()


class _Tracing:
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._read: dict[int, tuple[Any, Any, dict[int, str]]] = {}
        self._classes: dict[int, type] = {}

    def replace(self, path: str, module: nn.Module) -> None:
        """Replace the integers among a module's attributes."""
        torchs = _lengths(module)
        own = keeps_its_sizes(module)
        for name, value in list(vars(module).items()):
            if name in torchs:
                traced = self._length(module, *torchs[name], value)
            elif own or name in _INTERNAL:
                continue
            else:
                traced = self._traced(value, f"{path}.{name}" if path else name, module)
            if traced is not value:
                vars(module)[name] = traced

    def _length(self, module: nn.Module, parameter: str, axis: int, value: Any) -> Any:
        tensor = module._parameters.get(parameter, module._buffers.get(parameter))
        labels = None if tensor is None else labels_along(self._tracer.labels_of(tensor), axis)
        if labels is None or type(value) is not int or len(labels) != value:
            return value
        return TracedSize(value, Source.counting(labels, self._tracer))

    def _traced(self, value: Any, key: str, module: nn.Module) -> Any:
        """The value with its integers traced; the value itself if it holds none."""
        if type(value) is int:
            return self._size(value, key)
        if isinstance(value, (tuple, list)) or type(value) in (dict, OrderedDict):
            return self._container(value, key)
        if not isinstance(value, (*_PLAIN, dict)) and not callable(value) and hasattr(value, "__dict__"):
            return self._settings(value, key, module)
        return value

    def _size(self, value: int, key: str) -> int:
        # Zero and one are no widths that could shrink.
        if value < 2:
            return value
        return TracedSize(value, Source(Expression.of(Attribute(key, value)), self._tracer))

    def _container(self, value: Any, key: str) -> Any:
        if id(value) in self._containers:
            return self._containers[id(value)][1]
        items = value.items() if isinstance(value, dict) else enumerate(value)
        traced = {k: self._size(v, f"{key}[{k!r}]") if type(v) is int else v for k, v in items}
        if not any(isinstance(v, TracedSize) for v in traced.values()):
            return value
        made = _like(value, traced)
        self._containers[id(value)] = (value, made)
        return made

    def _settings(self, settings: Any, key: str, module: nn.Module) -> Any:
        """Let an object of settings give traced sizes to the code of the modules that hold it."""
        if id(settings) in self._read:
            given, _, holders = self._read[id(settings)]
            holders[id(module)] = key
            return given
        holders = {id(module): key}
        before = type(settings)
        reading = _reading(before, holders, self)
        if reading is None:
            return settings
        try:
            object.__setattr__(settings, "__class__", reading)
            given = settings
        except TypeError:
            # An object of a built-in class (a SimpleNamespace), which can't change it: one of the new class stands in.
            make: Any = reading.__new__
            given = make(reading)
            vars(given).update(vars(settings))
        self._read[id(settings)] = given, settings, holders
        self._classes[id(settings)] = before
        return given

    def read(self, holders: dict[int, str], name: str, value: Any) -> Any:
        """An integer that is read from settings, as the running module sees it."""
        key = next((holders[id(m)] for m in reversed(self._tracer.running) if id(m) in holders), None)
        if key is None:
            return value
        if type(value) is int:
            return self._size(value, f"{key}.{name}")
        return self._container_of_settings(value, f"{key}.{name}")

    def _container_of_settings(self, value: Any, key: str) -> Any:
        if not isinstance(value, (tuple, list)) or not any(type(v) is int and v > 1 for v in value):
            return value
        return _like(value, {i: self._size(v, f"{key}[{i}]") if type(v) is int else v for i, v in enumerate(value)})

    def put_back(self) -> None:
        """Settings have their own classes again."""
        for given, settings, _ in self._read.values():
            if given is settings:
                object.__setattr__(settings, "__class__", self._classes[id(settings)])


_INTERNAL = frozenset(vars(nn.Module()))


def _lengths(module: nn.Module) -> dict[str, tuple[str, int]]:
    if isinstance(module, _ConvNd):
        if module.groups != 1:
            return {}
        outputs, inputs = (1, 0) if module.transposed else (0, 1)
        return {"out_channels": ("weight", outputs), "in_channels": ("weight", inputs)}
    if isinstance(module, _InstanceNorm):
        return {}
    return next((table for cls, table in _TORCH.items() if isinstance(module, cls)), {})


def _like(value: Any, items: dict[Any, Any]) -> Any:
    """A container of the same kind with other items."""
    if isinstance(value, dict):
        made = value.copy()
        made.update(items)
        return made
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*items.values())
    return type(value)(items.values())


def _reading(cls: type, holders: dict[int, str], tracing: _Tracing) -> type | None:
    """A class that differs from ``cls`` only in what its objects give when their attributes are read."""
    plain: Any = cls.__getattribute__
    other_names: dict[str, str] = getattr(cls, "attribute_map", {})  # of the configurations of Hugging Face's models

    def read(self: Any, name: str) -> Any:
        value = plain(self, name)
        if type(value) in (int, tuple, list):
            name = other_names.get(name, name)
            if name in plain(self, "__dict__"):
                return tracing.read(holders, name, value)
        return value

    if type(cls) not in (type, ABCMeta):
        return None  # an enumeration, say, whose class makes its objects itself
    try:
        return type(cls)(
            cls.__name__, (cls,), {"__getattribute__": read, "__module__": cls.__module__, "__slots__": ()}
        )
    except TypeError:
        # A class that can't be derived from (final, or of an extension).
        return None

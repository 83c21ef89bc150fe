"""The integers that modules keep: while a model is traced, they remember which attribute they are.

Modules of the user's own have theirs replaced, in tuples, lists and dictionaries too, and in objects of settings
(``settings_views``), however deep. What torch's own modules say of their parameters (``out_features``) counts these
parameters' labels. Everything is put back when the context ends (``attributes_kept`` puts back the modules' attributes
themselves).
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
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
from secateur.graph.settings_views import SettingsViews
from secateur.graph.source import Source
from secateur.graph.traced_size import TracedSize
from secateur.graph.tracer import Tracer
from secateur.graph.unasked import unasked_values_noted
from secateur.graph.walk import named_modules

_CONTAINERS = (list, dict, OrderedDict, defaultdict)
_MOST_ITEMS = 1000
"""Longer containers are data (a vocabulary, say), not sizes."""
_MOST_DEPTH = 10

# Attributes of torch's own modules: the parameter and the axis whose length they are, and where they lie in a tuple.
_TORCH: dict[type[nn.Module], dict[str, tuple[str, int]]] = {
    nn.Linear: {"in_features": ("weight", 1), "out_features": ("weight", 0)},
    nn.Embedding: {"embedding_dim": ("weight", 1), "num_embeddings": ("weight", 0)},
    nn.modules.batchnorm._NormBase: {"num_features": ("weight", 0)},
    nn.GroupNorm: {"num_channels": ("weight", 0)},
    nn.GRUCell: {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)},
    nn.LSTMCell: {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)},
    nn.RNNCell: {"input_size": ("weight_ih", 1), "hidden_size": ("weight_hh", 1)},
    nn.RNNBase: {"input_size": ("weight_ih_l0", 1), "hidden_size": ("weight_hh_l0", 1)},
}


@contextmanager
def traced_attributes(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Let the integers that modules keep be traced sizes; modules' own attributes are put back by the caller."""
    tracing = _Tracing(tracer)
    try:
        modules = named_modules(model)
        for path, module in modules:
            tracing.replace(path, module)
        with unasked_values_noted({type(module) for _, module in modules}, tracer):
            yield
    finally:
        tracing.put_back()


class _Tracing:
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._views = SettingsViews(self._traced)
        self._containers: dict[int, tuple[Any, Any, str]] = {}
        self._depth = 0

    def replace(self, path: str, module: nn.Module) -> None:
        """Replace the integers among a module's attributes."""
        torchs = _lengths(module)
        # Of what torch's own modules keep, the rest is none of ours.
        names = torchs if keeps_its_sizes(module) else vars(module).keys() - _INTERNAL
        for name in [name for name in vars(module) if name in names]:
            value = vars(module)[name]
            if name in torchs:
                traced = self._length(module, *torchs[name], value)
            elif not name.isidentifier():
                continue
            else:
                traced = self._traced(value, f"{path}.{name}" if path else name)
            if traced is not value:
                vars(module)[name] = traced

    def put_back(self) -> None:
        """Settings are as they were."""
        self._views.put_back()

    def _length(self, module: nn.Module, parameter: str, axis: int, value: Any) -> Any:
        tensor = module._parameters.get(parameter, module._buffers.get(parameter))
        labels = None if tensor is None else labels_along(self._tracer.labels_of(tensor), axis)
        if labels is None or type(value) is not int or len(labels) != value:
            return value
        return TracedSize(value, Source.counting(labels, self._tracer))

    def _traced(self, value: Any, path: str) -> Any:
        """The value with its integers traced; the value itself if it holds none."""
        if type(value) is int:
            # Zero and one are no widths that could shrink.
            return value if value < 2 else TracedSize(value, self._source(value, path))
        if type(value) in _CONTAINERS:
            return self._container(value, path)
        if isinstance(value, tuple):
            return self._tuple(value, path)
        return self._views.view(value, path)

    def _source(self, value: int, path: str) -> Source:
        return Source(Expression.of(Attribute(path, value)), self._tracer)

    def _container(self, value: Any, path: str) -> Any:
        """A container with its items traced: the same for all that hold it, so that they see each other's changes."""
        if id(value) not in self._containers:
            # One that holds itself finds itself as it was.
            self._containers[id(value)] = value, value, path
            made = value.copy()
            if self._replace_items(value, made, path):
                self._containers[id(value)] = value, made, path
        _, made, first = self._containers[id(value)]
        if path != first:
            self._tracer.trace.aliases.setdefault(first, {})[path] = None
        return made

    def _replace_items(self, value: Any, made: Any, path: str) -> bool:
        """Put traced items into a copy of a container; whether there are any."""
        items = value.items() if isinstance(value, dict) else enumerate(value)
        traced = self._items(items, path) if len(value) <= _MOST_ITEMS else {}
        for place, item in traced.items():
            made[place] = item
        return bool(traced)

    def _tuple(self, value: Any, path: str) -> Any:
        # A tuple of a class of its own may be made otherwise than from its items.
        named = hasattr(value, "_fields") and hasattr(value, "_make")
        traced = self._items(enumerate(value), path) if named or type(value) in (tuple, torch.Size) else {}
        if not traced:
            return value
        items = [traced.get(place, item) for place, item in enumerate(value)]
        return value._make(items) if named else type(value)(items)

    def _items(self, items: Any, path: str) -> dict[Any, Any]:
        """Those items that hold integers, traced."""
        if self._depth >= _MOST_DEPTH:
            return {}
        self._depth += 1
        found = {}
        for place, item in items:
            if type(place) is int or (type(place) is str and repr(place) == f"'{place}'"):
                traced = self._traced(item, f"{path}[{place!r}]")
                if traced is not item:
                    found[place] = traced
        self._depth -= 1
        return found


_INTERNAL = frozenset(vars(nn.Module()))


def _lengths(module: nn.Module) -> dict[str, tuple[str, int]]:
    if isinstance(module, _ConvNd):
        if module.groups != 1:
            return {}
        outputs, inputs = (1, 0) if module.transposed else (0, 1)
        return {"out_channels": ("weight", outputs), "in_channels": ("weight", inputs)}
    if isinstance(module, _InstanceNorm):
        return {}
    if isinstance(module, nn.RNNBase) and module.proj_size:
        projected = {"hidden_size": ("weight_hr_l0", 1), "proj_size": ("weight_hr_l0", 0)}
        return _TORCH[nn.RNNBase] | projected
    return _table(type(module))


def _table(cls: type[nn.Module]) -> dict[str, tuple[str, int]]:
    if cls not in _TABLES:
        _TABLES[cls] = next((table for base, table in _TORCH.items() if issubclass(cls, base)), {})
    return _TABLES[cls]


_TABLES: dict[type[nn.Module], dict[str, tuple[str, int]]] = {}
"""Entries of ``_TORCH`` by class, found once."""

"""The parts of a model, its submodules and single tensors by dotted path, and which of them an entry point reached."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import takewhile
from typing import Any, TypeAlias

from torch import nn
from torch.nn.modules.conv import _ConvNd

from secateur.graph.record import Trace
from secateur.graph.storage import named_tensors
from secateur.graph.walk import named_modules

Size: TypeAlias = tuple[type, int, int]


class Parts:
    """A model's parts. A tensor counts for those that hold all of its names; what others share says nothing of them.

    Attributes:
        modules: path to module.
        tensors: every name to its parameter or buffer.
        inside: path to the names of the tensors under it.
        children: path to the paths one step below it.
        reached: paths with a reached tensor.
        unreached: paths with an unreached tensor that has axes.
    """

    def __init__(self, model: nn.Module, trace: Trace) -> None:
        self.modules: dict[str, nn.Module] = dict(named_modules(model, all_names=True))
        self.tensors = named_tensors(model)
        self.inside: dict[str, list[str]] = defaultdict(list)
        self.children: dict[str, dict[str, None]] = defaultdict(dict)
        self.reached: set[str] = set()
        self.unreached: set[str] = set()
        self._first = trace.tied
        self._structures: dict[str, tuple[Any, ...]] = {}
        self._holders: dict[str, list[tuple[str, nn.Module]]] = {}
        self._walk()
        for first, path in self._owners().items():
            if first in trace.reached:
                self.reached.update(upwards(path))
            elif self.tensors[first].dim():
                self.unreached.update(upwards(path))

    def _walk(self) -> None:
        for name in self.tensors:
            below = None
            for path in upwards(name):
                self.inside[path].append(name)
                if below is not None:
                    self.children[path][below] = None
                below = path

    def _owners(self) -> dict[str, str]:
        """First name of each tensor to the innermost part that holds all of its names."""
        owners: dict[str, str] = {}
        for name in self.tensors:
            first = self.first(name)
            both = zip(owners.get(first, name).split("."), name.split("."), strict=False)
            owners[first] = ".".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], both))
        return owners

    def first(self, name: str) -> str:
        """The first of a tensor's names."""
        return self._first.get(name, name)

    def holds_parameters(self, path: str) -> bool:
        """Whether a part has parameters of its own, with values; on the meta device, unless all are, it has only forms.

        Such forms are filled with other parameters when they are used (``torch.func.functional_call``).
        """
        held = [self.tensors[name] for name in self.inside[path] if isinstance(self.tensors[name], nn.Parameter)]
        return any(not tensor.is_meta for tensor in held) or (bool(held) and self._all_meta)

    @cached_property
    def _all_meta(self) -> bool:
        return all(tensor.is_meta for tensor in self.tensors.values())

    def width(self, path: str) -> int:
        """Channels that a part seems to read: those that its first parameter has room for."""
        name = next(name for name in self.inside[path] if isinstance(self.tensors[name], nn.Parameter))
        owner, shape = self.modules.get(name.rpartition(".")[0]), self.tensors[name].shape
        if isinstance(owner, _ConvNd):
            return owner.in_channels
        return shape[min(1, len(shape) - 1)] if shape else 1

    def is_small(self, path: str) -> bool:
        """Whether a part has so few weights that another's may have the same shapes by chance."""
        return sum(self.tensors[name].dim() > 1 for name in self.inside[path]) < 2

    def size(self, path: str) -> Size:
        """Class, number of tensors and of elements: cheap to compare."""
        what = self.modules.get(path, self.tensors.get(path))
        return type(what), len(self.inside[path]), sum(self.tensors[name].numel() for name in self.inside[path])

    def structure(self, path: str) -> tuple[Any, ...]:
        """The classes of a part's modules, and its tensors' names and shapes."""
        if path not in self._structures:
            cut = len(path) + 1 if path else 0
            self._structures[path] = (
                tuple((below, type(module)) for below, module in self.holders(path)),
                tuple((name[cut:], tuple(self.tensors[name].shape)) for name in self.inside[path]),
            )
        return self._structures[path]

    def same_numbers(self, path: str, other: str, apart: int = 0) -> bool:
        """Whether integer attributes, such as a number of heads, are the same in two parts of the same structure.

        Args:
            path: one part.
            other: the other.
            apart: how far after the first the second stands in a container; attributes that differ by as much number
                them.
        """
        pairs = zip(self.holders(path), self.holders(other), strict=True)
        return all(_same_numbers(vars(mine), vars(theirs), apart) for (_, mine), (_, theirs) in pairs)

    def holders(self, path: str) -> list[tuple[str, nn.Module]]:
        """The modules in a part that hold tensors, by their path in it; others may differ, a dropout be missing."""
        if path not in self._holders:
            modules = self.modules[path].named_modules() if path in self.modules else ()
            self._holders[path] = [(below, module) for below, module in modules if joined(path, below) in self.inside]
        return self._holders[path]

    @cached_property
    def reached_by_size(self) -> Mapping[Size, list[str]]:
        """The parts with a reached tensor, in the order of their paths, gathered by :meth:`size`."""
        found: dict[Size, list[str]] = defaultdict(list)
        for path in sorted(self.reached):
            found[self.size(path)].append(path)
        return found


def joined(path: str, below: str) -> str:
    """The dotted path of ``below`` in ``path``; either may be empty."""
    return f"{path}.{below}" if path and below else path or below


def upwards(path: str) -> Iterator[str]:
    """A path and all above it, up to the model's own, which is empty."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _same_numbers(mine: Mapping[str, Any], theirs: Mapping[str, Any], apart: int) -> bool:
    return all(
        type(theirs.get(key)) is int and theirs[key] - value in (0, apart)
        for key, value in mine.items()
        if type(value) is int
    )

"""Which modules read the pruned channels, found in the model and confirmed by one run of the calibration data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.calibration.following import Following, following
from secateur.calibration.layouts import Layout, layout_of
from secateur.calibration.runs import Calibration, evaluating
from secateur.errors import CalibrationError
from secateur.graph.dispatch import EagerDispatchMode
from secateur.graph.groups import Consumer
from secateur.graph.storage import storage_address


@dataclass(frozen=True)
class Reader:
    """A consumer axis whose module can be watched.

    Attributes:
        parameter: dotted name of the weight.
        module: dotted path of the module that owns it.
        layout: the module type's matrix form.
    """

    parameter: str
    module: str
    layout: Layout


@dataclass(frozen=True)
class Skipped:
    """A consumer axis that calibration can't watch, and why."""

    parameter: str
    axis: int
    reason: str

    def __str__(self) -> str:
        return f"{self.parameter}[{self.axis}]: {self.reason}"


@dataclass(frozen=True)
class Survey:
    """What one run of the calibration data says about the consumers.

    Attributes:
        readers: the consumers that can be watched, in the order given.
        skipped: the others, with reasons.
        upstream: for each reader's parameter, the parameters of the readers whose outputs reach its input; in a loop,
            such as a recurrent model, that may be the reader itself and later ones.
        unreached: consumers that could be watched, had the run called their modules.
        following: parameter of a reader to the element-wise function that alone reads its module's outputs, the same in
            every call; of readers that have one.
    """

    readers: tuple[Reader, ...]
    skipped: tuple[Skipped, ...]
    upstream: Mapping[str, frozenset[str]]
    unreached: tuple[Reader, ...] = ()
    following: Mapping[str, Following] = field(default_factory=dict)

    def of(self, consumers: Iterable[Consumer]) -> Survey:
        """What the run says about some of the consumers alone; all of these are reached.

        Raises:
            CalibrationError: calibration never reaches the module of one of them.
        """
        axes = {(c.parameter, c.axis) for c in consumers}
        unreached = [repr(r.module) for r in self.unreached if (r.parameter, r.layout.axis) in axes]
        if unreached:
            raise CalibrationError(
                f"calibration never reaches {', '.join(unreached)}, which consumes pruned channels;"
                " give calibration data that exercises it, or protect the channels it reads"
            )
        readers = tuple(r for r in self.readers if (r.parameter, r.layout.axis) in axes)
        names = {r.parameter for r in readers}
        skipped = tuple(s for s in self.skipped if (s.parameter, s.axis) in axes)
        upstream = {name: self.upstream[name] & names for name in names}
        return Survey(readers, skipped, upstream, following=self.following)

    def stages(self) -> tuple[tuple[Reader, ...], ...]:
        """Readers that don't feed each other, together; each stage after all that feed it, in the order given.

        In a loop two readers feed each other: the one given first comes first.
        """
        stage_of: dict[str, int] = {}
        for reader in self.readers:
            before = (stage_of[name] for name in self.upstream[reader.parameter] if name in stage_of)
            stage_of[reader.parameter] = 1 + max(before, default=-1)
        stages: dict[int, list[Reader]] = defaultdict(list)
        for reader in self.readers:
            stages[stage_of[reader.parameter]].append(reader)
        return tuple(tuple(stages[index]) for index in sorted(stages))


def survey(model: nn.Module, consumers: Sequence[Consumer], calibration: Calibration) -> Survey:
    """Run the calibration data once and find the module that reads each consumer's channels.

    Watchable are Linear, Conv1-3d and ConvTranspose1-3d modules whose weight and bias nothing else uses. A weight used
    in functional form, tied to another, or of another type is skipped with its reason.

    Raises:
        CalibrationError: calibration never reaches one of the modules, or fails.
    """
    return survey_reached(model, consumers, calibration).of(consumers)


def survey_reached(model: nn.Module, consumers: Iterable[Consumer], calibration: Calibration) -> Survey:
    """The same, where some of the consumers need not be reached.

    Raises:
        CalibrationError: calibration fails.
    """
    candidates, skipped = _owners(model, consumers)
    watcher = _Watcher(model, candidates)
    with evaluating(model), watcher.hooks(), watcher:
        calibration.run(model)
    readers: list[Reader] = []
    unreached: list[Reader] = []
    for reader in candidates:
        outside = reader.parameter in watcher.outside
        if reader.parameter in watcher.called and not outside:
            readers.append(reader)
        elif outside:
            skipped.append(Skipped(reader.parameter, reader.layout.axis, _outside_reason(reader, watcher)))
        else:
            unreached.append(reader)
    upstream = watcher.upstream_names(readers)
    return Survey(tuple(readers), tuple(skipped), upstream, tuple(unreached), watcher.functions())


def _outside_reason(reader: Reader, watcher: _Watcher) -> str:
    if reader.parameter in watcher.called:
        return f"its weight or bias is also used outside {reader.module!r}"
    return f"used in functional form: {reader.module!r} itself is never called"


def _owners(model: nn.Module, consumers: Iterable[Consumer]) -> tuple[list[Reader], list[Skipped]]:
    modules = dict(model.named_modules())
    holders = _holders(modules)
    readers: list[Reader] = []
    skipped: list[Skipped] = []
    for consumer in consumers:
        path, _, attribute = consumer.parameter.rpartition(".")
        module = modules.get(path)
        layout = layout_of(module) if module is not None and attribute == "weight" else None
        reason = _unwatchable(consumer, module, layout, holders)
        if reason or layout is None:
            skipped.append(Skipped(consumer.parameter, consumer.axis, reason))
        else:
            readers.append(Reader(consumer.parameter, path, layout))
    return readers, skipped


def _unwatchable(
    consumer: Consumer, module: nn.Module | None, layout: Layout | None, holders: Mapping[int, Sequence[str]]
) -> str:
    """Why the consumer can't be watched; empty if it can."""
    if layout is None or module is None:
        kind = type(module).__name__ if module is not None else "the model"
        return f"not the weight of a Linear, Conv or ConvTranspose module, but a parameter of {kind}"
    if consumer.axis != layout.axis:
        return f"contracted over axis {consumer.axis}, not over the input axis of its module"
    own = {consumer.parameter, consumer.parameter.removesuffix("weight") + "bias"}
    others = {name for tensor in _weight_and_bias(module) for name in holders[storage_address(tensor)]} - own
    if others:
        return f"tied: shares its tensor with {', '.join(sorted(others))}"
    return ""


def _holders(modules: Mapping[str, nn.Module]) -> Mapping[int, list[str]]:
    """Storage to the dotted names of the parameters and buffers in it."""
    holders: dict[int, list[str]] = defaultdict(list)
    for path, module in modules.items():
        prefix = f"{path}." if path else ""
        parameters = module.named_parameters(recurse=False, remove_duplicate=False)
        buffers = module.named_buffers(recurse=False, remove_duplicate=False)
        for name, tensor in chain(parameters, buffers):
            holders[storage_address(tensor)].append(prefix + name)
    return holders


def _weight_and_bias(module: nn.Module) -> list[Tensor]:
    return [tensor for tensor in (module.weight, module.bias) if isinstance(tensor, Tensor)]


@dataclass(eq=False)
class _Watcher(EagerDispatchMode):
    """Follows, by storage, which readers' outputs reach which readers' inputs, what they become, and uses of weights.

    A set of readers is an integer, bit i for reader i. A storage reused after its tensor died is overwritten by the
    operation that fills it, so a stale set can at most add a feed that isn't there: a pass more, and no harm.
    """

    model: nn.Module
    readers: Sequence[Reader]
    called: set[str] = field(default_factory=set)
    outside: set[str] = field(default_factory=set)
    _reached: dict[int, int] = field(default_factory=dict)
    _upstream: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _owned: dict[int, str] = field(default_factory=dict)
    _active: list[str] = field(default_factory=list)
    _fresh: dict[int, str] = field(default_factory=dict)
    _following: dict[str, list[Following | None]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        EagerDispatchMode.__init__(self)
        for reader in self.readers:
            for tensor in _weight_and_bias(self.model.get_submodule(reader.module)):
                self._owned[storage_address(tensor)] = reader.parameter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = _storages((args, kwargs))
        self._follow(func, args, kwargs or {}, inputs, result)
        for storage in inputs & self._owned.keys():
            if self._owned[storage] not in self._active:
                self.outside.add(self._owned[storage])
        reached = 0
        for storage in inputs:
            reached |= self._reached.get(storage, 0)
        # An output that shares an input's storage is a view, or was written in place: what reached it stays.
        for storage in _storages((_written(func, args, kwargs or {}), result)) - self._owned.keys():
            self._reached[storage] = reached
        return result

    def _follow(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: set[int], result: Any
    ) -> None:
        """Note what reads the outputs of readers' modules; what an operator has written is no such output any more."""
        for storage in inputs & self._fresh.keys():
            tensor = next(t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and storage in _storages(t))
            self._following[self._fresh[storage]].append(following(func, args, kwargs, tensor))
        for storage in _storages((_written(func, args, kwargs), result)):
            if storage not in inputs or func._schema.is_mutable:
                self._fresh.pop(storage, None)

    def functions(self) -> dict[str, Following]:
        """By reader's parameter, the one function that reads its module's outputs."""
        found: dict[str, Following] = {}
        for parameter, functions in self._following.items():
            first = functions[0]
            if first is not None and all(f is not None and first.is_same(f) for f in functions):
                found[parameter] = first
        return found

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Hooks on all readers' modules, inside only."""
        with ExitStack() as stack:
            for index, reader in enumerate(self.readers):
                module = self.model.get_submodule(reader.module)
                before, after = self._hooks(index, reader.parameter)
                stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(after, prepend=True, always_call=True).remove)
            yield

    def _hooks(self, index: int, parameter: str) -> tuple[Any, Any]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.called.add(parameter)
            self._active.append(parameter)
            for storage in _storages((args, kwargs)):
                self._upstream[parameter] |= self._reached.get(storage, 0)

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._active.remove(parameter)
            for storage in _storages(output):
                self._reached[storage] = self._reached.get(storage, 0) | 1 << index
                self._fresh[storage] = parameter

        return before, after

    def upstream_names(self, readers: Sequence[Reader]) -> dict[str, frozenset[str]]:
        """Parameters of the readers that feed each of ``readers``."""
        return {
            reader.parameter: frozenset(
                other.parameter
                for index, other in enumerate(self.readers)
                if self._upstream[reader.parameter] >> index & 1
            )
            for reader in readers
        }


def _storages(values: Any) -> set[int]:
    """Storages of all (strided) tensors in nested containers."""
    return {storage_address(v) for v in tree_leaves(values) if isinstance(v, Tensor) and v.layout == torch.strided}


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that the operator's schema says it writes to."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    writes = {a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    return [value for name, value in given.items() if name in writes]

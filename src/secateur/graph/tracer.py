"""Run a model eagerly and follow every index: the tracer.

A :class:`torch.utils._python_dispatch.TorchDispatchMode` sees every ATen operator of an ordinary run, whatever Python
made it; the rule of each operator passes the labels on. A second mode (``sizes``) watches the sizes that the code reads
and gives. Nothing of either stays behind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.graph.attributes import paths_of_modules
from secateur.graph.by_tensor import ByTensor
from secateur.graph.components import ComponentMap
from secateur.graph.dispatch import EagerDispatchMode
from secateur.graph.entry_point import call_forward
from secateur.graph.labels import Factor, Factors, Facts, Labels
from secateur.graph.own_sizes import keeps_its_sizes
from secateur.graph.rules import Extents, OpCall, find_rule
from secateur.graph.rules.contraction import ATTENTION
from secateur.graph.rules.homogeneous import is_homogeneous
from secateur.graph.storage import named_tensors, overlapping_names, tied_names

# In-place operators that change the shape they are called on, and those of them that also change what is in it.
_RESHAPING = frozenset(f"aten.{name}_" for name in ("squeeze", "unsqueeze", "transpose", "t", "swapaxes"))
_RESIZING = frozenset(f"aten.{name}_" for name in ("resize", "resize_as", "set", "as_strided"))
_OWN_FOLDER = str(Path(__file__).parent)
_TORCH_FOLDER = str(Path(torch.__file__).parent)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What is known of one tensor.

    Attributes:
        factors: its labels.
        weight: whether it was made from parameters and buffers alone.
        made_in: bit set of the components whose code made it.
        mixed: bit set of the mixing operations (indices into ``Facts.mixed``) that it depends on.
        scales: whether it is scaled along when everything that makes its channels is scaled.
        positions: labels along which it holds positions, such as those of the largest.
        owner: name of the parameter or buffer that it is.
    """

    factors: Factors
    weight: bool = False
    made_in: int = 0
    mixed: int = 0
    scales: bool = False
    positions: Factors = ()
    owner: str | None = None


_UNKNOWN = State(())


@dataclass(frozen=True, slots=True, eq=False)
class AxisLabels:
    """The labels of one axis of one parameter or buffer."""

    parameter: str
    axis: int
    labels: Labels


WholeAt = Callable[[str], bool]
"""Whether whole blocks leave where the code, at this place, splits an axis into blocks."""

Step = tuple[str, str, tuple[torch.Size, ...]]
"""Of one operator: its name, where it ran, and the shapes of its outputs."""


@dataclass(slots=True)
class Trace:
    """Everything one run taught: raw material for the graph."""

    facts: Facts = field(default_factory=Facts)
    axes: list[AxisLabels] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)
    macs: list[tuple[int, Extents]] = field(default_factory=list)
    consumed: list[Labels] = field(default_factory=list)
    produced: list[Labels] = field(default_factory=list)
    derived: list[tuple[Labels, Labels]] = field(default_factory=list)
    """Labels that meet where a weight is made from weights: what consumes one consumes the other."""
    summed: list[Labels] = field(default_factory=list)
    """Labels summed over by anything but an attention's product of queries and keys."""
    counted: list[tuple[str, Labels]] = field(default_factory=list)
    """Attributes of torch's own modules, by dotted path, and the labels that they count."""
    flows: dict[tuple[int, int], None] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    missing_rules: dict[str, None] = field(default_factory=dict)
    mixed_in_use: int = 0
    """Bit set of the mixing operations whose results are used; attention weights are often computed and dropped."""
    aliases: dict[str, dict[str, None]] = field(default_factory=dict)
    """Paths of attributes, lists and dictionaries, to other paths that lead to the same ones."""
    followers: dict[str, str] = field(default_factory=dict)
    """Dotted paths of modules that aren't reached, to those of the modules whose channels they follow."""
    splits: dict[str, list[Labels]] = field(default_factory=dict)
    """Places where an axis is split into blocks that could leave whole, and what is split there."""
    whole: dict[str, None] = field(default_factory=dict)
    """Places where whole blocks leave, though indices inside them could."""
    dtypes: set[torch.dtype] = field(default_factory=set)
    """Floating-point types in which operators with labels gave their results."""
    steps: list[Step] = field(default_factory=list)
    """The operators with labels that ran: by these, two runs can be told apart."""


class Tracer(EagerDispatchMode):
    """Follows labels through every operator run while the mode is active."""

    def __init__(self, model: nn.Module, components: ComponentMap) -> None:
        super().__init__()
        self.trace = Trace()
        self.facts = self.trace.facts
        self.following = False
        """Whether labels are being followed; an error meanwhile is ours, not the model's."""
        self.is_over = False
        """Whether the run has ended: sizes that it has left somewhere count nothing any more."""
        self.flexible: frozenset[int] | None = None
        self.sized = False
        self.resizable = False
        self.expanding = False
        """Whether torch itself expands a tensor for another, whose size it follows."""
        self.whole_at: WholeAt = lambda site: False
        self._counted: dict[str, Labels] = {}
        self._components = components
        self._states: ByTensor[State] = ByTensor()
        self._paths = paths_of_modules(model)
        self._stack: list[nn.Module] = []
        self._label_parameters(model)

    # --- parameters -------------------------------------------------------------------------------------------------

    def _label_parameters(self, model: nn.Module) -> None:
        """Fresh labels for every axis of every parameter and buffer; those that share storage share labels."""
        everything = named_tensors(model)
        self.trace.tied = tied_names(everything)
        overlapping = overlapping_names(everything)
        states: dict[str, State] = {}
        for name, tensor in everything.items():
            first = self.trace.tied.get(name, name)
            if first == name:
                states[name] = self._label(name, tensor)
            self._states[tensor] = states[first]
            if name in overlapping:
                reason = f"shares a part of its memory, or all of it seen otherwise, with {overlapping[name]}"
                for factor in states[first].factors:
                    self.facts.fix(factor.labels, reason)

    def _label(self, name: str, tensor: torch.Tensor) -> State:
        factors = []
        for axis, size in enumerate(tensor.shape):
            labels = self.facts.fresh(size)
            self.trace.axes.append(AxisLabels(name, axis, labels))
            if tensor.layout != torch.strided:
                self.facts.fix(labels, "a sparse tensor, whose indices aren't followed; make it dense while pruning")
            if size > 1:
                factors.append(Factor((axis,), labels))
        made_in = 1 << (self._components.of(name) or 0)
        return State(tuple(factors), weight=True, made_in=made_in, scales=True, owner=name)

    # --- state ------------------------------------------------------------------------------------------------------

    def state(self, tensor: torch.Tensor) -> State:
        """What is known of a tensor; under ``torch.vmap``, as the code sees it, without the mapped dimension."""
        found = self._states.get(tensor)
        if found is not None:
            return found
        if not torch._C._functorch.is_batchedtensor(tensor):
            return _UNKNOWN
        stacked, mapped = torch._C._functorch.get_unwrapped(tensor), torch._C._functorch.maybe_get_bdim(tensor)
        found = self.state(stacked)
        return replace(found, factors=_without(found.factors, mapped), positions=_without(found.positions, mapped))

    def labels_of(self, tensor: torch.Tensor) -> Factors:
        """The labels of a tensor."""
        return self.state(tensor).factors

    def is_weight(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor was made from parameters and buffers alone."""
        return self.state(tensor).weight

    def scales(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is scaled along when everything that makes its channels is scaled."""
        return self.state(tensor).scales

    def set_labels(self, tensor: torch.Tensor, factors: Factors) -> None:
        """Replace the labels of a tensor."""
        if torch._C._functorch.is_batchedtensor(tensor):
            mapped = torch._C._functorch.maybe_get_bdim(tensor)
            to = [dim + (dim >= mapped) for dim in range(tensor.dim())]
            self.set_labels(torch._C._functorch.get_unwrapped(tensor), tuple(f.moved(to) for f in factors))
            return
        old = self.state(tensor)
        self._states[tensor] = replace(old, factors=factors)

    def mix(self, labels: Labels, reason: str, *, by_width: bool = False) -> None:
        """Note that something in use mixes these labels."""
        self.trace.mixed_in_use |= 1 << len(self.facts.mixed)
        self.facts.mix(labels, reason, by_width=by_width)

    def finish(self, outputs: Iterable[torch.Tensor]) -> None:
        """Pin the labels of the entry point's outputs, and note which mixing operations they depend on."""
        for tensor in outputs:
            self.trace.mixed_in_use |= self.state(tensor).mixed
            self._use_positions(self.state(tensor), "output of the entry point")
            for factor in self.labels_of(tensor):
                self.facts.fix(factor.labels, "output of the entry point")

    def _use_positions(self, state: State, site: str) -> None:
        """Pin what a tensor holds positions of, now that they are used."""
        for factor in state.positions:
            self.facts.fix(factor.labels, f"positions among these channels are used ({site})")

    def count_by(self, attribute: str, labels: Labels) -> None:
        """Note that an attribute of the running module counts these labels."""
        self.trace.counted.append((f"{self.module_path}.{attribute}".lstrip("."), labels))

    @contextmanager
    def counting(self) -> Iterator[dict[str, Labels]]:
        """What the operators run meanwhile count by an argument, by the argument's name."""
        self._counted = {}
        yield self._counted

    @property
    def running(self) -> Sequence[nn.Module]:
        """The modules whose forwards are running, the innermost last."""
        return self._stack

    @property
    def module(self) -> nn.Module | None:
        """The innermost module whose forward is running."""
        return self._stack[-1] if self._stack else None

    @property
    def module_path(self) -> str:
        """Dotted path of the innermost module that is part of the model."""
        return next((self._paths[id(m)] for m in reversed(self._stack) if id(m) in self._paths), "")

    @property
    def in_own_sizes(self) -> bool:
        """Whether code is running whose integers surgery keeps true: torch.nn's own, or a registered module's."""
        module = self.module
        return module is not None and id(module) in self._paths and keeps_its_sizes(module)

    # --- operators --------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = _operator(func)
        if operator.is_prim:
            # Of a fake tensor, that it has a device is told as an operator.
            return func(*args, **kwargs)
        given = _flat_tensors((*args, *kwargs.values()))
        reason = _why_unfollowed(given)
        if reason is not None:
            result = func(*args, **kwargs)
            self._leave_alone(given, operator.name, reason)
            return result
        if operator.is_composite:
            # Under inference mode the dispatcher hands composite operators over whole.
            with self:
                return func.decompose(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            args_before = self._before_reshape(operator, args)
            result = self.execute(func, args, kwargs)
            outputs = _flat_tensors((result,))
            self.following = True
            reason = _why_unfollowed(outputs)
            call = None if reason is not None else self._call(operator, args_before, kwargs, outputs)
            if reason is not None:
                self._leave_alone(given, operator.name, reason)
            elif call is not None:
                result = self._follow(call, operator, func, args, kwargs, result)
                self.trace.dtypes.update([t.dtype for t in call.outputs if t.is_floating_point()])
                self.trace.steps.append((call.name, sys.intern(call.where), tuple([t.shape for t in call.outputs])))
            self.following = False
        return result

    def _leave_alone(self, tensors: list[torch.Tensor], operator: str, reason: str) -> None:
        """Whatever goes into an operator that isn't followed must stay."""
        for tensor in tensors:
            self.trace.mixed_in_use |= self.state(tensor).mixed
            self._use_positions(self.state(tensor), f"{operator} in {self.where()}")
            for factor in self.labels_of(tensor):
                self.facts.fix(factor.labels, f"{reason} ({operator} in {self.where()})")

    def _before_reshape(self, operator: _Operator, args: Any) -> Any:
        """The arguments; of an in-place reshape, with the tensor's old shape, which is gone once it has run."""
        if operator.name not in _RESHAPING:
            return args
        before = args[0].detach()
        self._states[before] = self.state(args[0])
        return (before, *args[1:])

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator itself."""
        return func(*args, **kwargs)

    def _call(self, operator: _Operator, args: Any, kwargs: Any, outputs: list[torch.Tensor]) -> OpCall | None:
        """The call as rules see it; None if nothing that goes in carries labels."""
        arguments = {**operator.defaults, **dict(zip(operator.arguments, args, strict=False)), **kwargs}
        call = OpCall(
            name=operator.name,
            arguments=arguments,
            outputs=tuple(outputs),
            labels_of=self.labels_of,
            is_weight=self.is_weight,
            scales=self.scales,
            facts=self.facts,
            where="",
            flexible=self.flexible,
            sized=self.sized,
            resizable=self.resizable or self.in_own_sizes,
        )
        known = self._known(call)
        self.trace.reached.update([state.owner for state in known if state.owner is not None])
        if not call.outputs:
            # The code reads a value (``item()``): what it depends on is in use.
            for state in known:
                self.trace.mixed_in_use |= state.mixed
                self._use_positions(state, f"{call.name} in {self.where()}")
            return None
        follows = self.resizable or self.flexible or (self.expanding and call.name == "aten.expand")
        if not follows and all(state is _UNKNOWN for state in known):
            return None
        call.where = self.where()
        return call

    def _follow(self, call: OpCall, operator: _Operator, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Apply the call's rule; what it says becomes the outputs' state."""
        mutated = {id(call.arguments.get(name)) for name in operator.written} if operator.written else frozenset()
        rule = None if call.name in _RESIZING else find_rule(call.name)
        mixed_before, equal_before = len(self.facts.mixed), len(self.facts.equal)
        if rule is None:
            self._unknown(call)
            outputs: list[Factors] = [() for _ in call.outputs]
        else:
            outputs = list(rule(call))
            result = self.adjust(call, func, args, kwargs, result)
            call.outputs = tuple(_flat_tensors((result,)))
        known = self._known(call)
        component = self._component_of(call, known)
        weight, made_in = self._provenance(call, known, component)
        self._record(call, component)
        if weight:
            self.trace.derived.extend(self.facts.equal[equal_before:])
        else:
            self.trace.produced.extend(call.produced)
        mixed = (1 << len(self.facts.mixed)) - (1 << mixed_before)
        for state in known:
            mixed |= state.mixed
            self._use_positions(state, call.site)
        if mutated:
            # What is written through a view reaches its base, unseen from here.
            self.trace.mixed_in_use |= mixed
        scales = is_homogeneous(call, self.scales)
        for output, (tensor, factors) in enumerate(zip(call.outputs, outputs, strict=True)):
            positions = call.positions.get(output, ())
            if id(tensor) in mutated:
                old = self.state(tensor)
                kept = () if rule is None else old.factors
                weight_now, made_now = old.weight and weight, old.made_in | made_in
                self._states[tensor] = State(kept, weight_now, made_now, mixed, scales, positions, old.owner)
            else:
                _check(call, tensor, factors)
                self._states[tensor] = State(factors, weight, made_in, mixed, scales, positions)
        return result

    def adjust(self, call: OpCall, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """The result to go on with, once the call's rule is known; a subclass may compute another."""
        return result

    def _unknown(self, call: OpCall) -> None:
        """An operator without a rule: whatever goes in must stay."""
        self.trace.missing_rules[call.name] = None
        for tensor in call.tensors():
            for factor in self.labels_of(tensor):
                self.facts.fix(factor.labels, f"no rule for {call.name} in {call.where}")

    def _record(self, call: OpCall, component: int | None) -> None:
        self.trace.macs.extend((component or 0, extents) for extents in call.macs)
        self.trace.consumed.extend(call.consumed)
        if call.name.removeprefix("aten.") not in ATTENTION:
            self.trace.summed.extend(mask.factor.labels for mask in call.masked)
        self._counted.update(call.counted)
        if call.counted and self.in_own_sizes:
            for name, labels in call.counted.items():
                self.count_by(name, labels)

    def _known(self, call: OpCall) -> list[State]:
        """What is known of each tensor that goes in."""
        return [self.state(tensor) for tensor in call.tensors()]

    def _component_of(self, call: OpCall, known: list[State]) -> int | None:
        """The component of the parameter used (a weight before a bias), else of the code that runs; None for glue."""
        weights = [(t.dim(), s.made_in) for t, s in zip(call.tensors(), known, strict=True) if s.weight and s.made_in]
        if weights:
            return max(weights, key=itemgetter(0))[1].bit_length() - 1
        for module in reversed(self._stack):
            path = self._paths.get(id(module))
            if path:
                return self._components.of(path)
        return None

    def _provenance(self, call: OpCall, known: list[State], component: int | None) -> tuple[bool, int]:
        # A product of weights is a weight (of low rank); a layer applied to a parameter makes activations.
        layer = call.macs and len(known) > 2
        weight = not layer and all(s.weight or t.dim() == 0 for t, s in zip(call.tensors(), known, strict=True))
        sources = 0
        for state in known:
            if not state.weight:
                sources |= state.made_in
        if component is None:
            return weight, sources
        for source in _bits(sources & ~(1 << component)):
            self.trace.flows[(source, component)] = None
        return weight, 1 << component

    def where(self) -> str:
        """Module path and source line of the user's code that is running, as far as there are any."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and _users_file(frame.f_code.co_filename) is None:
            # Below the call of the model's forward there is only what called Secateur.
            frame = frame.f_back if frame.f_code is not call_forward.__code__ else None
        path = self.module_path
        if frame is None:
            return path or "the entry point"
        place = f"{_users_file(frame.f_code.co_filename)}:{frame.f_lineno}"
        return f"{path} at {place}" if path else place

    # --- running ----------------------------------------------------------------------------------------------------

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Know which module's forward is running, while the context lasts."""

        def enter(module: nn.Module, args: Any) -> None:
            self._stack.append(module)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            while self._stack and self._stack.pop() is not module:
                # A forward that raised and was caught left its modules behind.
                continue

        with ExitStack() as stack:
            for register, hook in (
                (nn.modules.module.register_module_forward_pre_hook, enter),
                (nn.modules.module.register_module_forward_hook, leave),
            ):
                stack.callback(register(hook).remove)
            yield


@cache
def _users_file(path: str) -> str | None:
    """A file's name; None if its code is not the user's: ours, torch's, or that of einops, which only calls torch."""
    file = Path(path)
    return None if path.startswith((_OWN_FOLDER, _TORCH_FOLDER)) or file.parent.name == "einops" else file.name


@contextmanager
def plain_kernels() -> Iterator[None]:
    """No gradients, and none of the paths that hide structure: cuDNN, fast attention, compiled code."""
    cudnn = torch.backends.cudnn.enabled
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # Only what has been compiled can run so; asking otherwise imports the compiler, which takes seconds.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with torch.no_grad(), eager:
        torch.backends.cudnn.enabled = False
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.cudnn.enabled = cudnn
            torch.backends.mha.set_fastpath_enabled(fastpath)


@contextmanager
def without_mkldnn() -> Iterator[None]:
    """No mkldnn, to which a recurrent layer is a single operator; convolutions are transparent, and faster, with it."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


@dataclass(frozen=True, slots=True, eq=False)
class _Operator:
    """What is always the same of an operator: looking it up anew at every call takes longer than the call.

    Attributes:
        name: without its overload.
        arguments: names of all arguments.
        defaults: values of those that have one.
        written: names of those that it writes to without changing their shape.
        is_prim: whether it is one of the interpreter's own, not an operator on tensors.
        is_composite: whether it is composed of others.
    """

    name: str
    arguments: tuple[str, ...]
    defaults: dict[str, Any]
    written: tuple[str, ...]
    is_prim: bool
    is_composite: bool


@cache
def _operator(func: Any) -> _Operator:
    name, arguments = str(func.overloadpacket), func._schema.arguments
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    is_prim = func.namespace == "prim"
    key = "CompositeImplicitAutograd"
    return _Operator(
        name=name,
        arguments=tuple(a.name for a in arguments),
        defaults={a.name: a.default_value for a in arguments if a.has_default_value()},
        written=() if name in _RESHAPING else tuple(written),
        is_prim=is_prim,
        is_composite=not is_prim and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key),
    )


def _flat_tensors(items: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among items, and in tuples and lists among them."""
    found: list[torch.Tensor] = []
    for item in items:
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, (tuple, list)) and item and type(item[0]) is not int:
            found.extend(_flat_tensors(item))
    return found


def _why_unfollowed(tensors: list[torch.Tensor]) -> str | None:
    """Why the indices of one of these tensors aren't followed, if there is one that isn't plain."""
    for tensor in tensors:
        if tensor.is_nested:
            return "a nested tensor, whose indices aren't followed; pad it while pruning"
        if hasattr(type(tensor), "__tensor_flatten__"):
            return f"a tensor of class {type(tensor).__name__}, whose indices aren't followed; trace with plain tensors"
    return None


def _without(factors: Factors, dim: int) -> Factors:
    """Labels of one element of a dimension, whose rows, if there are any, keep equally many."""
    result = []
    for factor in factors:
        if factor.free == dim:
            continue
        if dim in factor.dims:
            axis = factor.dims.index(dim)
            factor = Factor(factor.dims[:axis] + factor.dims[axis + 1 :], np.take(factor.labels, 0, axis=axis))
        result.append(factor.moved({d: d - (d > dim) for d in factor.dims}))
    return tuple(result)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def _check(call: OpCall, tensor: torch.Tensor, factors: Factors) -> None:
    """A rule's claim must fit the output; anything else is a bug in the rule."""
    sizes = tensor.shape
    for factor in factors:
        shape = tuple([sizes[d] if d < len(sizes) else -1 for d in factor.dims])
        if shape != factor.labels.shape:
            raise AssertionError(
                f"rule of {call.name} gave labels {factor.labels.shape} on dims {factor.dims} of {tuple(tensor.shape)}"
            )

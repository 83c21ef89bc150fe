"""Run a model eagerly and follow every index: the tracer.

A :class:`torch.utils._python_dispatch.TorchDispatchMode` sees every ATen operator of an ordinary run, whatever Python
made it; the rule of each operator passes the labels on. A second mode (``sizes``) watches the sizes that the code reads
and gives. Nothing of either stays behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import _get_current_dispatch_mode

from secateur.errors import TraceError
from secateur.graph.by_tensor import ByTensor
from secateur.graph.components import ComponentMap
from secateur.graph.dispatch import EagerDispatchMode
from secateur.graph.labels import Factor, Factors, Labels
from secateur.graph.operators import Operator, flat_tensors, is_plain, operator_of, plain_code_of, why_unfollowed
from secateur.graph.record import AxisLabels, Trace
from secateur.graph.rules import OpCall, find_rule
from secateur.graph.rules.base import WHOLE
from secateur.graph.rules.contraction import ATTENTION
from secateur.graph.rules.homogeneous import is_homogeneous
from secateur.graph.running import RunningModules
from secateur.graph.storage import named_tensors, overlapping_names, plain_tensors, tied_names

# In-place operators that change both the shape they are called on and what is in it.
_RESIZING = frozenset(f"aten.{name}_" for name in ("resize", "resize_as", "set"))


@dataclass(slots=True, eq=False)  # not frozen, which takes three times as long to make
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


WholeAt = Callable[[str], bool]
"""Whether whole blocks leave where the code, at this place, splits an axis into blocks."""


class Tracer(EagerDispatchMode):
    """Follows labels through every operator run while the mode is active."""

    supports_higher_order_operators = True

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
        self._modules = RunningModules(model, components)
        self._label_parameters(model)
        self._plain = plain_tensors(model)

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

    def _label_plain(self, tensor: torch.Tensor) -> State:
        """Labels, which all stay, for a tensor that is neither parameter nor buffer: what meets them says why."""
        path, name, _ = self._plain[id(tensor)]
        reason = (
            f"meets {f'{path}.{name}'.lstrip('.')}, a tensor that is neither parameter nor buffer, which stays as it "
            f"is; self.register_buffer({name!r}, ...) would follow"
        )
        factors = []
        for axis, size in enumerate(tensor.shape):
            if size > 1:
                factors.append(Factor((axis,), self.facts.fresh(size)))
                self.facts.fix(factors[-1].labels, reason)
        self._states[tensor] = state = State(tuple(factors))
        return state

    # --- state ------------------------------------------------------------------------------------------------------

    def state(self, tensor: torch.Tensor) -> State:
        """What is known of a tensor; under ``torch.vmap``, as the code sees it, without the mapped dimension."""
        found = self._states.get(tensor)
        if found is not None:
            return found
        if not torch._C._functorch.is_batchedtensor(tensor):
            return self._label_plain(tensor) if id(tensor) in self._plain else _UNKNOWN
        stacked, mapped = torch._C._functorch.get_unwrapped(tensor), torch._C._functorch.maybe_get_bdim(tensor)
        found = self.state(stacked)
        return replace(found, factors=_without(found.factors, mapped), positions=_without(found.positions, mapped))

    def labels_of(self, tensor: torch.Tensor) -> Factors:
        """The labels of a tensor."""
        found = self._states.get(tensor)
        return self.state(tensor).factors if found is None else found.factors

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

    def holds(self, name: str, tensor: torch.Tensor | None) -> bool:
        """Whether a tensor is the running module's own parameter or buffer of this name, which surgery shrinks."""
        if tensor is None:
            return False
        full = f"{self.module_path}.{name}".lstrip(".")
        return self.state(tensor).owner == self.trace.tied.get(full, full)

    @contextmanager
    def counting(self) -> Iterator[dict[str, Labels]]:
        """What the operators run meanwhile count by an argument, by the argument's name."""
        self._counted = {}
        yield self._counted

    @property
    def module_path(self) -> str:
        """Dotted path of the innermost module that is part of the model and whose forward is running."""
        return self._modules.innermost.path

    @property
    def in_own_sizes(self) -> bool:
        """Whether code is running whose integers surgery keeps true: torch.nn's own, or a registered module's."""
        return self._modules.innermost.keeps_its_sizes

    def where(self) -> str:
        """Module path and source line of the user's code that is running, as far as there are any."""
        return self._modules.where()

    @contextmanager
    def watching_modules(self) -> Iterator[None]:
        """Know which module's forward is running, while the context lasts."""
        with self._modules.watched():
            yield

    # --- operators --------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = operator_of(func)
        if operator.is_prim:
            # Of a fake tensor, that it has a device is told as an operator.
            return func(*args, **kwargs)
        given = flat_tensors((*args, *kwargs.values()) if kwargs else args)
        reason = why_unfollowed(given)
        if reason is not None:
            result = func(*args, **kwargs)
            self._leave_alone(given, operator.name, reason)
            return result
        if operator.is_composite and operator.name not in WHOLE:
            # Under inference mode the dispatcher hands composite operators over whole.
            parts = func.decompose if isinstance(func, OpOverload) else self._higher_order(func, given)
            with self:
                return parts(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if operator.reshapes:
                args = (self._before_reshape(args[0]), *args[1:])
                result = self.execute(func, (given[0], *args[1:]), kwargs)
                given = [args[0], *given[1:]]
            else:
                result = self.execute(func, args, kwargs)
            self.following = True
            result = self._understand(operator, func, args, kwargs, given, result)
            self.following = False
        return result

    def _higher_order(self, func: HigherOrderOperator, given: list[torch.Tensor]) -> Callable[..., Any]:
        """What runs an operator that is given functions, every operator seen; what goes in stays.

        Torch calls these functions where no sizes are watched: what they say of them would go unheard.

        Raises:
            TraceError: torch has no code for it in which operators could be seen.
        """
        name, code = func.name(), plain_code_of(func)
        if code is None:
            raise TraceError(
                f"{name} in {self.where()} can't be followed: torch runs it as one, with the functions that it is "
                "given; let the model do the same by ordinary tensor operations while it is pruned"
            )
        remedy = "use scaled_dot_product_attention" if name == "flex_attention" else "use ordinary tensor operations"
        self._leave_alone(given, name, f"given to an operator that is given functions, too; {remedy} while pruning")
        return code

    def runs_whole(self, arguments: Iterable[Any]) -> bool:
        """Whether an operator that torch composes of others can be run as one: by its own rule, in fewer steps.

        Its parts must be seen where gradients are taken, under ``torch.vmap``, and of tensors of other classes.
        """
        followed = _get_current_dispatch_mode() is self and not torch.is_grad_enabled()
        return followed and torch._C._functorch.peek_interpreter_stack() is None and is_plain(arguments)

    def run_whole(self, func: Any, *args: Any) -> Any:
        """Run such an operator as one."""
        with torch._C._DisableTorchDispatch():
            return self.__torch_dispatch__(func, (), args)

    def _understand(
        self, operator: Operator, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor], result: Any
    ) -> Any:
        """Follow an operator that has run; the result to go on with."""
        outputs = flat_tensors((result,))
        reason = why_unfollowed(outputs)
        if reason is not None:
            self._leave_alone(given, operator.name, reason)
            return result
        known = [self.state(tensor) for tensor in given]
        self.trace.reached.update([state.owner for state in known if state.owner is not None])
        if not outputs:
            # The code reads a value (``item()``): what it depends on is in use.
            for state in known:
                self.trace.mixed_in_use |= state.mixed
                self._use_positions(state, f"{operator.name} in {self.where()}")
            return result
        follows = self.resizable or self.flexible or (self.expanding and operator.name == "aten.expand")
        if not follows and all(state is _UNKNOWN for state in known):
            return result
        call = OpCall(
            name=operator.name,
            arguments=operator.named(args, kwargs),
            outputs=tuple(outputs),
            labels_of=self.labels_of,
            is_weight=self.is_weight,
            scales=self.scales,
            facts=self.facts,
            where=self._modules.where(),
            flexible=self.flexible,
            sized=self.sized,
            resizable=self.resizable or self.in_own_sizes,
            given=tuple(given),
        )
        result = self._follow(call, operator, func, args, kwargs, known, result)
        self.trace.dtypes.update([t.dtype for t in call.outputs if t.is_floating_point()])
        self.trace.steps.append((call.name, call.where, tuple([t.shape for t in call.outputs])))
        return result

    def _leave_alone(self, tensors: list[torch.Tensor], operator: str, reason: str) -> None:
        """Whatever goes into an operator that isn't followed must stay."""
        for tensor in tensors:
            self.trace.mixed_in_use |= self.state(tensor).mixed
            self._use_positions(self.state(tensor), f"{operator} in {self.where()}")
            for factor in self.labels_of(tensor):
                self.facts.fix(factor.labels, f"{reason} ({operator} in {self.where()})")

    def _before_reshape(self, tensor: torch.Tensor) -> torch.Tensor:
        """What an in-place reshape is called on, as it is before: its old shape is gone once that has run."""
        before = tensor.detach()
        self._states[before] = self.state(tensor)
        return before

    def execute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run the operator itself."""
        return func(*args, **kwargs)

    def _follow(
        self, call: OpCall, operator: Operator, func: Any, args: Any, kwargs: Any, known: list[State], result: Any
    ) -> Any:
        """Apply the call's rule; what it says becomes the outputs' state."""
        mutated = {id(call.arguments.get(name)) for name in operator.written} if operator.written else frozenset()
        rule = None if call.name in _RESIZING else find_rule(call.name)
        mixed_before, equal_before = len(self.facts.mixed), len(self.facts.equal)
        if rule is None:
            self._unknown(call)
            outputs: list[Factors] = [() for _ in call.outputs]
        else:
            outputs = list(rule(call))
            adjusted = self.adjust(call, func, args, kwargs, result)
            if adjusted is not result:
                result = adjusted
                call.outputs = tuple(flat_tensors((result,)))
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
            if state.positions:
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
        self.trace.macs.extend([(component or 0, extents) for extents in call.macs])
        self.trace.consumed.extend(call.consumed)
        if call.masked and call.name.removeprefix("aten.") not in ATTENTION:
            self.trace.summed.extend([mask.factor.labels for mask in call.masked])
        if call.counted:
            self._counted.update(call.counted)
            if self.in_own_sizes:
                for name, labels in call.counted.items():
                    self.count_by(name, labels)

    def _component_of(self, call: OpCall, known: list[State]) -> int | None:
        """The component of the parameter used (a weight before a bias), else of the code that runs; None for glue."""
        made_in, most = 0, -1
        for tensor, state in zip(call.tensors(), known, strict=True):
            if state.weight and state.made_in and tensor.dim() > most:
                made_in, most = state.made_in, tensor.dim()
        return made_in.bit_length() - 1 if made_in else self._modules.innermost.component

    def _provenance(self, call: OpCall, known: list[State], component: int | None) -> tuple[bool, int]:
        # A product of weights is a weight (of low rank); a layer applied to a parameter makes activations.
        weight = not (call.macs and len(known) > 2)
        sources = 0
        for tensor, state in zip(call.tensors(), known, strict=True):
            if not state.weight:
                sources |= state.made_in
                weight = weight and tensor.dim() == 0
        if component is None:
            return weight, sources
        others = sources & ~(1 << component)
        if others:
            self.trace.flows.update(dict.fromkeys((source, component) for source in _bits(others)))
        return weight, 1 << component


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

"""``trace``: run the user's entry point once and read the dependency graph off it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from secateur.errors import SecateurError, SecateurWarning, TraceError
from secateur.graph.attributes import attributes_kept
from secateur.graph.build import build_graph
from secateur.graph.collector import collector_paused
from secateur.graph.components import ComponentPart, ComponentSpec, component_map, listed, paths_of
from secateur.graph.entry_point import EntryPoint, as_entry_point, tensors_in
from secateur.graph.graph import DependencyGraph
from secateur.graph.randomness import same_randomness
from secateur.graph.sizes import SizeMode
from secateur.graph.solve import solve
from secateur.graph.tracer import Trace, Tracer, plain_kernels


def trace(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    run: EntryPoint | None = None,
    components: Mapping[str, ComponentSpec] | None = None,
    protect: ComponentPart | Iterable[ComponentPart] = (),
) -> DependencyGraph:
    """Find which channels of which parameters must leave together, by running the model once.

    The run is an ordinary eager one without gradients: any Python, any method of the model, any number of calls. The
    model is not changed: buffers that the run itself changes (a batch norm in training mode) are put back afterwards,
    and so are the global random states.

    Args:
        model: the model, in the mode (``eval()``, usually) in which it will be used.
        example_inputs: a tensor, a tuple (positional) or a mapping (keywords) of inputs for ``model(...)``.
        run: instead, a function that takes the model, exercises it, and returns the outputs whose sizes are kept.
        components: name to module, dotted name, or a list of these; by default each direct child with parameters.
        protect: a module, a parameter, the dotted name of either, or several of these, whose output axes stay whole.

    Returns:
        The dependency graph; ``print`` shows components, groups, interfaces and what can't be pruned.

    Raises:
        TraceError: no parameters, an entry point that fails, a name that matches nothing.

    Time is about that of one forward pass plus a part linear in the number of operators and channels.
    """
    entry_point = as_entry_point(example_inputs, run)
    _check_model(model)
    owners = component_map(model, components)
    protected = [path for item in listed(protect, "protect") for path in paths_of(model, item, "protect")]
    tracer = Tracer(model, owners)
    with same_randomness():
        outputs = run_traced(model, entry_point, tracer)
    if next(tensors_in(outputs), None) is None:
        warnings.warn(
            "the entry point returns no tensors, so that no output keeps its size: return what must stay",
            SecateurWarning,
            stacklevel=2,
        )
    pin_unreached(tracer.trace)
    _pin_protected(tracer.trace, protected)
    with collector_paused():
        return build_graph(model, tracer.trace, solve(tracer.trace), owners, entry_point)


def run_traced(model: nn.Module, entry_point: EntryPoint, tracer: Tracer) -> Any:
    """Run the entry point under ``tracer``, pin its outputs, and leave the model and torch as they were.

    Raises:
        TraceError: the entry point raised; the model's own error is the cause.
    """
    with _left_alone(model), _without_autocast_cache(), plain_kernels(), tracer.watching_modules():
        try:
            with tracer, SizeMode(tracer):
                outputs = entry_point(model)
        except SecateurError:
            raise
        except Exception as error:  # whatever the user's code raises is reported as the user's
            if tracer.following:
                raise
            raise TraceError(
                f"the entry point failed while {type(model).__name__} was traced: {type(error).__name__}: {error}. "
                "Check that example_inputs (or run=) work with model(...) outside Secateur"
            ) from error
    tracer.finish(tensors_in(outputs))
    return outputs


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """Put back what modules hold: attributes, the lists and mappings among them, and the values of buffers.

    So hidden state that the model keeps between calls is the same before every run, and nothing of a run stays behind.
    """
    values = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        with attributes_kept(model):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in values:
                buffer.copy_(value)


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Under autocast, cast parameters when they are used: a cast from before the run would hide where it came from."""
    enabled = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TraceError(f"expected a torch.nn.Module, not {type(model).__name__}")
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            what = path or "the model"
            raise TraceError(f"{what} is a scripted module, whose operators can't be seen; pass the original")
    if next(model.parameters(), None) is None:
        raise TraceError(f"{type(model).__name__} has no parameters: there is nothing to prune")
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise TraceError(
                f"parameter {name!r} has no shape yet; run the model once, so that lazy modules get theirs"
            )


def pin_unreached(trace: Trace) -> None:
    """Parameters that the entry point never uses: nothing is known of them."""
    for axis in trace.axes:
        if axis.parameter not in trace.reached:
            trace.facts.fix(axis.labels, "not reached by the entry point")
        elif len(axis.labels) == 1:
            trace.facts.fix(axis.labels, "an axis of length one")


def _pin_protected(trace: Trace, protected: list[str]) -> None:
    """Pin the output axes, those that are never summed over, of everything under these paths."""
    consumed = np.zeros(trace.facts.size, dtype=bool)
    for labels in trace.consumed:
        consumed[labels[labels >= 0]] = True
    for path in protected:
        for axis in trace.axes:
            inside = axis.parameter == path or axis.parameter.startswith(f"{path}.") or not path
            if inside and not consumed[axis.labels].any():
                trace.facts.fix(axis.labels, f"protected: {path or 'the whole model'}")

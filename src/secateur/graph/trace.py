"""``trace``: run the user's entry point once and read the dependency graph off it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.errors import SecateurError, TraceError, warn
from secateur.graph.attribute_sizes import traced_attributes
from secateur.graph.attributes import attributes_kept
from secateur.graph.build import build_graph
from secateur.graph.collector import collector_paused, collector_relaxed
from secateur.graph.components import ComponentMap, ComponentPart, ComponentSpec, component_map, listed, paths_of
from secateur.graph.einops_cache import einops_sizes_followed
from secateur.graph.entry_point import EntryPoint, as_entry_point, inputs_of, tensors_in
from secateur.graph.granularity import (
    Granularity,
    better_whole,
    chosen_granularity,
    is_better,
    whole_where_chosen,
)
from secateur.graph.graph import DependencyGraph
from secateur.graph.kernels import plain_kernels
from secateur.graph.operators import is_plain
from secateur.graph.outsiders import warning_of_outsiders
from secateur.graph.randomness import same_randomness
from secateur.graph.record import Trace
from secateur.graph.refusals import check_model
from secateur.graph.run_failure import advice
from secateur.graph.sharing import warn_of_sharing
from secateur.graph.sizes import SizeMode
from secateur.graph.solution import Solution
from secateur.graph.solve import solve
from secateur.graph.storage import named_buffers, named_tensors
from secateur.graph.structure import structure_unchanged, warning_of_changed_parameters
from secateur.graph.tracer import Tracer, WholeAt
from secateur.graph.unreached import Unreached, settle_unreached


def trace(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    run: EntryPoint | None = None,
    components: Mapping[str, ComponentSpec] | None = None,
    protect: ComponentPart | Iterable[ComponentPart] = (),
    granularity: Granularity | Mapping[str, Granularity] = "auto",
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
        protect: whose output axes stay whole: a module, a parameter, the dotted name of either, a pattern of such names
            (``"layers.*.norm"``; ``*`` stands for any characters, dots among them), a class of modules
            (``nn.LayerNorm``), or several of these.
        granularity: what leaves of an axis that the code splits into blocks, such as attention heads: ``"width"``,
            equally many indices of every block; ``"heads"``, whole blocks; ``"auto"``, indices where they can leave
            and removing them equals zeroing them, else whole blocks. One for all, or a mapping from patterns of module
            names. A place where only one of them is possible (the code gives a number) has no choice. For both, prune
            by one and the result by the other.

    Returns:
        The dependency graph; ``print`` shows components, groups, interfaces and what can't be pruned.

    Raises:
        TraceError: no parameters, an entry point that fails, a name that matches nothing, an unknown granularity.

    Warns:
        SecateurWarning: the outputs hold no tensor, the run uses modules that are no part of the model or changes its
            parameters, other models share parts of it, or parts that the run doesn't reach can't follow the others.

    Time is about that of one forward pass plus a part linear in the number of operators and channels; of two, where
    whole blocks are tried.

    Every layer norm, and the output axes of all modules called ``head``, stay whole::

        graph = secateur.trace(model, x, protect=[nn.LayerNorm, "*.head"])
    """
    entry_point = as_entry_point(example_inputs, run)
    check_model(model)
    warn_of_sharing(model)
    owners = component_map(model, components)
    protected = _protected(model, protect)
    chosen = chosen_granularity(granularity, (path for path, _ in model.named_modules()))
    run_again = partial(_analysed, model, entry_point, owners, protected)
    with warning_of_outsiders(model), warning_of_changed_parameters(model):
        found = run_again(whole_where_chosen(chosen))
    if found.returns_nothing:
        warn("the entry point returns no tensors, so that no output keeps its size: return what must stay")
    sites = better_whole(found.trace, found.solution, chosen)
    if sites:
        whole = run_again(whole_where_chosen(chosen, sites))
        found = whole if is_better(whole.graph, found.graph) else found
    warning = found.unreached.warning(found.graph, protected)
    if warning:
        warn(warning)
    return found.graph


@dataclass(frozen=True, eq=False)
class _Analysis:
    """One traced run, and what it taught."""

    trace: Trace
    solution: Solution
    graph: DependencyGraph
    unreached: Unreached
    returns_nothing: bool


def _analysed(
    model: nn.Module, entry_point: EntryPoint, owners: ComponentMap, protected: list[str], whole_at: WholeAt
) -> _Analysis:
    tracer = Tracer(model, owners)
    tracer.whole_at = whole_at
    with same_randomness():
        outputs = run_traced(model, entry_point, tracer)
    unreached = settle_unreached(model, tracer.trace)
    _pin_protected(tracer.trace, protected)
    with collector_paused():
        solution = solve(tracer.trace)
        graph = build_graph(model, tracer.trace, solution, owners, entry_point)
    return _Analysis(tracer.trace, solution, graph, unreached, next(tensors_in(outputs), None) is None)


def run_traced(model: nn.Module, entry_point: EntryPoint, tracer: Tracer) -> Any:
    """Run the entry point under ``tracer``, pin its outputs, and leave the model and torch as they were.

    Raises:
        TraceError: the entry point raised (the model's own error is the cause), gave nothing that has run, or changes
            the model's submodules or parameters.
    """
    with (
        collector_relaxed(),
        _left_alone(model, inputs_of(entry_point)),
        structure_unchanged(model),
        _without_autocast_cache(),
        plain_kernels(),
        einops_sizes_followed(),
        tracer.watching_modules(),
    ):
        try:
            with traced_attributes(model, tracer), tracer, SizeMode(tracer):
                outputs = entry_point(model)
        except SecateurError:
            raise
        except Exception as error:  # whatever the user's code raises is reported as the user's
            if tracer.following:
                raise
            raise TraceError(
                f"the entry point failed while {type(model).__name__} was traced: {type(error).__name__}: {error}. "
                f"{advice(model, entry_point, error)}"
            ) from error
    _check_has_run(outputs)
    tracer.finish(tensors_in(outputs))
    return outputs


@contextmanager
def _left_alone(model: nn.Module, inputs: list[torch.Tensor]) -> Iterator[None]:
    """Put back what modules hold (attributes, the lists and mappings among them), and the values of buffers and inputs.

    So hidden state that the model keeps between calls is the same before every run, and nothing of a run stays behind.
    """
    tensors = {id(tensor): tensor for tensor in (*named_buffers(model).values(), *inputs)}
    values = [(tensor, tensor.detach().clone(), _version(tensor)) for tensor in tensors.values()]
    try:
        with attributes_kept(model):
            yield
    finally:
        for tensor, value, version in values:
            # One that was not written to may be one that can't be: an expanded tensor, say.
            if _is_written(tensor, value, version):
                with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                    tensor.copy_(value)


def _version(tensor: torch.Tensor) -> int | None:
    """How often a tensor was written to, but for what goes by its ``data``; None where torch doesn't count."""
    return None if tensor.is_inference() or torch.is_inference_mode_enabled() else tensor._version


def _is_written(tensor: torch.Tensor, value: torch.Tensor, version: int | None) -> bool:
    """Whether a tensor was written to since it had this value and version."""
    if version != _version(tensor):
        return True
    # Whose values can't be compared are those without any, and of other kinds: fake, sparse, quantised.
    comparable = is_plain([tensor]) and tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)
    return comparable and not torch.equal(tensor, value)


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


def _check_has_run(outputs: Any) -> None:
    """A generator or coroutine does nothing until somebody reads it."""
    if isinstance(outputs, (Iterator, AsyncIterator, Awaitable)):
        close = getattr(outputs, "close", None)
        if close is not None:
            close()  # a coroutine that is dropped unread warns
        raise TraceError(
            f"the entry point returns a {type(outputs).__name__}, which runs only when it is read; return what it "
            "gives, such as run=lambda model: list(model(x))"
        )


def _protected(model: nn.Module, protect: ComponentPart | Iterable[ComponentPart]) -> list[str]:
    """The dotted paths of what the user protects.

    Raises:
        TraceError: something matches no part of the model, or only parts without parameters or buffers.
    """
    items = listed(protect, "protect")
    if not items:
        return []
    holders = {path for name in named_tensors(model) for path in _paths_above(name)}
    protected: list[str] = []
    for item in items:
        paths = paths_of(model, item, "protect")
        if holders.isdisjoint(paths):
            raise TraceError(
                f"protect: {paths[0]!r} holds no parameters, so that it has no output axes of its own; protect the "
                "layer that makes what it works on"
            )
        protected += paths
    return protected


def _pin_protected(trace: Trace, protected: list[str]) -> None:
    """Pin the output axes, those that are never summed over, of everything under these paths."""
    if not protected:
        return
    consumed = np.zeros(trace.facts.size, dtype=bool)
    for labels in trace.consumed:
        consumed[labels[labels >= 0]] = True
    names: dict[str, list[str]] = {}
    for name, first in trace.tied.items():
        names.setdefault(first, []).append(name)
    given = set(protected)
    for axis in trace.axes:
        above = (path for name in (axis.parameter, *names.get(axis.parameter, ())) for path in _paths_above(name))
        path = next((path for path in above if path in given), None)
        if path is not None and not consumed[axis.labels].any():
            trace.facts.fix(axis.labels, f"protected: {path or 'the whole model'}")


def _paths_above(name: str) -> Iterator[str]:
    """A parameter's own name, then the paths of the modules that hold it, innermost first."""
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""

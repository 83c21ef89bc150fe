"""The proof of a prune: the smaller model is the original with channels removed, and costs what was predicted.

Four statements, checked after surgery and before any repair:

1. the plan removes only what may leave, and always all of what must leave together;
2. every tensor of the smaller model is the original's, without the removed indices and times the plan's factors;
3. every entry point's outputs equal those of the original in which the removed channels are zeroed wherever they are
   summed over (design, section 6); groups under a mixing operation can't satisfy this by nature, so that for models
   with such groups the statement is proved with all other groups removed, and the outputs' shapes with all of them;
   where an output is so sensitive that rounding shows, it may differ as much as rounding the weights anew makes it;
4. parameters and MACs, counted on the smaller model, are those predicted in closed form; where values decide how many
   rows a tensor has, the MACs are those predicted for the rows of the masked original.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secateur.errors import TraceError, VerificationError, warn
from secateur.graph.build import build_graph
from secateur.graph.components import ComponentMap, component_map
from secateur.graph.cost import Cost
from secateur.graph.entry_point import EntryPoint, as_entry_point, tensors_in
from secateur.graph.graph import DependencyGraph
from secateur.graph.parting import ADVICE, parting
from secateur.graph.randomness import same_randomness
from secateur.graph.record import Trace
from secateur.graph.repeatability import difference_between_runs
from secateur.graph.solution import Solution
from secateur.graph.solve import solve
from secateur.graph.storage import tied_names
from secateur.graph.trace import run_traced
from secateur.graph.tracer import Tracer
from secateur.graph.unreached import settle_unreached
from secateur.masking import MaskingTracer, ReplayTracer
from secateur.plan import PruningPlan, named_tensors
from secateur.plan import plan as make_plan
from secateur.surgery import apply

_ADVICE = "make plans with secateur.plan, from the graph of this model and entry point"
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}
_LOOSEST = 2.5e-1  # for types of eight bits

_ROUNDINGS = 8
"""Two orders of summation may differ by so many times what another rounding of the weights does."""

_DRAWS = 3
"""What another rounding does is the most that so many of them do."""

_MOST_NOISE = 100
"""How far beyond its dtype's tolerance an output may differ, however sensitive it is."""


_Tracer = TypeVar("_Tracer", bound=Tracer)

Kept = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class VerificationReport:
    """What was proved.

    Attributes:
        exact: groups that shrink and for which pruned equals masked.
        mixing: groups that shrink under a mixing operation (or are tied to one that does), checked for shape only.
        largest_difference: between outputs of the smaller and the masked model, relative to an output's largest value.
        tolerance: the largest tolerance among the outputs: that of their dtype; more, where it is needed, if a part of
            the model computes in a coarser one, or an output is so sensitive that rounding the weights anew moves it
            further.
        outputs: number of outputs compared: those with floating-point or complex numbers. Of others, such as an argmax
            that a tie may turn, only the shapes are.
        cost: parameters and MACs of the smaller model's run, predicted and counted alike.
    """

    exact: tuple[str, ...]
    mixing: tuple[str, ...]
    largest_difference: float
    tolerance: float
    outputs: int
    cost: Cost

    def __str__(self) -> str:
        lines = [
            f"{len(self.exact)} groups: pruned equals masked on {self.outputs} outputs, "
            f"largest relative difference {self.largest_difference:.1e} (tolerance {self.tolerance:.0e})",
            f"{self.cost.parameters:,} parameters and {self.cost.macs:,} MACs, as predicted",
        ]
        if self.mixing:
            lines.append(f"{len(self.mixing)} groups under a mixing operation, shapes only: {', '.join(self.mixing)}")
        return "\n".join(lines)


def verify(
    model: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    *,
    example_inputs: Any = None,
    run: EntryPoint | None = None,
) -> VerificationReport:
    """Prove that ``small`` is ``model`` pruned by ``plan``: run it after surgery and before any repair.

    Args:
        model: the original; not changed.
        small: what :func:`secateur.apply` made; not changed.
        plan: the plan that was applied.
        example_inputs: inputs for ``model(...)``, for a plan without an entry point (read from JSON).
        run: instead, code that exercises a model; by default the entry point that was traced.

    Raises:
        VerificationError: one of the four statements doesn't hold; the message says which, and where; or that the entry
            point doesn't do the same twice, and where two runs of it part.
        PlanError: the plan was made for another model.

    Warns:
        SecateurWarning: the outputs hold no numbers to compare; the run took other operators than the one that was
            traced, so that the proof is of the one path alone.

    Time is about that of four forward passes.
    """
    if small is model:
        raise VerificationError(
            "verify needs the original beside the smaller model; apply the plan without inplace=True, verify, and go "
            "on with the model that apply returned"
        )
    entry_point = _entry_point(plan, example_inputs, run)
    plan.check_fits(model)
    with same_randomness() as restart:
        check = _Check(model, entry_point, restart, frozenset(plan.whole))
        # Another entry point than the traced one takes other operators by right.
        parted = parting(plan.steps, check.steps) if plan.steps and entry_point is plan.entry_point else None
        other_path = f"the run that was traced and the one that is verified took different operators {parted}"
        try:
            report = _proved(check, model, small, plan)
        except VerificationError as error:
            difference = other_path if parted else difference_between_runs(model, entry_point)
            if difference is None:
                raise
            raise VerificationError(
                f"{type(model).__name__} doesn't do the same twice: {difference}; {ADVICE}"
            ) from error
    if parted:
        warn(f"the proof holds for one path through {type(model).__name__}: {other_path}; {ADVICE}")
    return report


def _proved(check: _Check, model: nn.Module, small: nn.Module, plan: PruningPlan) -> VerificationReport:
    """The proof of the four statements.

    Raises:
        VerificationError: one of them doesn't hold.
    """
    kept = check.kept_channels(plan)
    _check_tensors(model, small, plan)
    exact, mixing = check.split(kept)
    masked = check.masked(kept)
    if len(masked.outputs) != len(check.sizes):
        raise VerificationError(f"one run returns {len(check.sizes)} tensors and another {len(masked.outputs)}")
    outputs, counted = check.run_small(small, masked.draws)
    _check_shapes(masked.outputs, outputs)
    counts = {name: int(stays.sum()) for name, stays in kept.items()}
    predicted = check.graph.cost(counts)
    if predicted.macs != counted.macs:
        predicted = check.predicted_for(masked, counts) or predicted
    _check_cost(predicted, counted, narrow=1 in counts.values())
    if mixing:
        part = {name: stays if name in exact else np.ones_like(stays) for name, stays in kept.items()}
        partial = check.plan(part)  # may keep more, where the code compares sizes
        masked = check.masked(check.kept_channels(partial))
        small = apply(model, partial)
        outputs, _ = check.run_small(small, masked.draws)
    compared = _compare(masked.outputs, outputs, check.sizes)
    if any(difference > tolerance for difference, tolerance in compared):
        # A part of the model may compute more coarsely than the outputs' type says.
        coarsest = max((_TOLERANCE.get(dtype, _LOOSEST) for dtype in check.dtypes), default=0.0)
        compared = [(difference, max(tolerance, coarsest)) for difference, tolerance in compared]
    if any(difference > tolerance for difference, tolerance in compared):
        for seed in range(_DRAWS):
            rounded, _ = check.run_small(_rounded_anew(small, seed), masked.draws)
            compared = _allowing_for(_compare(outputs, rounded, check.sizes), compared)
    _check_outputs(compared, exact, without_values=any(t.is_meta for t in outputs))
    largest = max((difference for difference, _ in compared), default=0.0)
    bound = max((tolerance for _, tolerance in compared), default=0.0)
    return VerificationReport(exact, mixing, largest, bound, len(compared), predicted)


def _entry_point(plan: PruningPlan, example_inputs: Any, run: EntryPoint | None) -> EntryPoint:
    if example_inputs is None and run is None:
        if plan.entry_point is None:
            raise VerificationError(
                "a plan read from JSON has no entry point to run: give verify example_inputs or run= as trace had them"
            )
        return plan.entry_point
    return as_entry_point(example_inputs, run)


@dataclass(frozen=True, eq=False)
class _Masked:
    """A masked run of the original: its outputs, what it drew, without removed indices, and its trace."""

    outputs: list[torch.Tensor]
    draws: list[torch.Tensor]
    trace: Trace


class _Check:
    """The original model, traced anew: what must leave together, and runs with channels masked."""

    def __init__(
        self, model: nn.Module, entry_point: EntryPoint, restart: Callable[[], None], whole: frozenset[str]
    ) -> None:
        self._model = model
        self._entry_point = entry_point
        self._restart = restart
        self._components: ComponentMap = component_map(model, None)
        self._whole = whole
        tracer = self._watched(Tracer(model, self._components))
        restart()
        self.sizes = [_largest(t) for t in tensors_in(run_traced(model, entry_point, tracer))]
        self.dtypes = tracer.trace.dtypes
        self.steps = tracer.trace.steps
        self._axes = {(a.parameter, a.axis): a.labels for a in tracer.trace.axes}
        self._solution, self.graph = self._solved(tracer.trace)

    def _solved(self, trace: Trace) -> tuple[Solution, DependencyGraph]:
        settle_unreached(self._model, trace)
        solution = solve(trace)
        return solution, build_graph(self._model, trace, solution, self._components, self._entry_point)

    def _watched(self, tracer: _Tracer) -> _Tracer:
        """The tracer, told where the plan's trace took whole blocks."""
        tracer.whole_at = self._whole.__contains__
        return tracer

    def kept_channels(self, plan: PruningPlan) -> Kept:
        """Group of this trace to whether each of its channels stays, shape (group size,).

        Raises:
            VerificationError: the plan splits a channel, or removes what must stay.
        """
        kept: Kept = {}
        must_stay = {key: np.ones(len(labels), dtype=bool) for key, labels in self._axes.items()}
        for group in self.graph.groups:
            leaves = []
            for member in group.members:
                key = member.parameter, member.axis
                must_stay[key][member.indices] = False
                leaves.append(np.isin(member.indices, plan.removed(*key)))
            every = np.concatenate(leaves, axis=1)
            split = np.flatnonzero(every.any(axis=1) != every.all(axis=1))
            if len(split):
                touched = ", ".join(map(str, group.members))
                raise VerificationError(
                    f"the plan removes a part of channel {split[0]} of group {group.name!r} without what must leave "
                    f"together with it ({touched}); {_ADVICE}"
                )
            kept[group.name] = np.asarray(~every.all(axis=1))
        for (name, axis), stays in must_stay.items():
            wrong = np.flatnonzero(stays[plan.removed(name, axis)])
            if len(wrong):
                raise VerificationError(
                    f"the plan removes index {plan.removed(name, axis)[wrong[0]]} of axis {axis} of {name!r}, which "
                    f"must stay; {_ADVICE}"
                )
        return kept

    def plan(self, kept: Kept) -> PruningPlan:
        """The plan that keeps these channels."""
        coefficients = {name: 1 - float(stays.mean()) for name, stays in kept.items()}
        return make_plan(self.graph, {name: stays.astype(float) for name, stays in kept.items()}, coefficients)

    def split(self, kept: Kept) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of groups that shrink: (those where masking equals removal, the others and what is tied to them)."""
        inexact = {g.tie for g in self.graph.groups if g.mixing and not kept[g.name].all()}
        shrinking = [g for g in self.graph.groups if not kept[g.name].all()]
        return (
            tuple(g.name for g in shrinking if g.tie not in inexact),
            tuple(g.name for g in shrinking if g.tie in inexact),
        )

    def masked(self, kept: Kept) -> _Masked:
        """Run the original with the other channels zeroed where they are summed over."""
        leaves = np.zeros(len(self._solution.fixed), dtype=bool)
        for group, stays in zip(self.graph.groups, kept.values(), strict=True):
            member = group.members[0]
            labels = self._axes[member.parameter, member.axis][member.indices[~stays]]
            leaves[self._solution.channel_of[labels]] = True
        tracer = self._watched(MaskingTracer(self._model, self._components, leaves[self._solution.channel_of]))
        self._restart()
        outputs = run_traced(self._model, self._entry_point, tracer)
        return _Masked([t.detach().clone() for t in tensors_in(outputs)], tracer.draws(), tracer.trace)

    def predicted_for(self, masked: _Masked, counts: Mapping[str, int]) -> Cost | None:
        """The cost predicted from a masked run, whose rows are the smaller model's even where values decide on them.

        None if that run has other groups, so that their counts mean nothing for it.
        """
        _, graph = self._solved(masked.trace)
        if [(g.name, g.size) for g in graph.groups] != [(g.name, g.size) for g in self.graph.groups]:
            return None
        return graph.cost(counts)

    def run_small(self, small: nn.Module, draws: list[torch.Tensor]) -> tuple[list[torch.Tensor], Cost]:
        """Outputs of the smaller model, and its parameters and MACs, counted."""
        components = component_map(small, None)
        tracer = self._watched(ReplayTracer(small, components, draws))
        self._restart()
        try:
            outputs = run_traced(small, self._entry_point, tracer)
        except TraceError as error:
            raise VerificationError(
                f"the smaller model's entry point fails: {error.__cause__}. A size that the code keeps outside "
                "torch.nn's own modules (a number, an attribute) didn't follow; protect that layer, or read the size "
                "from x.shape"
            ) from error
        settle_unreached(small, tracer.trace)
        graph = build_graph(small, tracer.trace, solve(tracer.trace), components, self._entry_point)
        tied = tied_names(named_tensors(small))
        counted = sum(p.numel() for name, p in small.named_parameters() if name not in tied)
        return [t.detach().clone() for t in tensors_in(outputs)], Cost(counted, graph.cost().macs)


def _check_tensors(model: nn.Module, small: nn.Module, plan: PruningPlan) -> None:
    """Every tensor of the smaller model is a slice of the original's."""
    pruned = named_tensors(small)
    for name, tensor in named_tensors(model).items():
        expected = tensor.detach()
        for axis, indices in plan.shrunk_axes(name).items():
            expected = expected.index_select(axis, torch.from_numpy(indices.copy()).to(tensor.device))
        for axis, factors in plan.axis_scales(name).items():
            by_index = torch.tensor(factors, dtype=expected.dtype, device=expected.device)
            expected = expected * by_index.reshape([-1 if d == axis else 1 for d in range(expected.dim())])
        found = pruned.get(name)
        if found is None or found.shape != expected.shape or not _same_values(found.detach(), expected):
            shape = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise VerificationError(
                f"{name!r} of the smaller model ({shape}) isn't the original's with the plan's indices "
                f"(shape {tuple(expected.shape)}); verify before refit, training or any other change"
            )


def _same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.is_meta or b.is_meta or a.layout != b.layout:
        return a.dtype == b.dtype and a.device == b.device and a.layout == b.layout
    if a.layout != torch.strided:
        a, b = a.to_dense(), b.to_dense()
    same_nans = torch.equal(torch.isnan(a), torch.isnan(b))
    return a.dtype == b.dtype and same_nans and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def _check_shapes(masked: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
    expected, found = [[tuple(t.shape) for t in tensors] for tensors in (masked, outputs)]
    if expected != found:
        raise VerificationError(f"the smaller model's outputs have shapes {found}; the original's are {expected}")


def _check_cost(predicted: Cost, counted: Cost, *, narrow: bool) -> None:
    """``narrow``: a group keeps a single channel, for which torch may take a product for a mere multiplication."""
    for what in ("parameters", "macs"):
        difference = getattr(predicted, what) - getattr(counted, what)
        if difference and not (narrow and what == "macs" and difference > 0):
            raise VerificationError(
                f"predicted {what} ({getattr(predicted, what):,}) differ from those counted on the smaller model "
                f"({getattr(counted, what):,}): either run= exercises modules of the original model instead of its "
                "argument's, or this is a bug in Secateur: please report the model"
            )


def _check_outputs(compared: list[tuple[float, float]], exact: tuple[str, ...], *, without_values: bool) -> None:
    """Every output within its tolerance; a warning if there is none."""
    for difference, tolerance in compared:
        if not difference <= tolerance:
            raise VerificationError(
                f"the smaller model's outputs differ from those of the masked original by {difference:.2e} of the "
                f"largest value (tolerance {tolerance:.0e}), with channels removed from "
                f"{', '.join(exact) or 'no group'}; this is a bug in Secateur: please report the model"
            )
    if not compared:
        why = "on the meta device tensors have no values" if without_values else "the entry point returns no numbers"
        remedy = "verify where there is memory for them" if without_values else "return what must stay the same"
        warn(f"{why}, so that verification compared none: {remedy}")


def _compare(masked: list[torch.Tensor], outputs: list[torch.Tensor], sizes: list[float]) -> list[tuple[float, float]]:
    """(Largest difference relative to the largest value, tolerance) of each output of real or complex numbers.

    The largest value is that of the masked or of the dense output, ``sizes``: what is left of an output of few numbers
    may be near zero by chance, where rounding is not.
    """
    found = []
    for a, b, size in zip(masked, outputs, sizes, strict=True):
        if a.numel() == 0 or a.is_meta or not (a.is_floating_point() or a.is_complex()):
            continue
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        found.append((_relative_difference(a, b, size), _TOLERANCE.get(a.dtype, _LOOSEST)))
    return found


def _rounded_anew(model: nn.Module, seed: int) -> nn.Module:
    """A copy in which every weight is another rounding of nearly the same number."""
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.is_floating_point():
                signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
                parameter.mul_(1 + torch.finfo(parameter.dtype).eps * signs.to(parameter))
    return copied


def _allowing_for(noise: list[tuple[float, float]], compared: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The comparison with tolerances that allow for what rounding does to each output."""
    return [
        (difference, max(tolerance, min(_ROUNDINGS * moved, _MOST_NOISE * usual)))
        for (difference, tolerance), (moved, usual) in zip(compared, noise, strict=True)
    ]


def _largest(tensor: torch.Tensor) -> float:
    """The largest absolute value of a tensor of numbers, leaving out what isn't finite."""
    if tensor.is_meta:
        return 0.0
    values = tensor.detach().abs()
    finite = values[values.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0


def _relative_difference(a: torch.Tensor, b: torch.Tensor, size: float) -> float:
    # Below the root of the type's precision, an output is what rounding has left of larger numbers.
    smallest = math.sqrt(torch.finfo(a.dtype).eps) if a.dtype in _TOLERANCE else 1.0
    a, b = a.double(), b.double()
    if not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    a, b = (t.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for t in (a, b))
    return float((a - b).abs().max()) / max(smallest, size, _largest(a))

"""``secateur.prune``: trace, score, allocate, plan, surgery, proof and repair in one call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from secateur import io
from secateur.allocation import (
    AllocationResult,
    Constraint,
    Objective,
    Search,
    Smallest,
    Sparsity,
    Strategy,
    Target,
    Uniform,
    allocate,
)
from secateur.allocation.evaluator import measured
from secateur.allocation.objective import metric_name
from secateur.calibration import CalibrationData, as_calibration
from secateur.errors import InfeasibleError, ObjectiveError, TargetError, warn
from secateur.graph.describe import to_text
from secateur.graph.entry_point import EntryPoint
from secateur.graph.granularity import Granularity
from secateur.graph.graph import DependencyGraph
from secateur.graph.shortfall import shortfall_warning, unreachable
from secateur.graph.trace import trace
from secateur.importance import Criterion, Magnitude, Reconstruction
from secateur.plan import PruningPlan, plan
from secateur.recovery import refit
from secateur.report.comparison import Stage, comparison
from secateur.surgery import apply
from secateur.verify import VerificationReport, verify


@dataclass(frozen=True, eq=False)
class PruningResult:
    """What :func:`prune` made.

    Attributes:
        model: the smaller model, of the same class, trainable.
        plan: which channels were kept.
        graph: of the original model.
        allocation: the coefficients and every candidate that was looked at.
        before: the original's parameters, MACs and objective.
        after: the smaller model's, refitted if there was calibration data.
        report: the proof that the surgery was right.
    """

    model: nn.Module
    plan: PruningPlan
    graph: DependencyGraph
    allocation: AllocationResult
    before: Stage
    after: Stage
    report: VerificationReport

    def save(self, path: str | Path) -> None:
        """Write the smaller model and its plan into a folder; :func:`secateur.load` reads it back.

        Raises:
            StorageError: the folder can't be written.
        """
        io.save(self.model, self.plan, path)

    def __str__(self) -> str:
        return to_text([comparison([self.before, self.after])])


def prune(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    run: EntryPoint | None = None,
    components: Mapping[str, Any] | None = None,
    protect: Sequence[Any] = (),
    granularity: Granularity | Mapping[str, Granularity] = "auto",
    target: float | Target = 0.5,
    of: str = "params",
    tolerance: float = 0.01,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
    objective: Objective | None = None,
    constraints: Sequence[Constraint] = (),
    calibration: CalibrationData | None = None,
    search: Search | None = None,
) -> PruningResult:
    """Make a smaller model of the same class; the given one is left as it is.

    With a model and its inputs alone: channels are ranked by the L2 norm of their weights, every group loses the same
    fraction, and nothing is repaired. With calibration data they are ranked by what their loss would cost after the
    repair (criterion :class:`secateur.importance.Reconstruction`), and the consumers are refitted.

    Args:
        model: what to prune.
        example_inputs: a tensor, a tuple (positional) or a mapping (keywords) of inputs for ``model(...)``.
        run: instead of them, a function that takes the model, exercises it and returns the outputs whose sizes stay.
        components: name to a module, a module's dotted name, or a list of these; each direct child if not given.
        protect: whose output axes stay: modules, parameters, dotted names of either, patterns of such names
            (``"*.head"``), or classes of modules.
        granularity: what leaves of an axis that the code splits into blocks, such as attention heads: ``"width"``,
            equally many indices of every block; ``"heads"``, whole blocks; ``"auto"``, the finer of these that can
            leave. One for all, or a mapping from patterns of module names; as in :func:`secateur.trace`.
        target: fraction to remove, in (0, 1); or a :class:`secateur.Sparsity`, or :class:`secateur.Smallest` for the
            smallest model that satisfies the constraints, which say the next two themselves.
        of: what the fraction is of: ``"params"``, ``"macs"`` or ``"latency"``.
        tolerance: how far from the target the result may be, as a fraction.
        criterion: scores the channels.
        strategy: finds the coefficients; :class:`secateur.Uniform` if not given.
        objective: takes a model and returns the application's metric, which the strategy keeps high (or low: wrap it
            in :class:`secateur.Minimize`), and which is reported before and after.
        constraints: bounds on metrics, such as ``Constraint(psnr, at_least=21)``.
        calibration: an iterable of inputs like ``example_inputs``, or a function that takes the model and exercises it
            with the same data whichever model it is given, or an iterable of such functions, one per minibatch.
        search: where measurements are kept, so that a search can be resumed and shared; in memory if not given.

    Returns:
        The smaller model with its plan, the graph, both sizes and the proof.

    Warns:
        SecateurWarning: as in :func:`secateur.trace` and :func:`secateur.refit`; the objective is infinite for the
            dense model, such as the PSNR of the model whose outputs are the targets; it fails for the finished model
            alone; or the parameters fall by less than half of what was asked for: which parameter axes stay, and why.

    Raises:
        TraceError: the model can't be traced: no parameters, a failing run, unknown names.
        TargetError: the target is malformed or can't be met; the message names the nearest that can, and, if it is more
            than can leave, what stays and why.
        ConstraintError: no candidate satisfies every constraint; the message names the nearest miss.
        ObjectiveError: the objective fails for the dense model, which is measured before anything else, for every
            candidate or for the result; or it is missing where the strategy needs it.
        SearchError: the strategy is none, or its settings or the search's don't fit the model.
        StorageError: the search's storage can't be used.
        ScoreError: the criterion's scores are not finite.
        CalibrationError: the calibration data never reaches a consumer.
        VerificationError: the smaller model is not the original with channels removed.
    """
    checked = _target(target, of, tolerance)
    strategy = strategy or Uniform()
    graph = trace(model, example_inputs, run=run, components=components, protect=protect, granularity=granularity)
    # A one-shot iterator is read once, here: the criterion, the search and the refit all run it.
    data = None if calibration is None else as_calibration(calibration).source
    before = Stage("before", graph.cost(), _dense_objective(objective, model))
    scores = (criterion or default_criterion(data))(graph, model)
    with _saying_what_stays(graph, checked):
        allocation = allocate(
            graph,
            scores,
            checked,
            strategy=strategy,
            model=model,
            # Uniform has but one candidate: the finished model is measured instead.
            objective=None if isinstance(strategy, Uniform) else objective,
            constraints=constraints,
            calibration=data,
            search=search or Search(),
        )
    _warn_of_shortfall(graph, checked, allocation)
    pruning = plan(graph, scores, allocation.coefficients)
    dense = allocation.dense(model)
    small = apply(dense, pruning)
    report = verify(dense, small, pruning)
    if data is not None:
        small = refit(small, dense, pruning, data)
    searched = allocation.best is not None and allocation.best.objective is not None
    after = Stage("after", graph.cost(allocation.kept), _finished_objective(objective, small, pruning, searched))
    return PruningResult(small, pruning, graph, allocation, before, after, report)


def _target(target: float | Target, of: str, tolerance: float) -> Target:
    if not isinstance(target, (Sparsity, Smallest)):
        return Sparsity(target, tolerance=tolerance, of=of)
    for name, given, default in (("of", of, "params"), ("tolerance", tolerance, 0.01)):
        if given not in (default, getattr(target, name, default)):
            raise TargetError(f"{name}={given!r} contradicts the target, {target}; give it in the target alone")
    return target


@contextmanager
def _saying_what_stays(graph: DependencyGraph, target: Target) -> Iterator[None]:
    """Add to the error of a target that is out of reach which parameter axes keep it so."""
    try:
        yield
    except InfeasibleError as error:
        if not isinstance(target, Sparsity) or target.rho is None:
            raise
        stays = unreachable(graph, target.rho - target.tolerance, "params" if target.of == "params" else "macs")
        if stays is None:
            raise
        raise InfeasibleError(f"{error}. {stays}") from error


def _warn_of_shortfall(graph: DependencyGraph, target: Target, allocation: AllocationResult) -> None:
    """A target with a large tolerance may be met by next to nothing."""
    if isinstance(target, Sparsity) and target.rho is not None and target.of == "params":
        warning = shortfall_warning(graph, target.rho, allocation.kept)
        if warning is not None:
            warn(warning)


def default_criterion(calibration: CalibrationData | None) -> Criterion:
    """What ranks channels where the user names no criterion: what is lost after the repair, if there will be one."""
    return Magnitude() if calibration is None else Reconstruction(calibration)


def _dense_objective(objective: Objective | None, model: nn.Module) -> float | None:
    """The dense model's objective, before anything is searched by it; None where there is none, or it is infinite.

    Raises:
        ObjectiveError: it fails.
    """
    if objective is None:
        return None
    try:
        value = measured(objective, model, infinite=True).value
    except ObjectiveError as error:
        if not isinstance(error.__cause__, ZeroDivisionError):  # what Python makes of 1 / 0.0, which is infinite
            raise ObjectiveError(f"the objective fails for the dense model, so nothing is searched: {error}") from error
        reason = str(error)
    else:
        if math.isfinite(value):
            return value
        reason = f"the metric {metric_name(objective)!r} is {value} for it"
    warn(f"the objective of the dense model isn't reported: {reason}")
    return None


def _finished_objective(
    objective: Objective | None, model: nn.Module, plan: PruningPlan, searched: bool
) -> float | None:
    """The smaller model's objective; None where there is none, or it fails after a search by it: that isn't lost."""
    try:
        return None if objective is None else measured(objective, model, plan).value
    except ObjectiveError as error:
        if not searched:
            raise
        warn(f"the objective of the finished model isn't reported: {error}")
        return None

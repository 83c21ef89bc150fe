"""``secateur.tradeoff``: the objective against the sparsity, for several strategies in one call."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.allocation import (
    AllocationResult,
    Constraint,
    Measurements,
    Minimize,
    NormBased,
    Objective,
    Search,
    Sensitivity,
    Sparsity,
    Strategy,
    Uniform,
)
from secateur.allocation.allocate import solve
from secateur.allocation.evaluator import measured
from secateur.allocation.objective import metric_name
from secateur.allocation.strategy import check_strategy
from secateur.api import default_criterion
from secateur.calibration import CalibrationData, as_calibration
from secateur.errors import ConstraintError, InfeasibleError, SearchError, TargetError
from secateur.graph.components import ComponentPart, ComponentSpec
from secateur.graph.entry_point import EntryPoint
from secateur.graph.graph import DependencyGraph
from secateur.graph.trace import trace
from secateur.importance import Criterion
from secateur.metrics import Estimate
from secateur.plan import FloatArray, checked_scores, plan
from secateur.recovery import refit
from secateur.report.tradeoff import TradeOff, TradeOffPoint
from secateur.surgery import apply

_STRATEGIES: Mapping[str, Strategy] = {"uniform": Uniform(), "norm-based": NormBased(), "sensitivity": Sensitivity()}


def tradeoff(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    objective: Objective,
    reported: Objective | None = None,
    sparsities: Sequence[float] = (0.2, 0.5, 0.7, 0.85),
    strategies: Mapping[str, Strategy] | Sequence[Strategy] = _STRATEGIES,
    run: EntryPoint | None = None,
    components: Mapping[str, ComponentSpec] | None = None,
    protect: Sequence[ComponentPart] = (),
    of: str = "params",
    tolerance: float = 0.01,
    criterion: Criterion | None = None,
    constraints: Sequence[Constraint] = (),
    calibration: CalibrationData | None = None,
    search: Search | None = None,
) -> TradeOff:
    """Search at several sparsities with several strategies; the model is traced and its channels scored once.

    What a strategy measures at one sparsity it finds again at the others. What another strategy has measured counts
    only if the search has a storage, so that without one the seconds are those that each strategy takes.

    Args:
        model: what to prune; untouched.
        example_inputs: as in :func:`secateur.prune`.
        objective: takes a model and returns the application's metric; higher is better, unless in ``Minimize``.
        reported: the metric of the finished models that is reported, such as the same on other data than the search
            sees; the objective if not given.
        sparsities: fractions to remove, each in (0, 1).
        strategies: by name, or a list, where the names are those of the classes.
        run: as in :func:`secateur.prune`.
        components: as in :func:`secateur.prune`.
        protect: as in :func:`secateur.prune`.
        of: what the fractions are of: ``"params"``, ``"macs"`` or ``"latency"``.
        tolerance: how far from the target a result may be.
        criterion: as in :func:`secateur.prune`.
        constraints: bounds on metrics that every model must satisfy.
        calibration: as in :func:`secateur.prune`.
        search: where measurements are kept, and how many are made at once.

    Returns:
        A point for each strategy and sparsity. Where a strategy can't meet a sparsity or the constraints, it says why.

    Raises:
        TraceError: the model can't be traced.
        TargetError: a sparsity is malformed, there are none, or two strategies have the same name.
        ObjectiveError: the objective fails for the dense model or for every candidate.
        SearchError: there are no strategies, one is none, or its settings don't fit the model.
        StorageError: the search's storage can't be used.
    """
    named = _named(strategies)
    targets = _targets(sparsities, of, tolerance)
    graph = trace(model, example_inputs, run=run, components=components, protect=protect)
    # A one-shot iterator is read once, here.
    data = None if calibration is None else as_calibration(calibration).source
    scores = (criterion or default_criterion(data))(graph, model)
    shown = objective if reported is None else reported
    dense = measured(shown, model)
    checked = checked_scores(graph, scores)
    work = _Work(model, graph, checked, objective, shown, tuple(constraints), data, search or Search())
    points = [point for name, strategy in named.items() for point in work.points(name, strategy, targets)]
    return TradeOff(_label(shown), of, dense.value, dense.interval, tuple(points))


def _targets(sparsities: Sequence[float], of: str, tolerance: float) -> list[Sparsity]:
    if not _several(sparsities):
        raise TargetError(f"give sparsities, fractions to remove such as (0.2, 0.5); not {sparsities!r}")
    return [Sparsity(rho, of=of, tolerance=tolerance) for rho in sparsities]


def _several(given: object) -> bool:
    """Whether there is anything to go through, again and again."""
    return isinstance(given, Collection) and not isinstance(given, str) and len(given) > 0


def _named(strategies: Mapping[str, Strategy] | Sequence[Strategy]) -> dict[str, Strategy]:
    if not _several(strategies):
        raise SearchError(f"give strategies, by name or as a list, such as [Sensitivity()]; not {strategies!r}")
    for strategy in strategies.values() if isinstance(strategies, Mapping) else strategies:
        check_strategy(strategy)
    if isinstance(strategies, Mapping):
        return dict(strategies)
    names = [type(strategy).__name__ for strategy in strategies]
    for name in names:
        if names.count(name) > 1:
            raise TargetError(f"{names.count(name)} strategies are a {name}; give strategies={{name: strategy, ...}}")
    return dict(zip(names, strategies, strict=True))


@dataclass(frozen=True, eq=False)
class _Work:
    """What all strategies share."""

    model: nn.Module
    graph: DependencyGraph
    scores: Mapping[str, FloatArray]
    objective: Objective
    reported: Objective
    constraints: tuple[Constraint, ...]
    calibration: CalibrationData | None
    search: Search

    def points(self, name: str, strategy: Strategy, targets: Sequence[Sparsity]) -> list[TradeOffPoint]:
        """One strategy at every sparsity."""
        measurements = self.search.start(
            self.graph, self.scores, self.model, self.objective, self.constraints, self.calibration
        )
        return [self._point(name, strategy, target, measurements) for target in targets]

    def _point(self, name: str, strategy: Strategy, target: Sparsity, measurements: Measurements) -> TradeOffPoint:
        started = time.perf_counter()
        assert target.rho is not None
        try:
            result = solve(self.graph, self.scores, target, strategy, measurements)
        except (InfeasibleError, ConstraintError) as error:
            return TradeOffPoint(name, target.rho, seconds=time.perf_counter() - started, failure=str(error))
        finished = self._finished(result)
        return TradeOffPoint(
            name,
            target.rho,
            sparsity=result.sparsity,
            objective=finished.value,
            interval=finished.interval,
            constraints={} if result.best is None else result.best.constraints,
            seconds=time.perf_counter() - started,
            evaluations=len(result.history),
            coefficients=result.coefficients,
            kept=result.kept,
        )

    def _finished(self, result: AllocationResult) -> Estimate:
        """What is reported of the finished model, with the whole refit, and the weights that a strategy has trained."""
        dense = result.dense(self.model)
        pruning = plan(self.graph, self.scores, result.coefficients)
        small = apply(dense, pruning)
        if self.calibration is not None:
            refit(small, dense, pruning, self.calibration)
        return measured(self.reported, small, pruning)


def _label(objective: Objective) -> str:
    """What the objective is called, with its unit if it has one."""
    unit = getattr(objective.metric if isinstance(objective, Minimize) else objective, "unit", None)
    return f"{metric_name(objective)}, {unit}" if isinstance(unit, str) else metric_name(objective)

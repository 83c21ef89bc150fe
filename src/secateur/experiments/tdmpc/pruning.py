"""Prune a TD-MPC agent: trace the planner's rollout, allocate, cut, prove, repair, and choose by what counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from secateur.allocation import (
    AllocationResult,
    GradientDescent,
    Minimize,
    NormBased,
    Objective,
    Search,
    Sparsity,
    Strategy,
    Uniform,
    allocate,
)
from secateur.api import default_criterion
from secateur.errors import CalibrationError
from secateur.experiments.tdmpc.agent_graph import Which, limited, trace_agent
from secateur.experiments.tdmpc.finishing import Finished, Finisher, Stopwatch, best_few, is_worse, own_choice
from secateur.experiments.tdmpc.surrogate import PlanningLoss, PredictionLoss, SurrogateError
from secateur.experiments.tdmpc.visits import Visits
from secateur.graph.graph import DependencyGraph
from secateur.importance import Criterion
from secateur.plan import PruningPlan
from secateur.verify import VerificationReport

DISTILLED_ROWS = 256
"""Of the visits in a minibatch of distillation."""

HELD_OUT = 0.2
"""Fraction of the visits that candidates are measured on, and not refitted on."""

SEARCHED_ROWS = 1_600
"""Of the visits that candidates are refitted on, at most: twice as many rank them alike, in twice the time."""

_UNIFORM = Uniform()
_SEARCH = Search(refit_steps=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class PrunedAgent:
    """What :func:`prune_agent` made.

    Attributes:
        model: the smaller model, of the same class: what a planner runs.
        plan: which channels it has kept.
        graph: of the dense model.
        allocation: the coefficients that the search itself chose, and all that it looked at.
        finalists: what was finished, the chosen one first; before any distillation.
        distilled: the chosen one after distillation, whether or not it is the model; None if that wasn't asked for.
        visits: what all of it was based on, with those of the first result if there was a second.
        evaluations: candidates that were measured, in both searches if there were two.
        seconds: wall-clock time by phase: trace, score, allocate; surgery, verify, refit and judge, of all finalists
            together; revisit; distill. A phase that wasn't needed is missing, one that came twice is counted twice.
    """

    model: nn.Module
    plan: PruningPlan
    graph: DependencyGraph
    allocation: AllocationResult
    finalists: tuple[Finished, ...]
    distilled: Finished | None
    visits: Visits
    evaluations: int
    seconds: Mapping[str, float]

    @property
    def report(self) -> VerificationReport:
        """The proof that the surgery was right."""
        return self.finalists[0].report


def prune_agent(
    model: nn.Module,
    target: float | Sparsity,
    *,
    visits: Visits,
    strategy: Strategy = _UNIFORM,
    which: Which = "both",
    refit: bool = True,
    distill_seconds: float = 0.0,
    criterion: Criterion | None = None,
    objective: Objective | None = None,
    final: Objective | None = None,
    finalists: int = 4,
    search: Search = _SEARCH,
    graph: DependencyGraph | None = None,
    revisit: Callable[[nn.Module], Visits] | None = None,
) -> PrunedAgent:
    """Make a smaller model of an agent, component by component; the given one is left as it is.

    A search compares candidates by how well they predict what the dense model does, and how well they tell sequences of
    actions apart, on visits that are held out of their refit, unless there is another objective. An episode's return is
    too slow for it, and has no gradient: it decides between a few finished candidates at the end,
    ``final=Return(config)``.

    A smaller model's planner goes where the dense one's never was, and there the repair has seen nothing. With
    ``revisit`` all is done twice: what the first result visits joins the visits for the second (as in DAgger, Ross et
    al., arXiv 1011.0686; the targets are always the dense model's). By itself it is no sure gain: on walker-walk with
    75 % removed, a return of 725 became 953 of 956 in one run, and 916 became 859 in another. With half a minute to two
    of distillation on all visits after it, 930 to 952 in three runs; without revisiting, 890 to 915.

    Args:
        model: the dense model, as ``agent.model``.
        target: fraction of the parameters to remove, or a target with limits and parts of its own.
        visits: what the agent's planner visits; see :func:`secateur.experiments.tdmpc.recording.record_visits`.
        strategy: finds the coefficients. ``GradientDescent()`` without a loss of its own gets the predictions' error;
            where nothing is refitted, planning's.
        which: what may shrink: ``"both"``, the components' own (``"internal"``) channels, or their ``"interface"``.
        refit: repair the consumers by least squares, in the result and in every candidate that is compared.
        distill_seconds: train the result for so long against the dense model on the visits; 0 for not at all. Where
            ``final`` finds it worse than before, the result is what it was before: smaller errors of the predictions
            are not always a larger return.
        criterion: ranks the channels; what is lost after the refit if there is one, else the norm of the weights.
        objective: what candidates are compared by; ``SurrogateError`` on visits that are held out if not given.
        final: what decides between finished candidates, such as the return; if not given, the search does.
        finalists: so many candidates are finished and compared by ``final``, at most.
        search: where measurements are kept, who hears of them, and how candidates are refitted: if not given, quickly,
            without ``refit_steps``. If it names no calibration, on a part of the visits that aren't held out.
        graph: what :func:`trace_agent` returned for this model, to trace it once for many prunings.
        revisit: records what a model's planner visits, such as ``lambda small: record_visits(small, config)``.

    Raises:
        CalibrationError: the visits are of another task, or too few, or ``distill_seconds`` is negative or not finite.
        TargetError: the target or ``which`` is malformed, or can't be met; the message names the nearest that can.
        ObjectiveError: the objective or ``final`` fails.
        VerificationError: the smaller model is not the original with channels removed.
    """
    if not 0 <= distill_seconds < math.inf:
        raise CalibrationError(f"distill_seconds must be finite and at least 0, not {distill_seconds!r}")
    watch = Stopwatch()
    with watch.time("trace"):
        graph = graph or trace_agent(model, visits)
    pruning = _Pruning(
        model=model,
        graph=graph,
        target=limited(target, graph, which),
        strategy=strategy,
        refit=refit,
        criterion=criterion,
        objective=objective,
        search=search,
        watch=watch,
    )
    found, earlier = pruning.searched(visits), 0
    if revisit is not None:
        first, earlier = found.own_choice().model, found.allocation.measured
        with watch.time("revisit"):
            visits = visits.joined(revisit(first))
        found = pruning.searched(visits)
    finished = (found.own_choice(),) if final is None else found.choice(final, finalists)
    chosen, distilled = finished[0], None
    if distill_seconds:
        distilled = found.finisher.distilled(chosen, visits.batches(DISTILLED_ROWS), distill_seconds, final)
        if final is None or not is_worse(distilled, chosen, final):
            chosen = distilled
    return PrunedAgent(
        model=chosen.model,
        plan=chosen.plan,
        graph=graph,
        allocation=found.allocation,
        finalists=finished,
        distilled=distilled,
        visits=visits,
        evaluations=earlier + found.allocation.measured,
        seconds=dict(watch.seconds),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Searched:
    """What one search found.

    Attributes:
        allocation: the coefficients, and all that it looked at.
        objective: what it compared candidates by; None if it had only one.
        finisher: makes smaller models of its candidates.
    """

    allocation: AllocationResult
    objective: Objective | None
    finisher: Finisher

    def own_choice(self) -> Finished:
        """The candidate that the search itself chose, finished."""
        return self.finisher.finish(own_choice(self.allocation))

    def choice(self, final: Objective, finalists: int) -> tuple[Finished, ...]:
        """The best few candidates finished, the best of them by the metric that decides first."""
        graph, scores = self.finisher.graph, self.finisher.scores
        return self.finisher.choice(best_few(graph, scores, self.allocation, self.objective, finalists), final)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pruning:
    """What is asked for: the settings of :func:`prune_agent` that are the same whatever was visited."""

    model: nn.Module
    graph: DependencyGraph
    target: Sparsity
    strategy: Strategy
    refit: bool
    criterion: Criterion | None
    objective: Objective | None
    search: Search
    watch: Stopwatch

    def searched(self, visits: Visits) -> _Searched:
        """Score the channels and find the coefficients, on these visits."""
        calibration = visits.run if self.refit else None
        with self.watch.time("score"):
            scores = (self.criterion or default_criterion(calibration))(self.graph, self.model)
        with self.watch.time("allocate"):
            comparison = self._comparison(visits)
            allocation = allocate(
                self.graph,
                scores,
                self.target,
                strategy=comparison.strategy,
                model=self.model,
                objective=comparison.objective,
                calibration=calibration,
                search=comparison.search,
            )
        dense = allocation.dense(self.model)
        finisher = Finisher(model=dense, graph=self.graph, scores=scores, calibration=calibration, stopwatch=self.watch)
        return _Searched(allocation=allocation, objective=comparison.objective, finisher=finisher)

    def _comparison(self, visits: Visits) -> _Comparison:
        """The strategy with its loss, the objective where there is something to compare, and what candidates see."""
        strategy, search = self.strategy, self.search
        if isinstance(strategy, (Uniform, NormBased)):  # one candidate: nothing to compare it with
            return _Comparison(strategy, None, search)
        searched, held_out = visits.split(HELD_OUT)
        if isinstance(strategy, GradientDescent) and strategy.loss_fn is None:
            # Repaired, predictions are near enough for all of them to count, and cheaper.
            loss = PredictionLoss(self.model, searched) if self.refit else PlanningLoss(self.model, searched)
            strategy = replace(strategy, loss_fn=loss, batches=loss.batches)
        if self.refit and search.calibration is None:
            search = replace(search, calibration=searched.head(SEARCHED_ROWS).run)
        return _Comparison(strategy, self.objective or Minimize(SurrogateError(self.model, held_out)), search)


@dataclass(frozen=True)
class _Comparison:
    """How a search compares candidates."""

    strategy: Strategy
    objective: Objective | None
    search: Search

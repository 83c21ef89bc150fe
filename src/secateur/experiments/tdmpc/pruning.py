"""Prune a TD-MPC agent: trace the planner's rollout, allocate, cut, prove, repair, and choose by what counts."""

from __future__ import annotations

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
from secateur.experiments.tdmpc.agent_graph import Which, limited, trace_agent
from secateur.experiments.tdmpc.finishing import Finished, Finisher, Stopwatch, best_few, own_choice
from secateur.experiments.tdmpc.surrogate import PredictionError, PredictionLoss
from secateur.experiments.tdmpc.visits import Visits
from secateur.graph.graph import DependencyGraph
from secateur.importance import Criterion
from secateur.plan import PruningPlan
from secateur.recovery import distill
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
        finalists: what was finished, the chosen one first. Its model is distilled, if that was asked for.
        visits: what all of it was based on, with those of the first result if there was a second.
        seconds: wall-clock time by phase: trace, score, allocate; surgery, verify, refit and judge, of all finalists
            together; revisit; distill. A phase that wasn't needed is missing, one that came twice is counted twice.
    """

    model: nn.Module
    plan: PruningPlan
    graph: DependencyGraph
    allocation: AllocationResult
    finalists: tuple[Finished, ...]
    visits: Visits
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

    A search compares candidates by how well they predict what the dense model does on visits that are held out of their
    refit, unless there is another objective. An episode's return is too slow for it, and has no gradient: it decides
    between a few finished candidates at the end, ``final=Return(config)``.

    A smaller model's planner goes where the dense one's never was, and there the repair has seen nothing. With
    ``revisit`` all is done twice: what the first result visits joins the visits for the second (as in DAgger, Ross et
    al., arXiv 1011.0686; the targets are always the dense model's). By itself it is no sure gain: on walker-walk with
    75 % removed, a return of 725 became 953 of 956 in one run, and 916 became 859 in another. With half a minute to two
    of distillation on all visits after it, 930 to 952 in three runs; without revisiting, 890 to 915.

    Args:
        model: the dense model, as ``agent.model``.
        target: fraction of the parameters to remove, or a target with limits and parts of its own.
        visits: what the agent's planner visits; see :func:`secateur.experiments.tdmpc.recording.record_visits`.
        strategy: finds the coefficients. ``GradientDescent()`` without a loss of its own gets the predictions' error.
        which: what may shrink: ``"both"``, the components' own (``"internal"``) channels, or their ``"interface"``.
        refit: repair the consumers by least squares, in the result and in every candidate that is compared.
        distill_seconds: train the result for so long against the dense model on the visits; 0 for not at all.
        criterion: ranks the channels; what is lost after the refit if there is one, else the norm of the weights.
        objective: what candidates are compared by; the error of the predictions if not given.
        final: what decides between finished candidates, such as the return; if not given, the search does.
        finalists: so many candidates are finished and compared by ``final``, at most.
        search: where measurements are kept, who hears of them, and how candidates are refitted: if not given, quickly,
            without ``refit_steps``. If it names no calibration, on a part of the visits that aren't held out.
        graph: what :func:`trace_agent` returned for this model, to trace it once for many prunings.
        revisit: records what a model's planner visits, such as ``lambda small: record_visits(small, config)``.

    Raises:
        CalibrationError: the visits are of another task, or too few, or ``distill_seconds`` is negative.
        TargetError: the target or ``which`` is malformed, or can't be met; the message names the nearest that can.
        ObjectiveError: the objective or ``final`` fails.
        VerificationError: the smaller model is not the original with channels removed.
    """
    watch = Stopwatch()
    with watch.time("trace"):
        graph = graph or trace_agent(model, visits)
    if revisit is not None:
        first = prune_agent(
            model,
            target,
            visits=visits,
            strategy=strategy,
            which=which,
            refit=refit,
            criterion=criterion,
            objective=objective,
            search=search,
            graph=graph,
        )
        watch.add(first.seconds)
        with watch.time("revisit"):
            visits = visits.joined(revisit(first.model))
    calibration = visits.run if refit else None
    with watch.time("score"):
        scores = (criterion or default_criterion(calibration))(graph, model)
    with watch.time("allocate"):
        asked = _comparison(model, visits, strategy, objective, search, refit)
        allocation = allocate(
            graph,
            scores,
            limited(target, graph, which),
            strategy=asked.strategy,
            model=model,
            objective=asked.objective,
            calibration=calibration,
            search=asked.search,
        )
    dense = allocation.dense(model)
    finisher = Finisher(model=dense, graph=graph, scores=scores, calibration=calibration, stopwatch=watch)
    if final is None:
        finished: tuple[Finished, ...] = (finisher.finish(own_choice(allocation)),)
    else:
        finished = finisher.choice(best_few(graph, scores, allocation, asked.objective, finalists), final)
    small = finished[0].model
    if distill_seconds:
        with watch.time("distill"):
            small = distill(
                small, dense, visits.batches(DISTILLED_ROWS), seconds=distill_seconds, plan=finished[0].plan
            )
    return PrunedAgent(
        model=small,
        plan=finished[0].plan,
        graph=graph,
        allocation=allocation,
        finalists=finished,
        visits=visits,
        seconds=dict(watch.seconds),
    )


@dataclass(frozen=True)
class _Comparison:
    """How a search compares candidates."""

    strategy: Strategy
    objective: Objective | None
    search: Search


def _comparison(
    model: nn.Module, visits: Visits, strategy: Strategy, objective: Objective | None, search: Search, refit: bool
) -> _Comparison:
    """The strategy with its loss, the objective where there is something to compare, and what candidates see."""
    if isinstance(strategy, (Uniform, NormBased)):  # one candidate: nothing to compare it with
        return _Comparison(strategy, None, search)
    searched, held_out = visits.split(HELD_OUT)
    if isinstance(strategy, GradientDescent) and strategy.loss_fn is None:
        loss = PredictionLoss(model, searched)
        strategy = replace(strategy, loss_fn=loss, batches=loss.batches)
    if refit and search.calibration is None:
        search = replace(search, calibration=searched.head(SEARCHED_ROWS).run)
    return _Comparison(strategy, objective or Minimize(PredictionError(model, held_out)), search)

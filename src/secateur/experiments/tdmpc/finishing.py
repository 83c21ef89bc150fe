"""Finish candidates, and choose between them by what counts: the search's best few, each as it would be used."""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch import nn

from secateur.allocation import AllocationResult, Evaluation, Minimize, Objective, Problem, Sparsity, meet, uniform_path
from secateur.allocation.evaluator import measured
from secateur.allocation.merit import Merit
from secateur.calibration import CalibrationData
from secateur.errors import TargetError
from secateur.graph.graph import DependencyGraph
from secateur.metrics import Estimate
from secateur.plan import FloatArray, PruningPlan, plan
from secateur.recovery import distill, refit
from secateur.surgery import apply
from secateur.verify import VerificationReport, verify

_APART = 0.1
"""Two finalists differ by at least this in the logarithm of some group's width."""


@dataclass(eq=False)
class Stopwatch:
    """Wall-clock seconds by phase; a phase that comes again adds to its own.

    Attributes:
        seconds: phase to seconds so far.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Count what runs inside as part of a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A candidate as it would be used.

    Attributes:
        evaluation: what the search knew of it.
        plan: which channels it has kept.
        model: the smaller model; refitted, if there was calibration data.
        report: the proof of its surgery.
        judged: the metric that decides; None if there is none.
    """

    evaluation: Evaluation
    plan: PruningPlan
    model: nn.Module
    report: VerificationReport
    judged: Estimate | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Finisher:
    """Makes smaller models of candidates: plan, surgery, proof and repair.

    Attributes:
        model: what is cut; untouched.
        graph: of it.
        scores: group name to importance, shape (group size,).
        calibration: what the smaller models are refitted on; None if they aren't.
        stopwatch: of the phases surgery, verify, refit, judge and distill.
    """

    model: nn.Module
    graph: DependencyGraph
    scores: Mapping[str, FloatArray]
    calibration: CalibrationData | None
    stopwatch: Stopwatch

    def finish(self, candidate: Evaluation) -> Finished:
        """One candidate.

        Raises:
            CalibrationError: the refit fails.
            VerificationError: the smaller model is not the original with channels removed.
        """
        with self.stopwatch.time("surgery"):
            pruning = plan(self.graph, self.scores, candidate.coefficients)
            small = apply(self.model, pruning)
        with self.stopwatch.time("verify"):
            report = verify(self.model, small, pruning)
        if self.calibration is not None:
            with self.stopwatch.time("refit"):
                refit(small, self.model, pruning, self.calibration)
        return Finished(evaluation=candidate, plan=pruning, model=small, report=report)

    def choice(self, candidates: Sequence[Evaluation], final: Objective) -> tuple[Finished, ...]:
        """All candidates finished, the best by the metric that decides first; of equals the earlier.

        Raises:
            CalibrationError: a refit fails.
            ObjectiveError: the metric fails.
            VerificationError: a smaller model is not the original with channels removed.
        """
        judged = [self._judged(self.finish(candidate), final) for candidate in candidates]
        return tuple(sorted(judged, key=lambda finished: -_worth(finished, final)))

    def distilled(
        self, finished: Finished, batches: CalibrationData, seconds: float, final: Objective | None
    ) -> Finished:
        """A candidate after a training against the dense model, judged if a metric decides; the given one stays.

        Args:
            finished: what is trained, a copy of it.
            batches: to train on.
            seconds: for how long.
            final: the metric that decides.

        Raises:
            CalibrationError: the training fails.
            ObjectiveError: the metric fails.
        """
        with self.stopwatch.time("distill"):
            model = copy.deepcopy(finished.model)
            distill(model, self.model, batches, seconds=seconds, plan=finished.plan)
        made = replace(finished, model=model, judged=None)
        return made if final is None else self._judged(made, final)

    def _judged(self, finished: Finished, final: Objective) -> Finished:
        with self.stopwatch.time("judge"):
            return replace(finished, judged=measured(final, finished.model, finished.plan))


def is_worse(finished: Finished, other: Finished, final: Objective) -> bool:
    """Whether the metric that decides, which both were judged by, finds one worse than the other."""
    return _worth(finished, final) < _worth(other, final)


def _worth(finished: Finished, final: Objective) -> float:
    """Of what was judged by a metric: higher is better."""
    if finished.judged is None:
        return 0.0
    return -finished.judged.value if isinstance(final, Minimize) else finished.judged.value


def own_choice(allocation: AllocationResult) -> Evaluation:
    """The candidate that the search itself chose."""
    return allocation.best or Evaluation(allocation.coefficients, allocation.sparsity, allocation.kept)


def best_few(
    graph: DependencyGraph,
    scores: Mapping[str, FloatArray],
    allocation: AllocationResult,
    objective: Objective | None,
    count: int,
) -> list[Evaluation]:
    """Candidates to finish: the search's own choice, uniform coefficients, and the best others that meet the target.

    A search ends with many candidates that hardly differ, so that each must be somewhat apart from all before it.
    Uniform coefficients guard against a search that was misled by what it measured.

    Args:
        graph: what was traced.
        scores: as in the search.
        allocation: what it found; for a target of parameters or multiply-adds.
        objective: what it compared candidates by.
        count: the most to return, at least 1; 1 is the search's own choice.

    Raises:
        TargetError: the target is of another kind, or the count below 1.
    """
    if count < 1:
        raise TargetError(f"a final choice needs at least 1 finalist, not {count}")
    target = allocation.target
    if not isinstance(target, Sparsity) or target.of == "latency":
        raise TargetError("a final choice compares models of one size: give a Sparsity of params or macs, or no final")
    problem = Problem(graph, scores, target)
    own = own_choice(allocation)
    uniform = problem.evaluation(meet(problem, uniform_path(problem)))
    others = [e for e in allocation.history if e.error is None and e.satisfied and e.on_target]
    if objective is not None:
        others.sort(key=Merit(objective).rank, reverse=True)
    return _apart([own, uniform, *others], count)


def _apart(ranked: Sequence[Evaluation], count: int) -> list[Evaluation]:
    """The first, then the next that are apart from all before, up to so many."""
    chosen = [ranked[0]]
    for candidate in ranked[1:]:
        if len(chosen) == count:
            break
        if min(_distance(candidate, other) for other in chosen) >= _APART:
            chosen.append(candidate)
    return chosen


def _distance(first: Evaluation, second: Evaluation) -> float:
    """The largest difference in the logarithm of a group's width."""
    return max(abs(math.log(kept / second.kept[name])) for name, kept in first.kept.items())

"""One agent pruned in one way, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import secateur
from secateur.allocation import Progress
from secateur.experiments.tdmpc.agent_graph import COMPONENTS
from secateur.experiments.tdmpc.pruning import DISTILLED_ROWS
from secateur.experiments.tdmpc.reproduction.memory import peak_memory
from secateur.experiments.tdmpc.reproduction.methods import METHODS, Job, Pruned
from secateur.experiments.tdmpc.reproduction.records import DistillationCost, Measured, Record
from secateur.experiments.tdmpc.reproduction.settings import Settings
from secateur.experiments.tdmpc.reproduction.subject import Subject
from secateur.experiments.torch_masks import mask_fraction, smallest_rows
from secateur.graph import Group
from secateur.recovery import Distillation

LATENT = "latent"
"""What the interface is called among the parts."""

PARTS = (*COMPONENTS, LATENT)
"""What is pruned alone: the components' own channels, and the latent state that they share."""


def run_method(
    subject: Subject,
    method: str,
    target: float,
    settings: Settings,
    *,
    refit: bool,
    on_progress: Callable[[Progress], object] | None = None,
) -> Record:
    """Prune by one method to one sparsity.

    Args:
        subject: the dense agent.
        method: a name in ``METHODS``.
        target: fraction of the parameters to remove.
        settings: of the reproduction.
        refit: whether to refit.
        on_progress: told of a search's progress.
    """
    chosen = METHODS[method]
    job = Job(subject=subject, settings=settings, target=target, refit=refit, on_progress=on_progress)
    with peak_memory() as peak:
        pruned = chosen.run(job)
    seconds = settings.distill if refit and chosen.is_distilled else 0.0
    return _record(subject, method, target, pruned, refit=refit, peak=peak.extra, distill=seconds)


def run_part(subject: Subject, part: str, level: float, settings: Settings, *, refit: bool) -> Record:
    """Remove a fraction of the channels of one part alone.

    Args:
        subject: the dense agent.
        part: a name in ``PARTS``.
        level: fraction of the channels of each of its groups.
        settings: of the reproduction.
        refit: whether to refit.
    """
    scores = subject.scores if refit else subject.plain_scores
    started = time.perf_counter()
    plan = secateur.plan(subject.graph, scores, {group.name: level for group in part_groups(subject, part)})
    model = secateur.apply(subject.model, plan)
    if refit:
        secateur.refit(model, subject.model, plan, subject.visits.run)
    pruned = Pruned(model=model, plan=plan, seconds={"surgery and refit": time.perf_counter() - started})
    return _record(subject, part, level, pruned, refit=refit, seeds=settings.sensitivity_seeds)


def run_masked(subject: Subject, fraction: float) -> Record:
    """Mask a fraction of the rows of every hidden layer as PyTorch does, and remove nothing.

    Args:
        subject: the dense agent.
        fraction: of the rows.
    """
    masked = mask_fraction(subject.model, subject.graph, fraction, smallest_rows, groups=subject.hidden)
    return _record(subject, "ln-structured", fraction, Pruned(model=masked.model, plan=masked.plan), refit=False)


def part_groups(subject: Subject, part: str) -> list[Group]:
    """The groups that a part stands for."""
    if part == LATENT:
        return [subject.latent]
    return [group for group in subject.hidden if group.components == (part,)]


def _record(
    subject: Subject,
    method: str,
    target: float,
    pruned: Pruned,
    *,
    refit: bool,
    peak: int | None = None,
    distill: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> Record:
    kept = {name: len(channels) for name, channels in pruned.plan.groups.items()}
    measured = subject.measure(pruned.model, pruned.plan, seeds)
    distilled, cost = _distilled(subject, pruned, distill) if distill else (None, None)
    return Record(
        method=method,
        target=target,
        refit=refit,
        sparsity=1 - subject.graph.cost(kept).parameters / subject.graph.cost().parameters,
        coefficients=pruned.plan.coefficients,
        kept=kept,
        evaluations=pruned.evaluations,
        seconds=dict(pruned.seconds),
        peak=peak,
        measured=measured,
        distilled=distilled,
        distillation=cost,
    )


def _distilled(subject: Subject, pruned: Pruned, seconds: float) -> tuple[Measured, DistillationCost]:
    """The pruned model itself is trained."""
    batches = (pruned.visits or subject.visits).batches(DISTILLED_ROWS)
    report = Distillation(seconds=seconds, plan=pruned.plan).run(pruned.model, subject.model, batches)
    cost = DistillationCost(seconds=report.seconds, steps=report.steps, improved=report.improved)
    return subject.measure(pruned.model, pruned.plan), cost

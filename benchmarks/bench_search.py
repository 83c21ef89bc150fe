"""What a search costs besides the user's objective and the refit: proposals, the budget, surgery, the storage.

    python benchmarks/bench_search.py --json search.json

BlackBox on a residual network with 100 channel groups, its measurements kept in an SQLite file. All of 1,000
evaluations would take hours, nearly all of them in refit. So every one goes through proposal, surgery and storage, but
only a few, spread over the search, are refitted and measured, and timed for all; the objective's value is a formula.
``--whole`` refits and measures every one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from models import ResidualStack
from torch import nn

import secateur
from secateur.allocation import BlackBox, Problem, Search, Sparsity
from secateur.allocation.black_box import Sampler
from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.allocation.search import MeasuredSearch
from secateur.allocation.workers import Inline
from secateur.graph.describe import plain_table, to_text
from secateur.plan import PruningPlan
from secateur.recovery.refit import Reference
from secateur.report.files import write_whole

BLOCKS = 99
IMAGES = 64


@dataclass(frozen=True, eq=False)
class Error:
    """Mean squared difference from the dense model's outputs, on the images that candidates are refitted on."""

    images: torch.Tensor
    targets: torch.Tensor

    def __call__(self, model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(self.images) - self.targets).square().mean())


class Sampled(Evaluator):
    """Refits and measures every n-th candidate only."""

    every: int
    candidates: int
    refits: list[float]
    metrics: list[float]

    def _refit(self, small: nn.Module, pruning: PruningPlan, reference: Reference) -> None:
        self.candidates += 1
        if self._is_sampled:
            started = time.perf_counter()
            super()._refit(small, pruning, reference)
            self.refits.append(time.perf_counter() - started)

    def _metrics(self, small: nn.Module, pruning: PruningPlan) -> Measurement:
        if self._is_sampled:
            started = time.perf_counter()
            super()._metrics(small, pruning)
            self.metrics.append(time.perf_counter() - started)
        shares = pruning.coefficients.values()
        return Measurement(-sum((1 + i % 7) * share**2 for i, share in enumerate(shares)))

    @property
    def _is_sampled(self) -> bool:
        return self.candidates % self.every == 0


@dataclass
class Costs:
    """Seconds per evaluation.

    Attributes:
        evaluations: how many were made.
        groups: channel groups of the model.
        proposal: proposing candidates and moving them onto the target.
        candidate: surgery, and what keeps candidates apart: the random state.
        storage: claims, results, signs of life.
        refit: of one candidate.
        objective: of one candidate.
    """

    evaluations: int
    groups: int
    proposal: float
    candidate: float
    storage: float
    refit: float
    objective: float
    share: float = field(init=False)

    def __post_init__(self) -> None:
        outside = self.proposal + self.candidate + self.storage
        self.share = outside / (outside + self.refit + self.objective)


class Clock:
    """Adds up the time inside calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def measured(evaluations: int, samples: int, sampler: Sampler, folder: Path) -> Costs:
    """Search, and time the parts."""
    torch.manual_seed(0)
    model, images = ResidualStack(BLOCKS).eval(), torch.randn(IMAGES, 3, 16, 16)
    graph = secateur.trace(model, images[:2])
    scores = secateur.importance.Magnitude()(graph, model)
    with torch.no_grad():
        objective = Error(images, model(images))
    evaluator = Sampled(graph, scores, model, objective, (), [images], refit_steps=0)
    evaluator.every, evaluator.candidates, evaluator.refits, evaluator.metrics = evaluations // samples, -1, [], []
    search = Search(storage=folder / "search.sqlite")
    inside, asked = Clock(), Clock()
    workers = Inline(evaluator)
    workers.submit = inside.around(workers.submit)  # type: ignore[method-assign]
    measurements = MeasuredSearch(evaluator, workers, search._ledger(evaluator))
    measurements.evaluate = asked.around(measurements.evaluate)  # type: ignore[method-assign]
    evaluator({})  # the dense model's run on the images, once
    problem = Problem(graph, scores, Sparsity(0.5), measurements)
    started = time.perf_counter()
    history = BlackBox(evaluations=evaluations, sampler=sampler)(problem).history
    total = time.perf_counter() - started
    timed = sum(evaluator.refits[1:]) + sum(evaluator.metrics[1:])
    return Costs(
        len(history),
        len(graph.groups),
        proposal=(total - asked.seconds) / evaluations,
        candidate=(inside.seconds - timed) / evaluations,
        storage=(asked.seconds - inside.seconds) / evaluations,
        refit=statistics.mean(evaluator.refits[1:]),
        objective=statistics.mean(evaluator.metrics[1:]),
    )


def table(costs: Sequence[Costs]) -> str:
    """Milliseconds per evaluation, and the share outside objective and refit."""
    columns = ["proposal", "candidate", "storage", "refit", "objective"]
    title = f"milliseconds per evaluation; torch threads: {torch.get_num_threads()}"
    shown = plain_table(title, "evaluations", "groups", *columns, "outside", numeric=[*columns, "outside"])
    for cost in costs:
        values = [f"{1000 * getattr(cost, column):.1f}" for column in columns]
        shown.add_row(str(cost.evaluations), str(cost.groups), *values, f"{cost.share:.2%}")
    return to_text([shown])


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=5, help="candidates that are refitted and measured")
    parser.add_argument("--sampler", choices=get_args(Sampler), default="auto")
    parser.add_argument("--whole", action="store_true", help="refit and measure all of them")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    samples = arguments.evaluations if arguments.whole else arguments.samples
    with tempfile.TemporaryDirectory() as folder:
        costs = measured(arguments.evaluations, samples, arguments.sampler, Path(folder))
    print(table([costs]))
    if arguments.json is not None:
        write_whole(arguments.json, (json.dumps(vars(costs), indent=2) + "\n").encode())


if __name__ == "__main__":
    main()

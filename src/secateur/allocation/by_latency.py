"""Targets of latency: multiply-adds are the search's coordinate, the clock decides.

Latency has no closed form, and timing every candidate that a search rejects would take most of its time. So the
strategy solves for a sparsity of multiply-adds, the result is built and timed against the dense model, and the sparsity
of multiply-adds is moved until the measured one is within the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

from secateur.allocation.budget import meet, uniform_path
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult
from secateur.allocation.strategy import Strategy
from secateur.allocation.targets import Sparsity
from secateur.allocation.uniform import Uniform
from secateur.calibration import evaluating
from secateur.errors import ConstraintError, InfeasibleError
from secateur.latency import measure_latency
from secateur.plan import plan
from secateur.surgery import apply

_STEPS = 8
"""Sparsities of multiply-adds that are tried, at most, with uniform coefficients and again with the strategy's."""

_BESIDE = 0.2
"""How far from the uniform coefficients' sparsity of multiply-adds the strategy's is looked for."""


@dataclass(frozen=True)
class _Timed:
    """A result with its sparsity of multiply-adds as asked, and of latency as measured."""

    result: AllocationResult
    macs: float
    latency: float


def by_latency(problem: Problem, target: Sparsity, rho: float, strategy: Strategy) -> AllocationResult:
    """Meet a target of measured latency with a strategy that meets targets of multiply-adds.

    Uniform coefficients are tried first, at up to 8 sparsities, because they take no search and nothing but the latency
    is measured of them; the strategy goes on from where they meet the target. The result's history is that of all of
    the strategy's searches.

    Args:
        problem: the graph, scores and measurements, with the model; its own target is replaced.
        target: of latency.
        rho: the fraction of the latency to remove.
        strategy: searches at one sparsity of multiply-adds.

    Raises:
        InfeasibleError: no sparsity of multiply-adds that was tried gives a latency within the tolerance; the message
            names the nearest.
        ConstraintError: no candidate satisfies every constraint at any of them.
    """
    wanted = replace(target, rho=rho, of="macs")
    found = _bisected(problem, wanted, rho, _uniform, 0.0, 1.0, rho)
    if isinstance(strategy, Uniform):
        found = replace(found, result=strategy(problem.at(replace(wanted, rho=found.macs))))
    else:
        low, high = max(0.0, found.macs - _BESIDE), min(1.0, found.macs + _BESIDE)
        found = _bisected(problem, wanted, rho, strategy, low, high, found.macs)
    if abs(found.latency - rho) > target.tolerance:
        raise InfeasibleError(
            f"a latency sparsity of {rho:g} (within {target.tolerance:g}) wasn't met: the nearest measured is "
            f"{found.latency:.3f}, with {found.macs:.3f} of the MACs removed and {torch.get_num_threads()} threads; "
            "ask for that, allow a larger tolerance, or measure on a quieter machine"
        )
    return replace(found.result, sparsity=found.latency, target=target)


def _bisected(
    problem: Problem, target: Sparsity, rho: float, strategy: Strategy, low: float, high: float, start: float
) -> _Timed:
    """The result nearest in latency, among those between two sparsities of multiply-adds; the first at ``start``."""
    tried: list[_Timed] = []
    macs, unmet = start, None
    for _ in range(_STEPS):
        try:
            result = strategy(problem.at(replace(target, rho=macs)))
        except (InfeasibleError, ConstraintError) as error:
            high, unmet = macs, error  # so much can't leave
        else:
            tried.append(_Timed(result, macs, latency_sparsity(problem, result)))
            if abs(tried[-1].latency - rho) <= target.tolerance / 2:
                break
            low, high = (macs, high) if tried[-1].latency < rho else (low, macs)
        macs = (low + high) / 2
    if not tried and unmet is not None:
        raise unmet
    nearest = min(tried, key=lambda timed: abs(timed.latency - rho))
    history = tuple(evaluation for timed in tried for evaluation in timed.result.history)
    return replace(nearest, result=replace(nearest.result, history=history))


def _uniform(problem: Problem) -> AllocationResult:
    """Uniform coefficients, of which nothing is measured."""
    return problem.result(problem.evaluation(meet(problem, uniform_path(problem))))


def latency_sparsity(problem: Problem, result: AllocationResult) -> float:
    """What a result removes of the entry point's latency, measured against the dense model with torch's threads."""
    graph, model = problem.graph, problem.model
    small = apply(model, plan(graph, problem.scores, result.coefficients))
    calls = {name: partial(graph.entry_point, m) for name, m in (("dense", model), ("small", small))}
    with evaluating(model, small):
        times = measure_latency(calls, threads=torch.get_num_threads())
    return 1 - times["small"].median / times["dense"].median

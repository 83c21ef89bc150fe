"""What the analysis itself costs: time and memory of trace, scores, plan, surgery, proof and refit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import secateur
from secateur.experiments.tdmpc.agent_graph import trace_agent
from secateur.experiments.tdmpc.reproduction.memory import peak_memory
from secateur.experiments.tdmpc.reproduction.subject import Subject
from secateur.importance import Reconstruction

_Result = TypeVar("_Result")

REMOVED = 0.5
"""Fraction of the parameters that leaves while the analysis is timed."""


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        seconds: wall-clock time.
        peak: bytes needed beyond what the process held before; None where that can't be measured.
    """

    seconds: float
    peak: int | None


@dataclass(frozen=True)
class AnalysisRecord:
    """All phases of one pruning with uniform coefficients, in order.

    Attributes:
        phases: name to cost.
        rows: of the calibration data, at each step of the rollouts.
    """

    phases: Mapping[str, Phase]
    rows: int

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> AnalysisRecord:
        """What ``dataclasses.asdict`` gave, read back from JSON.

        Raises:
            KeyError: something is missing.
            TypeError: these aren't its fields.
        """
        return cls({name: Phase(**phase) for name, phase in data["phases"].items()}, data["rows"])


def analysis_cost(subject: Subject) -> AnalysisRecord:
    """Go through the phases twice, and report the second time: the first loads what Python and PyTorch load once."""
    _phases(subject)
    return AnalysisRecord(_phases(subject), subject.visits.rows)


def _phases(subject: Subject) -> Mapping[str, Phase]:
    meter, model, visits = _Meter(), subject.model, subject.visits
    graph = meter.run("trace", lambda: trace_agent(model, visits))
    scores = meter.run("scores", lambda: Reconstruction(visits.run)(graph, model))
    target = secateur.Sparsity(REMOVED)
    allocation = meter.run("allocation, uniform", lambda: secateur.allocate(graph, scores, target))
    plan = meter.run("plan", lambda: secateur.plan(graph, scores, allocation.coefficients))
    small = meter.run("surgery", lambda: secateur.apply(model, plan))
    meter.run("proof", lambda: secateur.verify(model, small, plan))
    meter.run("refit", lambda: secateur.refit(small, model, plan, visits.run))
    return meter.phases


class _Meter:
    """Time and memory, phase by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, Phase] = {}

    def run(self, name: str, work: Callable[[], _Result]) -> _Result:
        started = time.perf_counter()
        with peak_memory() as peak:
            result = work()
        self.phases[name] = Phase(time.perf_counter() - started, peak.extra)
        return result

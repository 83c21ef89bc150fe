"""What planning costs, dense and pruned: time of a step, and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

import secateur
from secateur.experiments.tdmpc.planner import Planner, WorldModel
from secateur.experiments.tdmpc.reproduction.memory import peak_tensors
from secateur.experiments.tdmpc.reproduction.records import Record
from secateur.experiments.tdmpc.reproduction.subject import Subject
from secateur.latency import Latency, measure_latency

ONE, PLANNED = "one state", "planning step"
"""The model alone on one state and action: encode, next, act, q; and the planner's whole step in one episode."""

THREADS = 1


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one model's planning costs.

    Attributes:
        weights: bytes of the parameters.
        latency: seconds for one state, and for a planning step, by ``ONE`` and ``PLANNED``.
        tensors: bytes of living tensors at the peak of these, beyond the weights.
    """

    weights: int
    latency: Mapping[str, Latency]
    tensors: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class TimedModel:
    """A pruned model's cost.

    Attributes:
        method: that pruned it.
        target: the sparsity that was asked for.
        cost: of planning with it.
    """

    method: str
    target: float
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class PlanningRecord:
    """Costs of several models, measured in turns on one thread.

    Attributes:
        dense: the dense model's.
        pruned: the others', method by method, in the order of the sparsities.
    """

    dense: Cost
    pruned: tuple[TimedModel, ...]

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> PlanningRecord:
        """What ``dataclasses.asdict`` gave, read back from JSON.

        Raises:
            KeyError: something is missing.
            TypeError: these aren't its fields.
        """
        pruned = tuple(TimedModel(**{**each, "cost": _cost(each["cost"])}) for each in data["pruned"])
        return cls(dense=_cost(data["dense"]), pruned=pruned)


def planning_costs(subject: Subject, records: Sequence[Record], repeats: int) -> PlanningRecord:
    """Time the dense model and others against each other.

    Args:
        subject: the dense agent.
        records: pruned agents; only their widths matter.
        repeats: of every measurement.
    """
    models = [subject.model, *(_of_widths(subject, record.kept) for record in records)]
    calls = {(i, what): call for i, model in enumerate(models) for what, call in _calls(subject, model).items()}
    latency = measure_latency(calls, repeats=repeats, threads=THREADS)
    dense, *pruned = (
        Cost(
            weights=sum(p.numel() * p.element_size() for p in model.parameters()),
            latency={what: latency[i, what] for what in (ONE, PLANNED)},
            tensors={what: peak_tensors(calls[i, what]) for what in (ONE, PLANNED)},
        )
        for i, model in enumerate(models)
    )
    timed = (
        TimedModel(method=record.method, target=record.target, cost=cost)
        for record, cost in zip(records, pruned, strict=True)
    )
    return PlanningRecord(dense=dense, pruned=tuple(timed))


def _of_widths(subject: Subject, kept: Mapping[str, int]) -> nn.Module:
    scores = {group.name: np.ones(group.size) for group in subject.graph.groups}
    coefficients = {group.name: 1 - kept[group.name] / group.size for group in subject.graph.groups}
    return secateur.apply(subject.model, secateur.plan(subject.graph, scores, coefficients))


def _calls(subject: Subject, model: nn.Module) -> dict[str, Callable[[], object]]:
    world = cast(WorldModel, model)
    visits = subject.visits.head(1)
    planner = Planner(world, subject.agent.config, visits.actions.shape[-1], seeds=[0])

    def one() -> tuple[Tensor, ...]:
        latent = world.encode(visits.observations)
        return *world.next(latent, visits.actions[0]), world.act(latent), *world.q(latent, visits.actions[0])

    return {ONE: one, PLANNED: lambda: planner.act(visits.observations)}


def _cost(data: Mapping[str, Any]) -> Cost:
    latency = {what: Latency(**each) for what, each in data["latency"].items()}
    return Cost(weights=data["weights"], latency=latency, tensors=data["tensors"])

"""Every model of the zoo: the groups one expects, pruned equal to masked, predicted cost equal to counted."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import nn

from secateur.graph import DependencyGraph, trace
from secateur.surgery import apply
from secateur.verify import verify
from tests.models.case import Case
from tests.models.zoo import CASES
from tests.removal import (
    counted_macs,
    counted_parameters,
    largest_difference,
    masked,
    mixing_groups,
    outputs,
    random_plan,
    train_step,
)


@dataclass(frozen=True)
class Subject:
    """A case with its model, entry point and graph, made once for all its tests; tests leave the model as it is."""

    case: Case

    @cached_property
    def model(self) -> nn.Module:
        return self.case.model()

    @cached_property
    def run(self) -> Any:
        return self.case.entry_point()

    @cached_property
    def graph(self) -> DependencyGraph:
        return trace(self.model, run=self.run)


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


def test_groups_are_the_expected_ones(subject: Subject) -> None:
    graph, case = subject.graph, subject.case
    assert {g.name: g.size for g in graph.groups} == case.groups
    assert {g.name: g.blocks for g in graph.groups if g.blocks > 1} == case.blocks
    assert {frozenset(graph.groups[i].name for i in tie) for tie in graph.ties if len(tie) > 1} == set(case.ties)
    assert not graph.missing_rules


def test_mixing_is_named_exactly_where_it_is(subject: Subject) -> None:
    found = {g.name: g.mixing for g in mixing_groups(subject.graph)}
    assert set(found) == set(subject.case.mixing)
    for name, word in subject.case.mixing.items():
        assert any(word in reason for reason in found[name])


@pytest.mark.parametrize("seed", [0, 1])
def test_pruned_equals_masked(subject: Subject, seed: int) -> None:
    case, graph = subject.case, subject.graph
    keep = {*case.keep, *case.mixing}
    chosen = random_plan(graph, seed, keep=keep)
    expected = outputs(subject.run, masked(subject.model, graph, chosen, everything=case.mask == "all"))
    pruned = outputs(subject.run, apply(subject.model, chosen))
    assert largest_difference(pruned, expected) < 1e-9
    if not chosen.is_empty:
        assert largest_difference(expected, outputs(subject.run, subject.model)) > 1e-6


def test_cost_is_exact_and_the_smaller_model_lives_on(subject: Subject) -> None:
    graph = subject.graph
    chosen = random_plan(graph, seed=2)
    small = apply(subject.model, chosen)
    predicted = graph.cost({name: len(kept) for name, kept in chosen.groups.items()})
    again = trace(small, run=subject.run)
    assert predicted.parameters == counted_parameters(small) == again.cost().parameters
    assert predicted.macs == again.cost().macs
    if subject.case.counted:
        assert predicted.macs == counted_macs(subject.run, small)
    shapes = [t.shape for t in outputs(subject.run, subject.model)]
    assert [t.shape for t in outputs(subject.run, small)] == shapes
    assert train_step(subject.run, small)


def test_the_proof_agrees(subject: Subject) -> None:
    chosen = random_plan(subject.graph, seed=6)
    report = verify(subject.model, apply(subject.model, chosen), chosen)
    assert {*report.exact, *report.mixing} == {
        g.name for g in subject.graph.groups if len(chosen.groups[g.name]) < g.size
    }


def test_pruning_twice(subject: Subject) -> None:
    once = apply(subject.model, random_plan(subject.graph, seed=3))
    graph = trace(once, run=subject.run)
    chosen = random_plan(graph, seed=4, keep={*subject.case.keep, *subject.case.mixing})
    expected = outputs(subject.run, masked(once, graph, chosen, everything=subject.case.mask == "all"))
    assert largest_difference(outputs(subject.run, apply(once, chosen)), expected) < 1e-9


def test_tracing_and_applying_leave_the_model_alone(subject: Subject) -> None:
    model = subject.case.model()
    before = copy.deepcopy(model.state_dict())
    apply(model, random_plan(trace(model, run=subject.run), seed=5))
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)

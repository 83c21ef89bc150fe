"""Paths to whole channels that meet a target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import secateur
from secateur.allocation import Problem, Sparsity, direction_path, meet, nearby_path, uniform_path
from secateur.allocation.budget import path_sparsities
from secateur.errors import InfeasibleError, TargetError
from tests.handmade import linear_chain, random_scores


def problem(target: Sparsity, widths: tuple[int, ...] = (48, 64, 40, 32, 56, 24)) -> Problem:
    graph = linear_chain(list(widths), per_component=2).graph()
    return Problem(graph, random_scores(graph), target)


@given(
    st.floats(0.05, 0.9),
    st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4),
    st.sampled_from(["uniform", "directions", "nearby"]),
)
def test_every_path_meets_the_target(rho: float, numbers: list[float], kind: str) -> None:
    searched = problem(Sparsity(rho))
    values = np.array(numbers)
    paths = {
        "uniform": uniform_path(searched),
        "directions": direction_path(searched, values),
        "nearby": nearby_path(searched, np.clip(values, 0, 0.99)),
    }
    levels = meet(searched, paths[kind])
    assert abs(float(searched.sparsity(levels)) - rho) <= 0.01
    assert bool(searched.is_met_by(levels))


@pytest.mark.parametrize("rho", [0.1, 0.35, 0.6, 0.85])
def test_equal_directions_are_the_uniform_path(rho: float) -> None:
    searched = problem(Sparsity(rho))
    assert np.array_equal(meet(searched, direction_path(searched, np.ones(4))), meet(searched, uniform_path(searched)))


@given(st.lists(st.integers(0, 23), min_size=4, max_size=4).filter(any))
def test_coefficients_that_meet_the_target_stay(chosen: list[int]) -> None:
    levels = np.array(chosen)
    rho = float(problem(Sparsity(0.5)).sparsity(levels))
    searched = problem(Sparsity(rho, tolerance=1e-9))
    assert np.array_equal(meet(searched, nearby_path(searched, searched.coefficients(levels))), levels)


def test_a_steeper_direction_loses_more() -> None:
    searched = problem(Sparsity(0.5))
    coefficients = searched.coefficients(meet(searched, direction_path(searched, np.array([1.0, 0.2, 1.0, 0.2]))))
    assert coefficients[[0, 2]].min() > coefficients[[1, 3]].max()
    # The fraction kept falls as exp(-t d).
    assert np.log1p(-coefficients[0]) / np.log1p(-coefficients[1]) == pytest.approx(5, rel=0.2)


def test_direction_zero_stays_whole() -> None:
    searched = problem(Sparsity(0.4))
    levels = meet(searched, direction_path(searched, np.array([1.0, 0.0, 1.0, 1.0])))
    assert levels[1] == 0
    assert levels[0] > 0


def test_caps_of_groups_and_components_hold() -> None:
    target = Sparsity(0.5, caps={"c0": 0.3, "c2.0": 0.25}, tolerance=0.01)
    searched = problem(target, (48, 64, 40, 32, 56, 24, 16))
    assert {g.name for g in searched.graph.groups} >= {"c0.0", "c2.0"}
    levels = meet(searched, uniform_path(searched))
    assert float(searched.sparsity(levels)) == pytest.approx(0.5, abs=0.01)
    assert float(searched.sparsity(levels, "c0")) <= 0.3
    kept = dict(zip((g.name for g in searched.graph.groups), searched.kept(levels).tolist(), strict=True))
    assert kept["c2.0"] >= 0.75 * searched.graph.group("c2.0").size


@pytest.mark.parametrize(("cap", "rho"), [(0.28, 0.3), (0.34, 0.5)])
def test_a_cap_holds_where_single_channels_are_large(cap: float, rho: float) -> None:
    # Four channels: those above the cap are nearer to its aim than those below.
    searched = problem(Sparsity(rho, tolerance=0.04, caps={"c0": cap}), (8, 4, 8, 30, 8))
    levels = meet(searched, uniform_path(searched))
    assert bool(searched.is_met_by(levels))
    assert float(searched.sparsity(levels, "c0")) <= cap


def test_a_cap_of_a_component_without_cost_holds() -> None:
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    graph = secateur.trace(model, torch.zeros(1, dtype=torch.int64))
    searched = Problem(graph, random_scores(graph), Sparsity(0.5, of="macs", tolerance=0.1, caps={"0": 0.3}))
    assert abs(float(searched.sparsity(meet(searched, uniform_path(searched)))) - 0.5) <= 0.1


def test_a_cap_that_shared_channels_exceed_is_an_error() -> None:
    searched = problem(Sparsity(0.8, caps={"c1": 0.05}))
    with pytest.raises(InfeasibleError, match=r"the cap of 0\.05 of component 'c1' can't be kept: channels"):
        meet(searched, uniform_path(searched))


def test_interfaces_keep_what_was_given() -> None:
    searched = problem(Sparsity(0.5, interfaces={"c0.1": 0.25}))
    levels = meet(searched, uniform_path(searched))
    names = [g.name for g in searched.graph.groups]
    assert searched.kept(levels)[names.index("c0.1")] == 30
    assert float(searched.sparsity(levels)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Sparsity(0.5, caps={"c9": 0.5}), "no component or group is called 'c9'; there are components 'c0', "),
        (Sparsity(0.5, protected=["latent"]), "no component or group is called 'latent'"),
        (Sparsity(interfaces={"c9.0": 0.5}), "no channel group is called 'c9.0'; there are 'c0.0', "),
        (Sparsity(components={"c9": 0.5}), "no component is called 'c9'; there are 'c0', 'c1'"),
        (
            Sparsity(interfaces={"c0.1": 0.4}, round_to=32),
            r"the coefficient 0\.4 of 'c0\.1' can't be met .* nearest is 0\.2",
        ),
    ],
)
def test_names_that_are_not_there(target: Sparsity, message: str) -> None:
    searched = problem(target)
    with pytest.raises(TargetError, match=message):
        meet(searched, uniform_path(searched))


def test_sparsities_of_a_path_are_reachable() -> None:
    searched = problem(Sparsity(0.5, tolerance=1e-9))
    reachable = path_sparsities(searched, uniform_path(searched))
    assert reachable == sorted(set(reachable))
    assert reachable[0] == 0
    for rho in reachable[1:-1:7]:
        again = problem(Sparsity(rho, tolerance=1e-9))
        assert float(again.sparsity(meet(again, uniform_path(again)))) == pytest.approx(rho, abs=1e-9)
    assert len(path_sparsities(searched, uniform_path(searched), most=10)) == 10

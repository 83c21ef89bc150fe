from __future__ import annotations

import numpy as np
import pytest

from secateur.allocation import Constraint, Random, Sparsity
from secateur.errors import ConstraintError, InfeasibleError, ObjectiveError, SearchError
from tests.allocation.formula import every_level, posed
from tests.handmade import linear_chain

GRAPH = linear_chain([400, 500, 500, 500, 400]).graph()


def test_groups_shrink_in_random_proportions() -> None:
    problem, _ = posed(GRAPH, Sparsity(0.5))
    shares = []
    for seed in range(200):
        kept = Random(seed=seed)(problem).kept
        directions = np.random.default_rng(seed).exponential(size=3)
        shrinkages = -np.log([kept[g.name] / 500 for g in GRAPH.groups])
        if min(kept.values()) > 10:  # rounding to whole channels matters little
            assert shrinkages / shrinkages.sum() == pytest.approx(directions / directions.sum(), abs=0.03)
        shares.append(shrinkages / shrinkages.sum())
    # All mixtures are equally likely: shares of three have mean 1/3 and standard deviation sqrt(2 / 36).
    assert np.mean(shares, axis=0) == pytest.approx([1 / 3] * 3, abs=0.06)
    assert np.std(shares, axis=0) == pytest.approx([0.2357] * 3, abs=0.03)


def test_one_draw_needs_no_objective() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.5, tolerance=1e-3))
    result = Random(seed=3)(problem)
    assert abs(result.sparsity - 0.5) <= 1e-3
    assert measurements.batches == []
    assert result.kept == Random(seed=3)(problem).kept != Random(seed=4)(problem).kept


def test_the_best_of_several_draws() -> None:
    problem, measurements = posed(GRAPH, Sparsity(0.5), lambda kept: kept["c0.0"] - kept["c2.0"])
    result = Random(draws=30)(problem)
    (batch,) = measurements.batches
    assert len(batch) == len(result.history) == measurements.expected == 30
    assert result.best == max(batch, key=lambda e: e.objective or 0)
    assert result.history[0].kept == Random()(problem).kept
    assert len({tuple(e.kept.values()) for e in batch}) == 30


def test_directions_that_miss_the_target_are_bent_until_they_meet_it() -> None:
    graph = linear_chain([4, 3, 5, 3, 4]).graph()
    problem, _ = posed(graph, Sparsity(0.4, tolerance=0.01), lambda kept: 0.0)
    found = Random(draws=10)(problem)
    expected = {tuple(problem.kept(levels).tolist()) for levels in every_level(problem)}
    assert len(expected) == 3  # and the paths of two directions in five miss all of them
    kept = [tuple(e.kept.values()) for e in found.history]
    assert set(kept) <= expected
    assert len(kept) == len(set(kept)) > 1


def test_what_cannot_be_met() -> None:
    problem, _ = posed(linear_chain([4, 2, 4]).graph(), Sparsity(0.9))
    with pytest.raises(InfeasibleError, match=r"0\.9 .* can't be met: the largest possible is 0\.4091"):
        Random()(problem)


def test_constraints_decide_too() -> None:
    bound = Constraint(lambda model: 0.0, at_most=0.5, name="width")
    widths = {"width": lambda kept: kept["c1.0"]}
    problem, _ = posed(GRAPH, Sparsity(0.5), lambda kept: kept["c1.0"], constraints=[bound], bounded=widths)
    best = Random(draws=40)(problem).best
    assert best is not None
    assert 0.4 < best.constraints["width"] <= 0.5
    problem, _ = posed(
        GRAPH,
        Sparsity(0.5),
        None,
        constraints=[Constraint(lambda model: 0.0, at_least=2.0, name="width")],
        bounded=widths,
    )
    with pytest.raises(ConstraintError, match="no candidate satisfies every constraint; the nearest miss"):
        Random(draws=5)(problem)


def test_wrong_settings() -> None:
    with pytest.raises(SearchError, match="draws must be a whole number, at least 1; it is 0"):
        Random(draws=0)
    problem, _ = posed(GRAPH, Sparsity(0.5))
    with pytest.raises(ObjectiveError, match="compares candidates by the application's metric: give objective="):
        Random(draws=2)(problem)

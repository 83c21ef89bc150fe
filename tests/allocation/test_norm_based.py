from __future__ import annotations

import numpy as np
import pytest

from secateur.allocation import NormBased, Problem, Sparsity, Uniform
from secateur.errors import InfeasibleError, SearchError
from secateur.graph.graph import DependencyGraph
from secateur.plan import FloatArray
from tests.handmade import GraphSketch, GroupSketch, linear_chain

Scores = dict[str, FloatArray]
GRAPH = linear_chain([30, 40, 60, 50, 30]).graph()


def drawn(graph: DependencyGraph, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    return {g.name: rng.lognormal(mean=rng.normal(), size=g.size) for g in graph.groups}


def kept(graph: DependencyGraph, scores: Scores, target: Sparsity, strategy: NormBased) -> dict[str, int]:
    return dict(strategy(Problem(graph, scores, target)).kept)


def threshold_counts(graph: DependencyGraph, scores: Scores, target: Sparsity) -> list[dict[str, int]]:
    """Kept counts, for every global threshold that meets the target, by trying all; every group keeps one channel."""
    found = []
    for threshold in np.sort(np.concatenate(list(scores.values()))):
        counts = {name: max(1, int((s > threshold).sum())) for name, s in scores.items()}
        sparsity = 1 - graph.cost(counts).parameters / graph.cost().parameters
        if target.rho is not None and abs(sparsity - target.rho) <= target.tolerance:
            found.append(counts)
    return found


@pytest.mark.parametrize("rho", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_threshold_for_all(rho: float, seed: int) -> None:
    scores, target = drawn(GRAPH, seed), Sparsity(rho, tolerance=0.02)
    assert kept(GRAPH, scores, target, NormBased(normalization="none")) in threshold_counts(GRAPH, scores, target)
    normalized = {name: s / s.mean() for name, s in scores.items()}
    assert kept(GRAPH, scores, target, NormBased()) in threshold_counts(GRAPH, normalized, target)


def test_the_scale_of_a_group_matters_only_without_normalization() -> None:
    scores, target = drawn(GRAPH), Sparsity(0.5)
    scaled = scores | {"c1.0": 100 * scores["c1.0"]}
    assert kept(GRAPH, scores, target, NormBased()) == kept(GRAPH, scaled, target, NormBased())
    raw = NormBased(normalization="none")
    assert kept(GRAPH, scaled, target, raw)["c1.0"] == 60 > kept(GRAPH, scores, target, raw)["c1.0"]


def test_ranks_make_all_groups_shrink_alike() -> None:
    rng = np.random.default_rng(0)
    scores: Scores = {g.name: np.float64(1) + rng.permutation(g.size) for g in GRAPH.groups}
    problem = Problem(GRAPH, scores, Sparsity(0.5))
    assert list(NormBased()(problem).coefficients.values()) == pytest.approx(
        list(Uniform()(problem).coefficients.values()), abs=0.03
    )


def test_scores_of_nothing_and_below_zero_keep_their_order() -> None:
    scores = drawn(GRAPH)
    dead = scores | {"c1.0": np.zeros(60)}
    assert kept(GRAPH, dead, Sparsity(0.8), NormBased())["c1.0"] == 1
    # Equal scores leave one by one where all at once is too much.
    assert list(kept(GRAPH, dead, Sparsity(0.4), NormBased()).values()) == pytest.approx([40, 25, 50], abs=1)
    below = {name: s - 5 for name, s in scores.items()}
    assert kept(GRAPH, below, Sparsity(0.4), NormBased(normalization="none")) == kept(
        GRAPH, scores, Sparsity(0.4), NormBased(normalization="none")
    )


def test_what_leaves_together_competes_with_its_mean() -> None:
    """Two groups of 12 channels: one leaves in pairs, one from each of its two blocks; the other one by one."""
    shapes = {"c.a": (12, 5), "c.b": (12, 5)}
    graph = GraphSketch(
        shapes,
        [GroupSketch("a", 12, {("c.a", 0): None}, blocks=2, units=6), GroupSketch("b", 12, {("c.b", 0): None})],
    ).graph()
    scores = {"a": np.concatenate([np.arange(6), 10.0 + np.arange(6)]), "b": np.linspace(7.4, 18.4, 12)}
    # Pairs of a: 0 & 10, 1 & 11, ... have means 5, 6, 7, 8, 9, 10. b has 7.4, 8.4, 9.4, ...
    for removed, expected in ((2, (10, 12)), (6, (6, 12)), (7, (6, 11)), (9, (4, 11)), (10, (4, 10)), (12, (2, 10))):
        counts = kept(graph, scores, Sparsity(removed / 24, tolerance=1e-6), NormBased(normalization="none"))
        assert (counts["a"], counts["b"]) == expected


def test_tied_groups_compete_together() -> None:
    shapes = {"c.a": (4, 5), "c.b": (8, 5), "c.d": (8, 5)}
    sketches = [
        GroupSketch("a", 4, {("c.a", 0): None}, tie=0, units=4),
        GroupSketch("b", 8, {("c.b", 0): None}, tie=0, units=4),
        GroupSketch("d", 8, {("c.d", 0): None}, tie=1),
    ]
    graph = GraphSketch(shapes, sketches).graph()
    scores = {"a": np.full(4, 9.0), "b": np.full(8, 3.0), "d": np.full(8, 4.9)}
    raw = NormBased(normalization="none")
    # A step of the tie: (9 + 3 + 3) / 3 = 5, above 4.9.
    assert kept(graph, scores, Sparsity(7 / 20, tolerance=1e-6), raw) == {"a": 4, "b": 8, "d": 1}
    scores["d"] += 0.2
    assert kept(graph, scores, Sparsity(9 / 20, tolerance=1e-6), raw) == {"a": 1, "b": 2, "d": 8}


def test_wrong_input() -> None:
    with pytest.raises(SearchError, match="normalization must be 'mean' or 'none', not 'l2'"):
        NormBased(normalization="l2")  # type: ignore[arg-type]
    with pytest.raises(InfeasibleError, match="can't be met"):
        kept(GRAPH, drawn(GRAPH), Sparsity(0.9999), NormBased())


def test_the_order_bends_where_it_cannot_meet_the_targets_of_components() -> None:
    """The interface scores so low that it would leave nearly whole, and with it more of c0 than is asked for."""
    graph = linear_chain([12, 16, 20, 12, 16, 12, 12], per_component=2).graph()
    target = Sparsity(0.4, components={"c0": 0.4}, tolerance=0.03)
    scores = {g.name: np.random.default_rng(0).random(g.size) + 1 for g in graph.groups}
    scores["c0.1"] /= 1000
    raw = NormBased(normalization="none")
    result = raw(Problem(graph, scores, target))
    assert abs(result.sparsity - 0.4) <= 0.03
    assert abs(result.component_sparsities["c0"] - 0.4) <= 0.03
    uniform = Uniform()(Problem(graph, scores, target))
    assert result.kept["c0.1"] == 10 < uniform.kept["c0.1"]  # and not 1

"""Pruning an agent: what leaves, what is proved and repaired, and that searches find more than uniform coefficients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from secateur.allocation import BlackBox, GradientDescent, Minimize, NormBased, Search, Sensitivity, Sparsity
from secateur.errors import CalibrationError, ObjectiveError, TargetError
from secateur.experiments.tdmpc.agent_graph import trace_agent
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.planner import Planner
from secateur.experiments.tdmpc.pruning import PrunedAgent, prune_agent
from secateur.experiments.tdmpc.surrogate import PredictionError
from secateur.experiments.tdmpc.told import Told
from secateur.experiments.tdmpc.visits import Visits
from secateur.graph.groups import Role
from secateur.importance import Magnitude
from tests.experiments.tdmpc.small_agent import LATENT, random_visits, small_told

VISITS = random_visits(400)
TEST_VISITS = random_visits(300, seed=1)


def redundant_told() -> Told:
    """The reward's and the policy's hidden channels are copies of a few: all but these can leave without a loss."""
    model = small_told()
    with torch.no_grad():
        for part in (model.reward, model.pi):
            for layer in (part[0], part[2]):
                assert isinstance(layer, nn.Linear)
                layer.weight.copy_(layer.weight[torch.arange(16) % 2].clone())
    return model


def widths(pruned: PrunedAgent) -> dict[str, int]:
    return {name: len(kept) for name, kept in pruned.plan.groups.items()}


def dense_widths() -> dict[str, int]:
    return {group.name: group.size for group in trace_agent(small_told(), VISITS).groups}


def masked(model: nn.Module, pruned: PrunedAgent) -> nn.Module:
    """The dense model, with zeros where what left was read."""
    copied = copy.deepcopy(model)
    tensors = dict(copied.named_parameters())
    with torch.no_grad():
        for group in pruned.graph.groups:
            for member in group.members_with(Role.CONSUMER):
                gone = [c for c in range(group.size) if c not in pruned.plan.groups[group.name]]
                tensors[member.parameter].index_fill_(member.axis, torch.tensor(gone, dtype=torch.int64), 0)
    return copied


def test_pruned_is_masked_without_refit() -> None:
    """But for the values' first layers, whose channels are normalised together: these are kept here."""
    model = small_told()
    target = Sparsity(0.4, protected=["q1.0", "q2.0"])
    pruned = prune_agent(model, target, visits=VISITS, refit=False)
    assert pruned.allocation.sparsity == pytest.approx(0.4, abs=0.01)
    for small, zeroed in zip(TEST_VISITS.run(pruned.model), TEST_VISITS.run(masked(model, pruned)), strict=True):
        torch.testing.assert_close(small, zeroed, rtol=1e-9, atol=1e-9)
    assert pruned.report.mixing == ()


def test_parameters_are_as_many_as_the_target_says() -> None:
    model = small_told()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = prune_agent(model, 0.5, visits=VISITS)
    counted = sum(p.numel() for p in pruned.model.parameters())
    dense = sum(p.numel() for p in model.parameters())
    assert 1 - counted / dense == pytest.approx(0.5, abs=0.01)
    assert pruned.allocation.sparsity == pytest.approx(1 - counted / dense, abs=1e-12)
    assert pruned.report.cost.parameters == counted
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert set(pruned.seconds) == {"trace", "score", "allocate", "surgery", "verify", "refit"}


def test_only_the_interface() -> None:
    pruned = prune_agent(small_told(), Sparsity(interfaces={"encoder.2": 0.2}), visits=VISITS, which="interface")
    assert widths(pruned) == {**dense_widths(), "encoder.2": 8}
    for part, layer in (("encoder", 2), ("dynamics", 4)):
        assert pruned.model.get_submodule(f"{part}.{layer}").out_features == 8
    assert pruned.model.get_submodule("q2.0").in_features == 8 + 2


def test_only_what_is_internal() -> None:
    left = widths(prune_agent(small_told(), 0.3, visits=VISITS, which="internal"))
    assert left["encoder.2"] == LATENT
    assert all(left[name] < size for name, size in dense_widths().items() if name != "encoder.2")


def test_only_one_component() -> None:
    left = widths(prune_agent(small_told(), Sparsity(components={"q": 0.5}, tolerance=0.05), visits=VISITS))
    shrunk = {name for name, size in dense_widths().items() if left[name] < size}
    assert shrunk == {"q1.0", "q1.3", "q2.0", "q2.3"}


def test_refit_and_distillation_each_repair() -> None:
    model = small_told()
    error = PredictionError(model, TEST_VISITS)
    plain, refitted, distilled = (
        error(prune_agent(model, 0.5, visits=VISITS, refit=refit, distill_seconds=seconds).model)
        for refit, seconds in ((False, 0), (True, 0), (True, 1.5))
    )
    assert refitted < 0.7 * plain
    assert distilled < refitted  # by how much depends on the machine


@pytest.mark.parametrize(("after", "stays"), [(2.0, True), (1.0, True), (0.5, False), (Minimize, False)])
def test_what_decides_judges_the_distilled_agent_too(after: Any, stays: bool) -> None:
    """Smaller errors can be a smaller return: then the refitted agent is the result."""
    values = iter([1.0, 2.0 if after is Minimize else after])

    def worth(_: nn.Module) -> float:
        return next(values)

    final = Minimize(worth) if after is Minimize else worth
    found = prune_agent(small_told(), 0.5, visits=VISITS, distill_seconds=0.05, final=final, finalists=1)
    assert found.distilled is not None
    refitted, distilled = (each.model.state_dict() for each in (found.finalists[0], found.distilled))
    assert any(not torch.equal(refitted[name], distilled[name]) for name in refitted)
    assert found.model is (found.distilled if stays else found.finalists[0]).model
    assert found.seconds["distill"] > 0


def test_redundant_channels_leave_first() -> None:
    """Every search takes what is free, and predicts better than uniform coefficients do at the same size."""
    model = redundant_told()
    error = PredictionError(model, TEST_VISITS)
    target = Sparsity(0.25, tolerance=0.02)
    uniform = prune_agent(model, target, visits=VISITS)
    for strategy, share in (
        (Sensitivity(points=(0.75,), evaluations=60), 1e-6),
        (GradientDescent(steps=20), 0.3),
    ):
        found = prune_agent(model, target, visits=VISITS, strategy=strategy)
        assert found.allocation.sparsity == pytest.approx(0.25, abs=0.02)
        assert found.allocation.best is not None
        assert error(found.model) < share * error(uniform.model), strategy
        left, even = widths(found), widths(uniform)
        free = ("reward.0", "reward.2", "pi.0", "pi.2")
        assert sum(left[name] for name in free) < sum(even[name] for name in free)


def test_one_candidate_is_not_measured() -> None:
    def broken(model: nn.Module) -> float:
        raise AssertionError("measured")

    assert prune_agent(small_told(), 0.4, visits=VISITS, objective=broken).allocation.best is None
    norms = prune_agent(small_told(), 0.4, visits=VISITS, strategy=NormBased(), criterion=Magnitude(), objective=broken)
    assert norms.allocation.best is None


def test_your_own_objective_and_search() -> None:
    measured: list[int] = []

    def wide_policy(model: nn.Module) -> float:
        return float(len(model.get_parameter("pi.0.bias")))

    pruned = prune_agent(
        small_told(),
        Sparsity(0.4, tolerance=0.03),
        visits=VISITS,
        strategy=BlackBox(evaluations=12),
        objective=wide_policy,
        search=Search(refit_steps=0, on_progress=lambda progress: measured.append(progress.done)),
    )
    assert measured == list(range(1, 13))
    assert max(e.objective or 0 for e in pruned.allocation.history) == widths(pruned)["pi.0"]


def test_the_final_metric_decides() -> None:
    """The search likes a wide policy; the judge, of the finished candidates, the widest reward."""

    def judge(model: nn.Module) -> float:
        return -float(len(model.get_parameter("reward.0.bias")))

    def finished(**final: Any) -> PrunedAgent:
        strategy = BlackBox(evaluations=12, seed=3)
        return prune_agent(small_told(), Sparsity(0.4, tolerance=0.03), visits=VISITS, strategy=strategy, **final)

    own, chosen = finished(), finished(final=Minimize(judge), finalists=4)
    assert len(own.finalists) == 1
    assert len(chosen.finalists) == 4
    left = [len(f.plan.groups["reward.0"]) for f in chosen.finalists]
    assert left == sorted(left, reverse=True)
    assert chosen.plan is chosen.finalists[0].plan
    assert chosen.model is chosen.finalists[0].model
    assert widths(own) in [{n: len(k) for n, k in f.plan.groups.items()} for f in chosen.finalists]
    assert own.seconds.keys() | {"judge"} == chosen.seconds.keys()


def test_what_the_smaller_model_visits_joins_the_visits() -> None:
    model, more, given = small_told(), random_visits(200, seed=2), list[nn.Module]()

    def revisit(small: nn.Module) -> Visits:
        given.append(small)
        return more

    found = prune_agent(model, 0.6, visits=VISITS, revisit=revisit)
    (first,) = given
    assert_equal(first, prune_agent(model, 0.6, visits=VISITS).model)
    assert_equal(found.model, prune_agent(model, 0.6, visits=VISITS.joined(more)).model)
    assert found.visits.rows == VISITS.rows + more.rows
    assert found.seconds["revisit"] >= 0


def test_candidates_of_both_searches_are_counted() -> None:
    settings: dict[str, Any] = {"strategy": BlackBox(evaluations=9), "refit": False}
    target, more = Sparsity(0.4, tolerance=0.03), random_visits(200, seed=2)

    def measured(**more: Any) -> int:
        return prune_agent(small_told(), target, **settings, **more).evaluations

    assert measured(visits=VISITS) == measured(visits=VISITS.joined(more)) == 9
    assert measured(visits=VISITS, revisit=lambda _small: more) == 18
    assert prune_agent(small_told(), target, visits=VISITS).evaluations == 0  # one candidate is not measured


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_planner_runs_the_smaller_model() -> None:
    small = prune_agent(small_told(dtype=torch.float32), 0.6, visits=random_visits(dtype=torch.float32)).model
    assert isinstance(small, Told)
    config = TdMpcConfig(task="stroll", action_repeat=1, samples=16, elites=4, iterations=2, horizon=3)
    actions = Planner(small, config, 2, seeds=(0, 1)).act(torch.zeros(2, 4))
    assert actions.shape == (2, 2)
    assert (actions.abs() <= 1).all()


def test_a_graph_that_is_there_is_not_traced_again() -> None:
    model = small_told()
    graph = trace_agent(model, VISITS)
    assert prune_agent(model, 0.3, visits=VISITS, graph=graph).graph is graph


def test_wrong_input() -> None:
    model = small_told()
    with pytest.raises(TargetError, match="which must be one of"):
        prune_agent(model, 0.5, visits=VISITS, which="latent")  # type: ignore[arg-type]
    with pytest.raises(TargetError, match=r"the largest possible is 0\.3"):
        prune_agent(model, 0.9, visits=VISITS, which="interface")
    with pytest.raises(CalibrationError, match="recorded on task 'stroll'"):
        prune_agent(Told(24, 6, encoder_width=8, width=8, latent=5), 0.5, visits=VISITS)
    with pytest.raises(CalibrationError, match="of 2 visits leaves none"):
        prune_agent(model, 0.5, visits=VISITS.head(2), strategy=Sensitivity(), criterion=Magnitude())
    with pytest.raises(ObjectiveError, match="'judge' failed: RuntimeError: no episode"):
        prune_agent(model, 0.5, visits=VISITS, final=judge)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_time_that_is_none_is_found_before_anything_is_run(seconds: float) -> None:
    def never(graph: Any, model: nn.Module) -> Any:
        raise AssertionError("nothing should be scored")

    with pytest.raises(CalibrationError, match="distill_seconds must be finite and at least 0, not"):
        prune_agent(small_told(), 0.5, visits=VISITS, distill_seconds=seconds, criterion=never)


def judge(model: nn.Module) -> float:
    raise RuntimeError("no episode")

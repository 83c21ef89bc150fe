"""All of the reproduction with an untrained agent on a task that takes no time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import secateur
from secateur.errors import StorageError
from secateur.experiments.tdmpc.environments import Environment
from secateur.experiments.tdmpc.episodes import EVALUATION_SEEDS
from secateur.experiments.tdmpc.recording import CALIBRATION_SEEDS
from secateur.experiments.tdmpc.reproduction import experiment, reproduction, runs
from secateur.experiments.tdmpc.reproduction.grouping import groupings
from secateur.experiments.tdmpc.reproduction.keys import Keys
from secateur.experiments.tdmpc.reproduction.methods import METHODS, Job, Searched
from secateur.experiments.tdmpc.reproduction.planning import ONE, PLANNED
from secateur.experiments.tdmpc.reproduction.recordings import Setting, digest
from secateur.experiments.tdmpc.reproduction.records import DISTILLED, PLAIN, REFIT, Record
from secateur.experiments.tdmpc.reproduction.reproduction import Reproduction, reproduce
from secateur.experiments.tdmpc.reproduction.runs import LATENT, PARTS, part_groups
from secateur.experiments.tdmpc.reproduction.settings import CHOICE_SEEDS, SEARCH_SEEDS, Settings
from secateur.experiments.tdmpc.reproduction.subject import Subject
from secateur.experiments.tdmpc.reproduction.tables import error_table
from tests.experiments.tdmpc.reproduction.stub import CONFIG, STEPS, drift, stub_agent
from tests.experiments.tdmpc.small_agent import small_told

SETTINGS = Settings(
    sparsities=(0.5,),
    methods=("ln-structured", "uniform"),
    episodes=3,
    levels=(0.5,),
    sensitivity_episodes=2,
    masked=(0.25,),
    distill=0.01,
    repeats=2,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def found(out: Path) -> Reproduction:
    return reproduce(stub_agent(), SETTINGS, out, make=drift)


@pytest.fixture(scope="module")
def subject(out: Path, found: Reproduction) -> Subject:
    assert found.records
    return Subject.of(stub_agent(), SETTINGS.seeds, out / "recordings", Setting(make=drift))


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_every_method_meets_the_sparsity_in_every_arm(found: Reproduction) -> None:
    assert [(r.method, r.refit) for r in found.records] == [(m, r) for r in (False, True) for m in SETTINGS.methods]
    for record in found.records:
        assert record.sparsity == pytest.approx(0.5, abs=0.03)
        assert len(record.measured.returns) == len(record.measured.policy) == 3
        assert (record.distilled is not None) == (record.refit and record.method == "uniform")
        assert (record.distillation is None) == (record.distilled is None)
        if record.distillation is not None:
            assert record.distillation.steps >= 1
            assert record.distillation.seconds > 0
    assert found.of("uniform", 0.5, DISTILLED) is not None
    assert found.of("ln-structured", 0.5, DISTILLED) is None


def test_the_dense_agent_is_judged_on_the_same_seeds(found: Reproduction, subject: Subject) -> None:
    returns = subject.setting.run(subject.agent, subject.model, SETTINGS.seeds).returns
    assert found.dense.returns == pytest.approx(tuple(returns))
    whole = secateur.plan(subject.graph, subject.plain_scores, 0.0)
    measured = subject.measure(secateur.apply(subject.model, whole), whole)
    assert measured.returns == pytest.approx(found.dense.returns)
    assert measured.policy == pytest.approx(found.dense.policy)
    assert measured.drift == pytest.approx([0.0] * (4 * CONFIG.horizon + 1), abs=1e-5)
    assert measured.error == pytest.approx(0.0, abs=1e-9)


def test_refit_brings_predictions_back(found: Reproduction) -> None:
    plain, refitted = (found.of("uniform", 0.5, arm) for arm in (PLAIN, REFIT))
    assert plain is not None
    assert refitted is not None
    assert refitted[1].error < 0.5 * plain[1].error


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_leaves_all_others_whole(found: Reproduction, subject: Subject, part: str) -> None:
    plain, refitted = (r for r in found.parts if r.method == part)
    assert (plain.refit, refitted.refit) == (False, True)
    assert len(plain.measured.returns) == 2
    shrunk = {name for name, coefficient in plain.coefficients.items() if coefficient > 0}
    assert shrunk == {group.name for group in part_groups(subject, part)}
    assert all(plain.coefficients[name] == 0.5 for name in shrunk)
    assert (part == LATENT) == (shrunk == {subject.latent.name})


def test_the_parts_are_all_groups_once(subject: Subject) -> None:
    names = [group.name for part in PARTS for group in part_groups(subject, part)]
    assert sorted(names) == sorted(group.name for group in subject.graph.groups)


def test_pytorchs_masks_leave_the_latent_state_alone(found: Reproduction, subject: Subject) -> None:
    (record,) = found.masked
    assert record.coefficients[subject.latent.name] == 0
    assert {c for name, c in record.coefficients.items() if name != subject.latent.name} == {0.25}


def test_the_latent_state_set_by_hand(subject: Subject) -> None:
    job = Job(subject=subject, settings=SETTINGS, target=0.5, refit=False)
    pruned = METHODS["uniform-latent"].run(job)
    assert pruned.plan.coefficients[subject.latent.name] == pytest.approx(0.6)
    assert 1 - parameters(pruned.model) / parameters(subject.model) == pytest.approx(0.5, abs=0.01)


def test_gradient_descent_leaves_every_group_some_channels(subject: Subject) -> None:
    """At most a third of the narrowest group's, the latent state's 10."""
    chosen = METHODS["gradient"]
    assert isinstance(chosen, Searched)
    assert chosen.minimum_width == 16
    job = Job(subject=subject, settings=SETTINGS, target=0.5, refit=False)
    assert chosen.target(job).minimum_width == 3
    wide = replace(chosen, minimum_width=2)
    assert wide.target(job).minimum_width == 2
    assert replace(chosen, minimum_width=1).target(job).minimum_width == 1


def test_a_search_by_return_runs_every_candidate_in_episodes_of_its_own(subject: Subject) -> None:
    made: list[int] = []

    def counted(task: str, seed: int, *, action_repeat: int | None = None) -> Environment:
        made.append(seed)
        return drift(task, seed, action_repeat=action_repeat)

    watched = replace(subject, setting=Setting(make=counted))
    settings = replace(SETTINGS, evaluations=4)
    pruned = METHODS["by-return"].run(Job(subject=watched, settings=settings, target=0.5, refit=False))
    assert pruned.evaluations == 4
    assert sorted(made) == sorted(4 * SEARCH_SEEDS)
    assert not set(SEARCH_SEEDS) & {*CHOICE_SEEDS, *EVALUATION_SEEDS, *CALIBRATION_SEEDS}
    ranked = secateur.plan(subject.graph, subject.scores, pruned.plan.coefficients)
    assert {name: kept.tolist() for name, kept in pruned.plan.groups.items()} == {
        name: kept.tolist() for name, kept in ranked.groups.items()
    }
    assert pruned.plan.coefficients[subject.latent.name] == 0


def test_the_largest_group_is_the_latent_state(subject: Subject) -> None:
    by_name = {each.name: each for each in groupings(subject)}
    internal, interfaces, peer, merged = by_name.values()
    assert (len(internal.sizes), len(interfaces.sizes), len(peer.sizes), len(merged.sizes)) == (11, 1, 12, 1)
    assert (internal.components, interfaces.components) == (1, 5)
    # Rows and biases that make it, columns that read it: once each, where a matrix has both.
    model = subject.model
    made = sum(model.get_parameter(f"{name}.weight").numel() + 10 for name in ("encoder.2", "dynamics.4"))
    read = sum(16 * 10 for _ in ("dynamics.0", "reward.0", "pi.0", "q1.0", "q2.0"))
    assert interfaces.shares[0] == pytest.approx((made + read) / parameters(model))
    assert max(peer.shares) == pytest.approx(interfaces.shares[0])
    heads = 1 + 1 + 1 + 2  # biases of rewards, both values and actions touch no channel
    actions = 2 * 16 * 4  # nor do the columns that read actions, but their rows do
    assert merged.shares[0] == pytest.approx(1 - heads / parameters(model))
    assert actions > heads


def test_planning_is_timed_and_weighed(found: Reproduction, subject: Subject) -> None:
    dense, (small,) = found.planning.dense, found.planning.pruned
    (record,) = [r for r in found.records if r.method == "uniform" and r.refit]
    assert (small.method, small.target) == ("uniform", 0.5)
    assert dense.weights == 4 * parameters(subject.model)
    assert small.cost.weights == pytest.approx((1 - record.sparsity) * dense.weights)
    for what in (ONE, PLANNED):
        assert dense.latency[what].repeats == 2
        assert 0 < dense.latency[what].median < 1
        assert 0 < small.cost.tensors[what] <= dense.tensors[what]


def test_every_phase_of_the_analysis_is_there(found: Reproduction) -> None:
    phases = ["trace", "scores", "allocation, uniform", "plan", "surgery", "proof", "refit"]
    assert list(found.analysis.phases) == phases
    assert all(phase.seconds > 0 for phase in found.analysis.phases.values())


def test_nothing_is_run_twice(found: Reproduction, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: object, **_settings: object) -> Record:
        raise AssertionError("this run is known")

    for name in ("run_method", "run_part", "run_masked"):
        monkeypatch.setattr(experiment, name, never)
    for name in ("analysis_cost", "planning_costs"):
        monkeypatch.setattr(reproduction, name, never)
    monkeypatch.setattr(Setting, "run", never)
    monkeypatch.setattr(Setting, "record", never)
    again = reproduce(stub_agent(), SETTINGS, out, make=drift)
    assert json.dumps(again.as_data()) == json.dumps(found.as_data())


def test_errors_are_measured_on_episodes_that_pruning_never_sees(found: Reproduction, subject: Subject) -> None:
    known, others = subject.visits.seeds, subject.error.visits.seeds
    assert known is not None
    assert others is not None
    seen, unseen = set(known.tolist()), set(others.tolist())
    assert len(seen) == 7
    assert seen | unseen == set(CALIBRATION_SEEDS)
    assert not seen & unseen
    again = subject.revisited(small_told(seed=1, dtype=torch.float32)).seeds
    assert again is not None
    assert set(again.tolist()) == seen
    assert found.unseen_episodes
    assert "of an episode that pruning didn't see" in error_table(found, REFIT).note


def test_recordings_that_do_not_know_their_episodes_are_used_as_before(tmp_path: Path) -> None:
    agent, setting = stub_agent(), Setting(make=drift)
    visits = setting.record(agent)
    unknown = replace(visits, seeds=None)
    unknown.save(tmp_path / f"visits-{digest(agent)}.safetensors")
    subject = Subject.of(agent, (0, 1), tmp_path, setting)
    assert subject.visits.rows == visits.rows - round(0.1 * visits.rows)
    assert torch.equal(subject.visits.observations, visits.observations[: subject.visits.rows])
    assert Keys.of(subject, SETTINGS).visits is None
    again = subject.revisited(agent.model).seeds
    assert again is not None
    assert set(again.tolist()) == set(CALIBRATION_SEEDS)


def test_another_agent_is_never_taken_for_it(found: Reproduction, out: Path) -> None:
    other = stub_agent(seed=1)
    assert digest(other) != digest(stub_agent())
    few = Settings(sparsities=(0.5,), methods=(), episodes=3, levels=(), masked=(0.25,), repeats=2)
    assert reproduce(other, few, out, make=drift).masked != found.masked
    assert reproduce(stub_agent(), few, out, make=drift).masked == found.masked


def test_what_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(sparsities=(0.3,), methods=(), episodes=2, levels=(), masked=(0.1, 0.2), repeats=1)
    real, done = runs.run_masked, 0

    def stops(subject: Subject, fraction: float) -> Record:
        nonlocal done
        if done == 1:
            raise KeyboardInterrupt
        done += 1
        return real(subject, fraction)

    monkeypatch.setattr(experiment, "run_masked", stops)
    with pytest.raises(KeyboardInterrupt):
        reproduce(stub_agent(), settings, tmp_path, make=drift)
    done = 0
    assert [r.target for r in reproduce(stub_agent(), settings, tmp_path, make=drift).masked] == [0.1, 0.2]
    assert done == 1


def test_progress_is_told_for_runs_and_episodes(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    settings = Settings(sparsities=(0.3,), methods=(), episodes=2, levels=(), masked=(0.1, 0.2), repeats=1)
    reproduce(stub_agent(), settings, tmp_path, make=drift, on_step=lambda *step: told.append(step))
    assert [step for step in told if step[0] == "runs"] == [("runs", 1, 2), ("runs", 2, 2)]
    assert ("record visits", STEPS, STEPS) in told
    assert told.count(("episodes", STEPS, STEPS)) == 3


def test_damaged_recordings_are_named(tmp_path: Path) -> None:
    agent, setting = stub_agent(), Setting(make=drift)
    Subject.of(agent, (0, 1), tmp_path, setting)
    (file,) = tmp_path.glob("episodes-*-0-to-1.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(StorageError, match=r"episodes-.*can't be read: .*; delete it to run again"):
        Subject.of(agent, (0, 1), tmp_path, setting)


def test_masked_models_keep_all_latent_channels(subject: Subject) -> None:
    plan = secateur.plan(subject.graph, subject.plain_scores, {subject.latent.name: 0.5})
    small = secateur.apply(subject.model, plan)
    assert np.array_equal(subject._kept(small, plan), plan.groups[subject.latent.name])
    assert np.array_equal(subject._kept(subject.model, plan), np.arange(subject.latent.size))


def test_several_processes_make_the_same(found: Reproduction, tmp_path: Path) -> None:
    few = replace(SETTINGS, methods=("uniform",), sparsities=(0.5, 0.999), levels=(), distill=0)
    told: list[tuple[str, int, int]] = []
    made = reproduce(stub_agent(), few, tmp_path, make=drift, jobs=2, on_step=lambda *step: told.append(step))
    assert made.masked == found.masked
    assert made.records[0].measured.returns == pytest.approx(found.records[1].measured.returns)
    assert [(m.target, m.refit) for m in made.unreachable] == [(0.999, False), (0.999, True)]
    assert told.count(("runs", 5, 5)) == 2


def test_a_run_that_fails_beside_is_the_same_error(tmp_path: Path) -> None:
    few = Settings(sparsities=(0.3,), methods=(), episodes=2, levels=(), masked=(0.25,), repeats=1)
    reproduce(stub_agent(), few, tmp_path, make=drift)
    (file,) = (tmp_path / "runs").glob("masked-*.json")
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(StorageError, match=r"masked-0\.25-.*can't be read"):
        reproduce(stub_agent(), few, tmp_path, make=drift, jobs=2)


def test_a_sparsity_that_a_method_cannot_reach_is_a_result_like_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, sparsities=(0.999,), levels=(), masked=(), distill=0, episodes=2)
    made = reproduce(stub_agent(), settings, tmp_path, make=drift)
    assert made.records == ()
    assert [(m.method, m.refit) for m in made.unreachable] == [(m, r) for r in (False, True) for m in settings.methods]
    assert {m.target for m in made.unreachable} == {0.999}
    reasons = {m.method: m.reason for m in made.unreachable}
    assert "can't be met" in reasons["uniform"]
    assert "comes no nearer to a sparsity of 0.999 than 0.9" in reasons["ln-structured"]
    assert json.loads(json.dumps(made.as_data()))["unreachable"][0] == {
        "method": "ln-structured", "target": 0.999, "refit": False, "reason": reasons["ln-structured"], "seed": None,
    }  # fmt: skip
    monkeypatch.setattr(experiment, "run_method", lambda *_a, **_s: pytest.fail("this run is known"))
    assert reproduce(stub_agent(), settings, tmp_path, make=drift).unreachable == made.unreachable

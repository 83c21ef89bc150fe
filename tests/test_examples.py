"""The examples run, at a size that takes seconds, and do what they say."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC

import secateur
from examples import prune_your_controller as example

TASK = "ShortPendulum-v0"
STEPS = 40

gymnasium.register(TASK, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=STEPS)


@pytest.fixture(scope="module")
def controller() -> SAC:
    """Trained for a moment: its actions vary with the state."""
    return example.train(TASK, seed=0, steps=150, width=16)


@pytest.fixture(scope="module")
def states(controller: SAC) -> torch.Tensor:
    return example.visited_states(controller.actor, TASK, range(2))


def largest_action_error(small: torch.nn.Module, controller: SAC, states: torch.Tensor) -> float:
    with torch.no_grad():
        return float((small(states, True) - controller.actor(states, True)).abs().max())


def test_training_depends_on_the_seed_alone() -> None:
    first, again, other = (
        torch.cat([p.flatten() for p in example.train(TASK, seed=seed, steps=30, width=8).actor.parameters()])
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_return_is_that_of_the_whole_controller_on_the_unscaled_task(controller: SAC) -> None:
    environment, total, done = gymnasium.make(TASK), 0.0, False
    observation, _ = environment.reset(seed=5)
    while not done:
        action, _ = controller.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = environment.step(action)
        total, done = total + float(reward), terminated or truncated
    assert example.EpisodeReturn(TASK)(controller.actor, 5) == pytest.approx(total, rel=1e-5)


def test_every_second_calibration_episode_explores(controller: SAC) -> None:
    both = example.visited_states(controller.actor, TASK, [7, 8])
    calm = example.visited_states(controller.actor, TASK, [8])
    assert both.shape == (2 * STEPS, 3)
    assert torch.equal(both, example.visited_states(controller.actor, TASK, [7, 8]))
    assert torch.equal(both[:STEPS], example.visited_states(controller.actor, TASK, [7]))
    assert torch.equal(both[STEPS], calm[0])
    assert not torch.allclose(both[STEPS:], calm, atol=0.1)


def test_the_actor_alone_meets_the_target_and_the_repair_brings_its_actions_back(
    controller: SAC, states: torch.Tensor
) -> None:
    pruned = example.prune_actor(controller.actor, states, 0.5, repair=False)
    refitted = example.prune_actor(controller.actor, states, 0.5)
    assert refitted.before.parameters == 16 * 4 + 16 * 17 + 2 * 17
    assert abs(1 - refitted.after.parameters / refitted.before.parameters - 0.5) <= 0.01
    errors = [largest_action_error(result.model, controller, states) for result in (pruned, refitted)]
    assert errors[1] < 0.2 * errors[0]


def test_through_the_forward_of_the_policy_the_critics_stay_whole(controller: SAC, states: torch.Tensor) -> None:
    graph = secateur.trace(controller.policy, states[:1])
    assert {name for group in graph.groups for name in group.components} == {"actor"}
    unreached = {entry.parameter for entry in graph.unprunable if "not reached by the entry point" in entry.reasons}
    assert {name.partition(".")[0] for name in unreached} == {"critic", "critic_target"}


def test_the_smallest_actor_keeps_mean_and_worst_return(
    controller: SAC, states: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "SEARCH_SEEDS", range(1000, 1002))
    result = example.smallest_actor(controller.actor, states, TASK, evaluations=8)
    dense, small = (
        [example.EpisodeReturn(TASK)(actor, seed) for seed in example.SEARCH_SEEDS]
        for actor in (controller.actor, result.model)
    )
    assert np.mean(small) >= 1.02 * np.mean(dense)  # returns are below zero
    assert min(small) >= 1.05 * min(dense)
    assert result.after.parameters < 0.5 * result.before.parameters


def test_a_saved_actor_is_read_back(controller: SAC, states: torch.Tensor, tmp_path: Path) -> None:
    result = example.prune_actor(controller.actor, states, 0.5)
    result.save(tmp_path / "small")
    again = secateur.load(
        tmp_path / "small", lambda: SAC("MlpPolicy", TASK, policy_kwargs={"net_arch": [16, 16]}).actor
    )
    with torch.no_grad():
        assert torch.equal(again(states, True), result.model(states, True))


def test_a_policy_pruned_by_component_goes_on_learning() -> None:
    controller = example.train(TASK, seed=0, steps=60, width=16)
    states = example.visited_states(controller.actor, TASK, range(2))
    targets = {"actor": 0.7, "critic": 0.5}
    result = example.prune_for_training(controller, states, targets)
    assert result.allocation.component_sparsities == pytest.approx(targets, abs=0.01)
    assert result.after.macs == sum(part.weight.numel() for part in linear_layers(controller))
    for target, critic in zip(controller.critic_target.parameters(), controller.critic.parameters(), strict=True):
        assert torch.equal(target, critic)
    before = [parameter.clone() for parameter in trained(controller)]
    controller.learn(20, reset_num_timesteps=False)
    assert all(torch.isfinite(parameter).all() for parameter in trained(controller))
    assert not any(torch.equal(*pair) for pair in zip(trained(controller), before, strict=True))
    observation = states[0].numpy()
    action, _ = controller.predict(observation, deterministic=True)
    assert action == pytest.approx(2 * example.act(controller.actor, observation), rel=1e-5)


def linear_layers(controller: SAC) -> list[torch.nn.Linear]:
    parts = (controller.policy.actor, controller.policy.critic)
    return [module for part in parts for module in part.modules() if isinstance(module, torch.nn.Linear)]


def trained(controller: SAC) -> list[torch.Tensor]:
    return [tensor for part in (controller.actor, controller.critic) for tensor in part.parameters()]


def test_the_whole_example_prints_a_row_per_actor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "SEARCH_SEEDS", range(1000, 1002))
    monkeypatch.setattr(example, "smallest_actor", lambda actor, states, *_: example.prune_actor(actor, states, 0.7))
    policy, table, folder = tmp_path / "policy.zip", tmp_path / "table.json", tmp_path / "small"
    example.train(TASK, seed=1, steps=60, width=16).save(policy)
    small = ["--sparsity", "0.5", "--episodes", "2", "--evaluations", "8", "--more", "5"]
    example.main(["--policy", str(policy), *small, "--json", str(table), "--save", str(folder)])
    names = ["dense", "50 %, unrepaired", "50 %, refitted", "50 %, searched", example.SMALLEST]
    rows = json.loads(table.read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert row["mean"]["low"] <= row["mean"]["value"] <= row["mean"]["high"]
        assert row["worst"] <= row["mean"]["value"]
        assert row["single"]["median"] > 0
    assert rows[0]["parameters"] > 1.9 * rows[1]["parameters"]
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert "after 5 more steps of SAC" in shown
    assert (folder / "plan.json").exists()

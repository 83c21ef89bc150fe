from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from secateur.errors import StorageError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.learner import Learner, UpdateLosses
from secateur.experiments.tdmpc.losses import policy_loss, told_loss
from secateur.experiments.tdmpc.replay import Episode, Replay

OBSERVATIONS, ACTIONS, STEPS = 3, 2, 20


def tiny(**changes: Any) -> TdMpcConfig:
    sizes = {"encoder_width": 16, "width": 16, "latent": 4, "horizon": 3, "batch": 8}
    return TdMpcConfig.quick("cartpole-swingup", **{**sizes, "learning_rate": 0.01, "target_rate": 0.1, **changes})


def replay(config: TdMpcConfig) -> Replay:
    filled = Replay(config, observations=OBSERVATIONS, actions=ACTIONS, capacity=100)
    random = np.random.default_rng(0)
    for _ in range(2):
        filled.add(
            Episode(
                observations=random.normal(size=(STEPS + 1, OBSERVATIONS)).astype(np.float32),
                actions=random.uniform(-1, 1, (STEPS, ACTIONS)).astype(np.float32),
                rewards=random.uniform(0, 1, STEPS).astype(np.float32),
            )
        )
    return filled


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_updates_are_those_of_two_plain_adams_with_clipped_gradients_and_a_moving_average() -> None:
    config = tiny(gradient_clip=0.05, target_every=2)
    learner, data, generator = Learner(config, OBSERVATIONS, ACTIONS), replay(config), seeded()
    model, target = copy.deepcopy(learner.model), copy.deepcopy(learner.target)
    own_data, own_generator = replay(config), seeded()
    both = torch.optim.Adam(model.parameters(), lr=0.01, foreach=False)
    policy = torch.optim.Adam(model.pi.parameters(), lr=0.01, foreach=False)
    for update in range(1, 6):
        batch = own_data.sample(config.batch, own_generator)
        both.zero_grad()
        losses = told_loss(model, target, batch, config, own_generator)
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        assert norm > 0.05  # so that the clipping shows
        both.step()
        own_data.update(batch.indices, losses.priorities)
        policy.zero_grad()
        loss = policy_loss(model, losses.latents, config, own_generator)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.pi.parameters(), 0.05)
        policy.step()
        if update % 2 == 0:
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
                    slow.mul_(0.9).add_(0.1 * fast)
        found = learner.update(data, generator)
        assert found.total == pytest.approx(losses.total.item(), rel=1e-4)
        assert found.policy == pytest.approx(loss.item(), rel=1e-3, abs=1e-6)
        assert learner.updates == update
    for mine, theirs in ((learner.model, model), (learner.target, target)):
        for name, tensor in theirs.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(data.state_dict()["chances"], own_data.state_dict()["chances"], rtol=1e-3, atol=1e-4)


def test_the_target_begins_as_the_model_and_stands_still_between_its_moves() -> None:
    config = tiny(target_every=3)
    learner, data, generator = Learner(config, OBSERVATIONS, ACTIONS), replay(config), seeded()
    began = copy.deepcopy(learner.target.state_dict())
    assert all(torch.equal(tensor, learner.model.state_dict()[name]) for name, tensor in began.items())
    for _ in range(2):
        learner.update(data, generator)
    assert all(torch.equal(tensor, learner.target.state_dict()[name]) for name, tensor in began.items())
    learner.update(data, generator)
    for name, tensor in learner.target.state_dict().items():
        expected = 0.9 * began[name] + 0.1 * learner.model.state_dict()[name]
        torch.testing.assert_close(tensor, expected)
    assert not any(parameter.requires_grad for parameter in learner.target.parameters())


def test_initial_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = Learner(tiny(seed=3), OBSERVATIONS, ACTIONS).model.state_dict()
    state = torch.manual_seed(2).get_state()
    other = Learner(tiny(seed=3), OBSERVATIONS, ACTIONS).model.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    third = Learner(tiny(seed=4), OBSERVATIONS, ACTIONS).model.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert not torch.equal(one["encoder.0.weight"], third["encoder.0.weight"])


def test_tensors_hold_all_that_the_next_update_depends_on() -> None:
    config = tiny()
    learner, data = Learner(config, OBSERVATIONS, ACTIONS), replay(config)
    for _ in range(3):
        learner.update(data, seeded())
    other = Learner(tiny(seed=9), OBSERVATIONS, ACTIONS)
    other.load_tensors({name: tensor.clone() for name, tensor in learner.tensors().items()})
    other_data = replay(config)
    other_data.load_state_dict(data.state_dict())
    assert learner.update(data, seeded(1)) == other.update(other_data, seeded(1))
    for name, tensor in learner.tensors().items():
        assert torch.equal(tensor, other.tensors()[name]), name


@pytest.mark.parametrize("name", ["model.pi.0.weight", "target.q1.0.bias", "updates", "optimizer.rest.0.exp_avg"])
def test_a_missing_tensor_is_one_clear_error(name: str) -> None:
    config = tiny()
    learner, data = Learner(config, OBSERVATIONS, ACTIONS), replay(config)
    learner.update(data, seeded())
    tensors = learner.tensors()
    del tensors[name]
    with pytest.raises(StorageError, match=name.removeprefix("model.").removeprefix("target.")):
        Learner(config, OBSERVATIONS, ACTIONS).load_tensors(tensors)


def test_the_mean_of_losses_is_their_mean() -> None:
    one = UpdateLosses(total=1, consistency=2, reward=3, value=4, policy=5)
    other = UpdateLosses(total=3, consistency=2, reward=0, value=5, policy=-5)
    assert UpdateLosses.mean([one, other]) == UpdateLosses(total=2, consistency=2, reward=1.5, value=4.5, policy=0)

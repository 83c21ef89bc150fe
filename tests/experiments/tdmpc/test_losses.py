from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.losses import policy_loss, td_target, told_loss
from secateur.experiments.tdmpc.replay import Batch
from secateur.experiments.tdmpc.told import Told

CONFIG = TdMpcConfig(horizon=2, discount=0.5, rho=0.5)


def affine(weights: Sequence[float], bias: float = 0.0) -> nn.Sequential:
    """A part with one output."""
    layer = nn.Linear(len(weights), 1)
    layer.weight.data.copy_(torch.tensor([list(weights)]))
    layer.bias.data.fill_(bias)
    return nn.Sequential(layer)


def by_hand() -> tuple[Told, Told]:
    """A model and its target where a latent is one number and the policy's action is 0 and counts for nothing."""
    model = Told(1, 1, encoder_width=1, width=1, latent=1)
    model.encoder, model.dynamics, model.reward = affine([1]), affine([0.5, 1]), affine([1, 1])
    model.pi, model.q1, model.q2 = affine([0]), affine([3, 0]), affine([4, 0], 1)
    target = copy.deepcopy(model)
    target.encoder, target.q1, target.q2 = affine([2]), affine([1, 0], 2), affine([5, 0])
    return model, target


def transitions(weight: float = 0.5, first_reward: float = 1.0) -> Batch:
    """One sub-trajectory of two steps."""
    return Batch(
        observations=torch.tensor([1.0, 2.0, 0.25]).reshape(3, 1, 1),
        actions=torch.tensor([1.0, -1.0]).reshape(2, 1, 1),
        rewards=torch.tensor([[first_reward], [2.0]]),
        weights=torch.tensor([weight]),
        indices=torch.tensor([0]),
    )


def test_the_losses_of_two_transitions_worked_out_by_hand() -> None:
    model, target = by_hand()
    losses = told_loss(model, target, transitions(), CONFIG, torch.Generator())
    # Latents: 1, 0.5 * 1 + 1 = 1.5, 0.5 * 1.5 - 1 = -0.25; the target encodes the observations 2 and 0.25 as 4 and 0.5.
    assert losses.latents.flatten().tolist() == [1.0, 1.5, -0.25]
    assert losses.consistency.item() == 2.5**2 + 0.5 * 0.75**2
    # Rewards: 1 + 1 = 2 in place of 1; 1.5 - 1 = 0.5 in place of 2.
    assert losses.reward.item() == 1**2 + 0.5 * 1.5**2
    # Targets: 1 + 0.5 min(2 + 2, 5 * 2) = 3; 2 + 0.5 min(0.25 + 2, 5 * 0.25) = 2.625.
    # Q: 3 * 1 = 3 and 4 * 1 + 1 = 5; 3 * 1.5 = 4.5 and 4 * 1.5 + 1 = 7.
    assert losses.value.item() == 2**2 + 0.5 * (1.875**2 + 4.375**2)
    assert losses.priorities.tolist() == [2 + 0.5 * (1.875 + 4.375)]
    total = 2 * 6.53125 + 0.5 * 2.125 + 0.1 * 15.328125
    assert losses.total.item() == pytest.approx(total * 0.5 / 2)


def test_a_loss_above_the_limit_counts_as_the_limit_and_has_no_gradient() -> None:
    model, target = by_hand()
    losses = told_loss(model, target, transitions(weight=1, first_reward=1e5), CONFIG, torch.Generator())
    assert losses.priorities.tolist() == [1e4]
    assert losses.total.item() == pytest.approx((2 * 6.53125 + 0.5 * 1e4 + 0.1 * 1e4) / 2)
    reached, *unreached = torch.autograd.grad(
        losses.total, [*model.dynamics.parameters(), *model.reward.parameters(), *model.q1.parameters()][1:]
    )
    assert reached.any()
    assert not torch.cat([each.flatten() for each in unreached]).any()


def test_td_targets_by_hand_in_any_shape() -> None:
    model, target = by_hand()
    generator = torch.Generator()
    for shape in ((2,), (1, 2)):
        observation, reward = torch.tensor([2.0, 0.25]).reshape(*shape, 1), torch.tensor([1.0, 2.0]).reshape(shape)
        found = td_target(model, target, observation, reward, discount=0.5, std=0.1, generator=generator)
        assert found.equal(torch.tensor([3.0, 2.625]).reshape(shape))
        assert not found.requires_grad


def test_the_targets_action_is_the_policys_with_noise() -> None:
    model, target = by_hand()
    model.pi, target.q1, target.q2 = affine([1]), affine([0, 1]), affine([0, 1], 9)
    observation, reward = torch.full((50_000, 1), 0.5), torch.zeros(50_000)
    generator = torch.Generator().manual_seed(0)
    found = td_target(model, target, observation, reward, discount=1, std=0.1, generator=generator)
    mean = torch.tanh(torch.tensor(0.5)).item()
    assert found.mean().item() == pytest.approx(mean, abs=0.002)
    assert found.std().item() == pytest.approx(0.0987, abs=0.002)  # a little less than 0.1: the noise is cut off at 0.3


def random_problem() -> tuple[Told, Told, Batch, TdMpcConfig]:
    """A model in float64 with all its layers, its target, and 7 sub-trajectories of 3 steps."""
    config = TdMpcConfig(horizon=3, rho=0.7, discount=0.9, least_std=0.2)
    model, target = (Told(4, 2, encoder_width=6, width=8, latent=5).double() for _ in range(2))
    for parameter in (*model.parameters(), *target.parameters()):
        nn.init.normal_(parameter, std=0.5)
    batch = Batch(
        observations=torch.randn(4, 7, 4).double(),
        actions=torch.rand(3, 7, 2).double() * 2 - 1,
        rewards=torch.rand(3, 7).double(),
        weights=torch.rand(7).double(),
        indices=torch.arange(7),
    )
    return model, target, batch, config


def noisy_policy(model: Told, latent: Tensor, noise: Tensor, config: TdMpcConfig) -> Tensor:
    """The policy's action; with these weights and noise no sum reaches 1."""
    action = torch.tanh(model.pi(latent)) + torch.clamp(config.least_std * noise, -0.3, 0.3)
    action.data.clamp_(-1 + 1e-6, 1 - 1e-6)
    return action


def one_by_one(model: Told, target: Told, batch: Batch, config: TdMpcConfig, noise: Tensor) -> Tensor:
    """The total loss, sub-trajectory by sub-trajectory and step by step."""
    losses: list[Tensor] = []
    for row, weight in enumerate(batch.weights):
        loss = torch.zeros((), dtype=torch.float64)
        latent = model.encoder(batch.observations[0, row])
        for step in range(config.horizon):
            both = torch.cat([latent, batch.actions[step, row]])
            with torch.no_grad():
                following = batch.observations[step + 1, row]
                encoded = model.encoder(following)
                judged = torch.cat([encoded, noisy_policy(model, encoded, noise[step, row], config)])
                value = min(target.q1(judged), target.q2(judged))
                goal = batch.rewards[step, row] + config.discount * value
                expected = target.encoder(following)
            latent = model.dynamics(both)
            loss = loss + config.rho**step * (
                2.0 * ((latent - expected) ** 2).sum() / 5
                + 0.5 * (model.reward(both)[0] - batch.rewards[step, row]) ** 2
                + 0.1 * ((model.q1(both) - goal) ** 2 + (model.q2(both) - goal) ** 2)[0]
            )
        losses.append(weight * loss)
    return torch.stack(losses).mean()


def test_the_loss_and_its_gradients_are_those_worked_out_one_by_one() -> None:
    model, target, batch, config = random_problem()
    noise = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = one_by_one(model, target, batch, config, noise)
    found = told_loss(model, target, batch, config, torch.Generator().manual_seed(5)).total
    torch.testing.assert_close(found, expected / config.horizon)
    trained = [each for name, each in model.named_parameters() if not name.startswith("pi.")]
    found.backward()
    gradients = torch.autograd.grad(expected, trained)
    for parameter, gradient in zip(trained, gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient / config.horizon)
    assert all(each.grad is None for each in (*model.pi.parameters(), *target.parameters()))


def test_in_float32_the_losses_are_the_same_but_for_rounding() -> None:
    model, target, batch, config = random_problem()
    single = Batch(**{field.name: getattr(batch, field.name).float() for field in dataclasses.fields(Batch)})
    config = dataclasses.replace(config, least_std=1e-9)  # the same seed draws other noise in float32
    double = told_loss(model, target, batch, config, torch.Generator())
    found = told_loss(model.float(), target.float(), single, config, torch.Generator())
    for field in dataclasses.fields(found):
        torch.testing.assert_close(
            getattr(found, field.name), getattr(double, field.name).float(), atol=1e-4, rtol=1e-4
        )


def test_the_policys_loss_and_gradient_are_those_worked_out_one_by_one() -> None:
    model, _, _, config = random_problem()
    latents = torch.randn(4, 7, 5).double()
    noise = torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected: Tensor = torch.zeros(())
    for step in range(4):
        for row in range(7):
            latent = latents[step, row]
            both = torch.cat([latent, noisy_policy(model, latent, noise[step, row], config)])
            expected = expected - config.rho**step * min(model.q1(both), model.q2(both))[0] / 7
    found = policy_loss(model, latents, config, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, expected)
    found.backward()
    trained = list(model.pi.parameters())
    for parameter, gradient in zip(trained, torch.autograd.grad(expected, trained), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_policys_gradient_reaches_the_policy_alone() -> None:
    model, _, _, config = random_problem()
    model.q2[0].requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    latents = torch.randn(4, 7, 5).double().requires_grad_()
    policy_loss(model, latents, config, torch.Generator()).backward()
    with_gradient = {name.partition(".")[0] for name, each in model.named_parameters() if each.grad is not None}
    assert with_gradient == {"pi"}
    assert latents.grad is None
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before


def test_a_policy_learns_what_both_heads_agree_is_better() -> None:
    model = Told(1, 1, encoder_width=1, width=8, latent=2)
    model.q1, model.q2 = affine([0, 0, 1]), affine([0, 0, 2], 1.5)
    optimizer = torch.optim.SGD(model.pi.parameters(), lr=0.1)
    latents, generator = torch.randn(3, 64, 2), torch.Generator().manual_seed(0)
    for _ in range(50):
        optimizer.zero_grad()
        policy_loss(model, latents, CONFIG, generator).backward()
        optimizer.step()
    assert model.act(latents).min() > 0.8

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.told import Told, explore


@pytest.fixture
def model() -> Told:
    """A small model whose rewards and values are not zero."""
    told = Told(3, 2, encoder_width=8, width=6, latent=4)
    for parameter in told.parameters():
        nn.init.normal_(parameter)
    return told


def test_its_parts_and_their_sizes() -> None:
    told = Told.of(TdMpcConfig.cpu("cartpole-swingup"), 5, 1)
    sizes = {name: sum(each.numel() for each in part.parameters()) for name, part in told.named_children()}
    assert sizes == {
        "encoder": 5 * 256 + 256 + 256 * 50 + 50,
        "dynamics": 51 * 256 + 256 + 256 * 256 + 256 + 256 * 50 + 50,
        "reward": 51 * 256 + 256 + 256 * 256 + 256 + 256 + 1,
        "pi": 50 * 256 + 256 + 256 * 256 + 256 + 256 + 1,
        "q1": 51 * 256 + 256 + 2 * 256 + 256 * 256 + 256 + 256 + 1,
        "q2": 51 * 256 + 256 + 2 * 256 + 256 * 256 + 256 + 256 + 1,
    }
    assert sum(sizes.values()) == 424_552
    perceptron = [nn.Linear, nn.ELU, nn.Linear, nn.ELU, nn.Linear]
    layers = {name: [type(layer) for layer in part.children()] for name, part in told.named_children()}
    q = [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Linear, nn.ELU, nn.Linear]
    assert layers["encoder"] == [nn.Linear, nn.ELU, nn.Linear]
    assert layers["dynamics"] == layers["reward"] == layers["pi"] == perceptron
    assert layers["q1"] == layers["q2"] == q


def test_it_begins_orthogonal_with_zero_rewards_and_values() -> None:
    told = Told(3, 2, encoder_width=8, width=6, latent=4)
    last = {told.reward[-1], told.q1[-1], told.q2[-1]}
    for layer in told.modules():
        if not isinstance(layer, nn.Linear):
            continue
        assert not layer.bias.any()
        weight = layer.weight.detach()
        short = weight if weight.shape[0] <= weight.shape[1] else weight.t()
        expected = torch.zeros(1, 1) if layer in last else torch.eye(len(short))
        torch.testing.assert_close(short @ short.t(), expected, atol=1e-5, rtol=0)
    latent, action = torch.randn(5, 4), torch.randn(5, 2)
    values = (told.next(latent, action)[1], *told.q(latent, action))
    assert not torch.cat(values).any()


@pytest.mark.parametrize("leading", [(), (7,), (5, 7)])
def test_methods_take_any_leading_dimensions(model: Told, leading: tuple[int, ...]) -> None:
    observation, action = torch.randn(*leading, 3), torch.rand(*leading, 2)
    latent = model.encode(observation)
    following, reward = model.next(latent, action)
    values = model.q(latent, action)
    assert latent.shape == following.shape == (*leading, 4)
    assert reward.shape == values[0].shape == values[1].shape == leading
    assert model.act(latent).shape == (*leading, 2)


def test_methods_are_their_parts(model: Told) -> None:
    latent, action = torch.randn(7, 4), torch.rand(7, 2)
    both = torch.hstack([latent, action])
    torch.testing.assert_close(model.next(latent, action), (model.dynamics(both), model.reward(both)[:, 0]))
    torch.testing.assert_close(model.q(latent, action), (model.q1(both)[:, 0], model.q2(both)[:, 0]))
    torch.testing.assert_close(model.act(latent), torch.tanh(model.pi(latent)))
    torch.testing.assert_close(model.encode(torch.ones(3)), model.encoder(torch.ones(3)))


def test_a_model_with_smaller_layers_works_as_it_is(model: Told) -> None:
    small = copy.deepcopy(model)
    small.encoder[2] = nn.Linear(8, 3)
    small.dynamics = nn.Sequential(nn.Linear(5, 2), nn.ELU(), nn.Linear(2, 3))
    small.reward, small.q1, small.q2 = (nn.Sequential(nn.Linear(5, 1)) for _ in range(3))
    small.pi = nn.Sequential(nn.Linear(3, 2))
    latent = small.encode(torch.randn(7, 3))
    latent, reward = small.next(latent, small.act(latent))
    assert latent.shape == (7, 3)
    assert reward.shape == small.q(latent, small.act(latent))[0].shape == (7,)


def test_exploration_is_normal_noise_cut_off_at_0_3() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = explore(torch.full((100_000, 1), 0.1), 0.2, generator) - 0.1
    assert noise.abs().max().item() == pytest.approx(0.3, abs=1e-6)
    cut_off = (noise.abs() > 0.3 - 1e-6).float().mean().item()
    assert cut_off == pytest.approx(math.erfc(1.5 / math.sqrt(2)), abs=5 * math.sqrt(0.13 / 100_000))
    inside = noise[noise.abs() < 0.2]
    assert inside.mean().item() == pytest.approx(0, abs=0.003)
    # Of a normal variable within one standard deviation: 1 - 2 phi(1) / (2 Phi(1) - 1).
    assert inside.var().item() / 0.04 == pytest.approx(0.29113, abs=0.005)


def test_explored_actions_stay_just_inside_and_keep_the_gradient() -> None:
    action = torch.tensor([1.0, -1.0, 0.999, 0.0], requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.stack([explore(action, 0.5, generator) for _ in range(50)])
    assert noisy.abs().max().item() == pytest.approx(1 - 1e-6, abs=1e-7)
    assert noisy.abs().max() < 1
    (gradient,) = torch.autograd.grad(noisy.sum(), action)
    assert gradient.tolist() == [50.0] * 4


def test_exploration_repeats_with_its_generator() -> None:
    first, second, other = (explore(torch.zeros(3, 2), 0.1, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.equal(second)
    assert not first.equal(other)

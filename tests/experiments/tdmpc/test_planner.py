from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_discrete_are
from torch import Tensor

from secateur.errors import ControlError
from secateur.experiments.tdmpc import fast_linear
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.planner import Planner
from secateur.experiments.tdmpc.told import Told

ONE_STEP = TdMpcConfig(
    samples=40, elites=7, iterations=1, horizon=3, policy_fraction=0.1, temperature=0.1, momentum=0.0, discount=0.9
)


@dataclass(frozen=True)
class Quadratic:
    """Linear dynamics, quadratic rewards, and a policy and values that a caller chooses.

    Shapes: a (n, n), b (n, m), state_cost (n, n), action_cost (m, m), gain (m, n), value (n, n).
    """

    a: Tensor
    b: Tensor
    state_cost: Tensor
    action_cost: Tensor
    gain: Tensor
    value: Tensor
    offset: float = 0.0

    def encode(self, observation: Tensor) -> Tensor:
        return observation

    def next(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return latent @ self.a.T + action @ self.b.T, -_form(latent, self.state_cost) - _form(action, self.action_cost)

    def act(self, latent: Tensor) -> Tensor:
        return -latent @ self.gain.T

    def q(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The value, given that the action is the policy's; the second head differs by the offset."""
        value = -_form(latent, self.value)
        return value, value + self.offset * latent[..., 0]


def _form(vectors: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("...i,ij,...j->...", vectors, matrix, vectors)


def regulator(discount: float) -> Quadratic:
    """A double integrator with two actuators, with its optimal policy and value by the Riccati equation."""
    a, b = np.array([[1.0, 0.2], [0.0, 1.0]]), np.array([[0.02, 0.1], [0.2, 0.0]])
    cost, effort = np.diag([1.0, 0.3]), np.diag([0.1, 0.2])
    value = solve_discrete_are(np.sqrt(discount) * a, np.sqrt(discount) * b, cost, effort)
    gain = discount * np.linalg.solve(effort + discount * b.T @ value @ b, b.T @ value @ a)
    a_, b_, cost_, effort_, gain_, value_ = (torch.from_numpy(x).float() for x in (a, b, cost, effort, gain, value))
    return Quadratic(a_, b_, cost_, effort_, gain_, value_)


def arbitrary(seed: int = 0, *, states: int = 3, actions: int = 2) -> Quadratic:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    effort = torch.eye(actions) + 0.3 * draw(actions, actions)  # dear enough for the best actions to be no corners
    a, b = draw(states, states) / 2, draw(states, actions) / 2
    return Quadratic(a, b, draw(states, states), effort, draw(actions, states), draw(states, states) / 2, offset=0.7)


def recorded(
    planner: Planner, observations: Tensor, *, horizon: int | None = None, std: float | None = None
) -> tuple[Tensor, Tensor]:
    """The action, and the last iteration's sequences (H, E, S, m), which it was chosen from."""
    seen: list[Tensor] = []
    planner.on_sequences = lambda _observations, sequences: seen.append(sequences)
    action = planner.act(observations, horizon=horizon, std=std)
    assert len(seen) == planner._config.iterations
    return action, seen[-1]


def returns(
    model: Quadratic, state: NDArray[np.float64], sequences: NDArray[np.float64], discount: float
) -> NDArray[np.float64]:
    """The discounted returns (S,) of sequences (H, S, m) from a state (n,); the lower of both values at their ends."""
    a, b, cost, effort, value = (
        x.double().numpy() for x in (model.a, model.b, model.state_cost, model.action_cost, model.value)
    )
    states, total = np.tile(state, (sequences.shape[1], 1)), np.zeros(sequences.shape[1])
    for step, actions in enumerate(sequences):
        losses = ((states @ cost) * states).sum(axis=1) + ((actions @ effort) * actions).sum(axis=1)
        total -= discount**step * losses
        states = states @ a.T + actions @ b.T
    final = -((states @ value) * states).sum(axis=1)
    return total + discount ** len(sequences) * np.minimum(final, final + model.offset * states[:, 0])


def best_of(
    model: Quadratic, observations: Tensor, sequences: Tensor, config: TdMpcConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By brute force: the elites (E, H, K, m), best first, and their weights (E, K)."""
    elites, weights = [], []
    for episode, state in enumerate(observations.double().numpy()):
        candidates = sequences[:, episode].double().numpy()
        values = returns(model, state, candidates, config.discount)
        order = np.argsort(-values)[: config.elites]
        score = np.exp(config.temperature * (values[order] - values[order[0]]))
        elites.append(candidates[:, order])
        weights.append(score / score.sum())
    return np.stack(elites), np.stack(weights)


@pytest.mark.parametrize("horizon", [1, 3, 5])
def test_finds_the_optimal_regulator(horizon: int) -> None:
    """With the Riccati value at its end, every horizon's best first action is that of the optimal linear policy."""
    config = TdMpcConfig(
        samples=512, elites=32, iterations=12, policy_fraction=0.0, temperature=10.0, least_std=0.01, discount=0.95
    )
    model = regulator(config.discount)
    state = torch.tensor([0.5, -0.4])
    optimal = model.act(state)
    assert 0.1 < optimal.abs().min() < optimal.abs().max() < 0.9  # neither zero nor cut off
    planner = Planner(model, config, 2, seeds=range(16))
    actions = planner.act(state.expand(16, 2), horizon=horizon)
    assert (actions - optimal).abs().max() < 0.03
    assert (actions.mean(dim=0) - optimal).abs().max() < 0.01


def test_closes_the_loop_as_the_optimal_regulator_does() -> None:
    config = TdMpcConfig(samples=256, elites=32, iterations=4, horizon=3, temperature=20.0, least_std=0.02)
    model = regulator(config.discount)
    planner = Planner(model, config, 2, seeds=[1, 2])
    planned = optimal = torch.tensor([[0.6, -0.3], [-0.5, 0.4]])
    cost = best = 0.0
    for _ in range(25):
        planned, reward = model.next(planned, planner.act(planned))
        optimal, reference = model.next(optimal, model.act(optimal))
        cost, best = cost - float(reward.sum()), best - float(reference.sum())
    assert best <= cost < 1.02 * best
    assert planned.norm() < 0.2


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_acts_on_the_best_sequence(discount: float) -> None:
    """At a high temperature one sequence has all the weight: that of the highest brute-force return."""
    config = replace(ONE_STEP, samples=300, temperature=1e6, discount=discount)  # 300: more than one block of episodes
    model, observations = arbitrary(), torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    planner = Planner(model, config, 2, seeds=range(5))
    action, sequences = recorded(planner, observations)
    assert sequences.shape == (3, 5, 330, 2)
    elites, _ = best_of(model, observations, sequences, config)
    np.testing.assert_array_equal(action.numpy(), elites[:, 0, 0].astype(np.float32))


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_the_mean_is_the_elites_and_warm_starts_the_next_step(momentum: float) -> None:
    config = replace(ONE_STEP, momentum=momentum)
    model, observations = arbitrary(), torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    warm, cold = (Planner(model, config, 2, seeds=[5, 6]) for _ in range(2))
    _, sequences = recorded(warm, observations)
    cold.act(observations)
    cold.reset()
    moved, centred = (recorded(p, observations)[1][:, :, : config.samples] for p in (warm, cold))
    inside = (moved.abs() < 1) & (centred.abs() < 1)
    assert inside.flatten(2).sum(dim=2).min() > 10

    elites, weights = best_of(model, observations, sequences, config)
    mean = (1 - momentum) * np.einsum("ehkm,ek->hem", elites, weights)
    shift = np.concatenate([mean[1:], np.zeros_like(mean[:1])])
    shown = torch.where(inside, moved - centred, torch.nan).nanmean(dim=2).numpy()
    np.testing.assert_allclose(shown, shift, atol=1e-5)
    assert np.abs(shift[:-1]).min() > 0.001


def test_the_next_iteration_samples_with_the_elites_spread() -> None:
    """Against a planner whose floor keeps the first spread, 2, the same numbers show the second iteration's spread."""
    model, observations = arbitrary(), torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    twice = replace(ONE_STEP, iterations=2, least_std=1e-6, samples=120)
    once = replace(twice, iterations=1)
    first, narrow, wide = (Planner(model, config, 2, seeds=[5, 6]) for config in (once, twice, twice))
    _, sequences = recorded(first, observations)
    elites, weights = best_of(model, observations, sequences, once)
    mean = np.einsum("ehkm,ek->ehm", elites, weights)[:, :, None]
    spread = np.sqrt(np.einsum("ehkm,ek->hem", (elites - mean) ** 2, weights))
    assert spread.min() > 0.1

    narrowed, widened = (
        recorded(planner, observations, std=std)[1][:, :, :120].double().numpy()
        for planner, std in ((narrow, 1e-6), (wide, 2.0))
    )
    inside = (np.abs(narrowed) < 1) & (np.abs(widened) < 1)
    assert inside.sum(axis=2).min() > 5
    mean = mean.transpose(1, 0, 2, 3)
    expected = mean + (widened - mean) * spread[:, :, None] / 2
    np.testing.assert_allclose(narrowed[inside], expected[inside], atol=1e-5)
    fresh = widened - mean - sequences[:, :, :120].double().numpy()  # not the first iteration's numbers again
    assert np.abs(fresh[inside]).mean() > 0.3


def test_draws_an_elite_by_its_weight() -> None:
    config = replace(ONE_STEP, temperature=5.0, policy_fraction=0.0, horizon=1, samples=60)
    zeros = torch.zeros(2, 2)
    model = Quadratic(zeros, zeros, zeros, torch.eye(2), zeros, zeros)
    planner = Planner(model, config, 2, seeds=range(1500))
    action, sequences = recorded(planner, torch.zeros(1500, 2))
    elites, weights = best_of(model, torch.zeros(1500, 2), sequences, config)
    ranks = np.abs(elites[:, 0] - action.double().numpy()[:, None]).sum(axis=2).argmin(axis=1)
    counts, expected = np.bincount(ranks, minlength=config.elites), weights.sum(axis=0)
    deviation = (counts - expected) / np.sqrt((weights * (1 - weights)).sum(axis=0))
    assert np.abs(deviation).max() < 4
    assert expected.min() > 20
    assert expected[0] > 3 * expected[-1]


def test_exploration_has_a_least_spread() -> None:
    """Where the elites agree on zero, a training action is normal around it; an evaluation action is zero, nearly."""
    config = TdMpcConfig(samples=256, elites=8, iterations=4, horizon=1, temperature=50.0, least_std=0.001)
    zeros, effort = torch.zeros(1, 1), torch.tensor([[100.0]])
    model = Quadratic(zeros, zeros, zeros, effort, zeros, zeros)
    observations = torch.zeros(800, 1)
    explored = Planner(model, config, 1, seeds=range(800)).act(observations, std=0.3)
    evaluated = Planner(model, config, 1, seeds=range(800)).act(observations)
    assert float(explored.std()) == pytest.approx(0.3, rel=0.1)
    assert abs(float(explored.mean())) < 0.04
    assert float(evaluated.abs().max()) < 0.02
    assert float(Planner(model, config, 1, seeds=range(800)).act(observations, std=2.0).abs().max()) == 1


def test_the_policys_sequences_are_among_the_candidates() -> None:
    """They follow the policy along the model, with noise cut off at 0.3, and win where no sample can compete."""
    config = replace(ONE_STEP, least_std=0.05, samples=100, elites=3, temperature=1e6, horizon=3)
    target = torch.tensor([0.5, -0.3, 0.2, 0.4, -0.6, 0.1])
    model = _Follow(target)
    planner = Planner(model, config, 6, seeds=[3])
    action, sequences = recorded(planner, torch.zeros(1, 1))
    own = sequences[:, 0, 100:]
    assert own.shape == (3, 10, 6)
    noise = own - torch.arange(1, 4)[:, None, None] * target / 3
    assert float(noise.std()) == pytest.approx(0.05, rel=0.2)
    assert all(float((noise[step] - noise[0]).abs().mean()) > 0.02 for step in (1, 2))
    assert (action == own[0]).all(dim=1).any()
    cut = Planner(model, replace(config, least_std=5.0), 6, seeds=[3])
    _, sequences = recorded(cut, torch.zeros(1, 1))
    shown = (sequences[:, 0, 100:] - torch.arange(1, 4)[:, None, None] * target / 3).abs()
    assert float(shown.max()) == pytest.approx(0.3)
    assert float((shown > 0.2999).float().mean()) > 0.8


class _Follow:
    """The latent counts steps; the policy's action grows with them, and only it is rewarded."""

    def __init__(self, target: Tensor) -> None:
        self.target = target

    def encode(self, observation: Tensor) -> Tensor:
        return observation

    def next(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return latent + 1, -100 * (action - self.act(latent)).square().sum(dim=-1)

    def act(self, latent: Tensor) -> Tensor:
        return (latent + 1) * self.target / 3

    def q(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return latent[..., 0], latent[..., 0]


def test_an_episode_is_the_same_alone_and_among_others() -> None:
    config = TdMpcConfig(samples=64, elites=8, iterations=3, horizon=3)
    torch.manual_seed(0)
    model = Told(3, 2, encoder_width=16, width=16, latent=6)
    for name in ("q1.5.weight", "q2.5.weight", "reward.4.weight"):
        torch.nn.init.normal_(model.get_parameter(name))
    observations = torch.randn(2, 10, 3)
    together = Planner(model, config, 2, seeds=range(20, 30))
    rows = [together.act(observation) for observation in observations]
    for row in (0, 7):
        alone = Planner(model, config, 2, seeds=[20 + row])
        for step, observation in enumerate(observations):
            torch.testing.assert_close(alone.act(observation[row : row + 1]), rows[step][row : row + 1])


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize(("width", "episodes", "is_fast"), [(256, 1, True), (128, 1, False), (160, 2, True)])
def test_wide_models_are_planned_with_by_faster_layers_to_the_same_actions(
    width: int, episodes: int, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TdMpcConfig(samples=256, elites=16, iterations=2, horizon=2)
    torch.manual_seed(0)
    model = Told(3, 2, encoder_width=width, width=width, latent=6)
    for name in ("q1.5.weight", "q2.5.weight", "reward.4.weight"):
        torch.nn.init.normal_(model.get_parameter(name), std=0.1)
    observations, product, products = torch.randn(episodes, 3), fast_linear._product, 0

    def counted(*arguments: Any) -> Tensor:
        nonlocal products
        products += 1
        return product(*arguments)

    monkeypatch.setattr(fast_linear, "_product", counted)
    found = Planner(model, config, 2, seeds=range(episodes)).act(observations)
    assert (products > 0) == is_fast
    monkeypatch.setattr(fast_linear, "_WORTH_IT", float("inf"))
    plain = Planner(model, config, 2, seeds=range(episodes)).act(observations)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


def test_random_numbers_depend_on_the_seed_alone() -> None:
    config = replace(ONE_STEP, policy_fraction=0.0)
    drawn: dict[tuple[int, ...], list[Tensor]] = {}
    for model_seed, seeds in ((0, (4,)), (1, (4,)), (2, (9, 4)), (3, (9,))):
        planner = Planner(arbitrary(model_seed), config, 2, seeds=seeds)
        for _ in range(2):
            planner.reset()
            _, sequences = recorded(planner, torch.randn(len(seeds), 3))
            drawn.setdefault((model_seed, *seeds), []).append(sequences[:, -1:])
    for step in range(2):
        assert torch.equal(drawn[0, 4][step], drawn[1, 4][step])
        assert torch.equal(drawn[0, 4][step], drawn[2, 9, 4][step])
        assert not torch.equal(drawn[0, 4][step], drawn[3, 9][step])
    assert not torch.equal(drawn[0, 4][0], drawn[0, 4][1])


def test_a_new_horizon_keeps_what_it_can_of_the_mean() -> None:
    config = replace(ONE_STEP, policy_fraction=0.0)
    model, observations = arbitrary(), torch.randn(1, 3, generator=torch.Generator().manual_seed(1))
    for horizon in (2, 5):
        warm, cold = (Planner(model, config, 2, seeds=[5]) for _ in range(2))
        _, sequences = recorded(warm, observations)
        cold.act(observations)
        cold.reset()
        moved, centred = (recorded(p, observations, horizon=horizon)[1] for p in (warm, cold))
        inside = (moved.abs() < 1) & (centred.abs() < 1)
        elites, weights = best_of(model, observations, sequences, config)
        mean = np.einsum("ehkm,ek->hem", elites, weights)
        expected = np.zeros((horizon, 1, 2))
        expected[:2] = mean[1:3]
        shown = torch.where(inside, moved - centred, torch.nan).nanmean(dim=2).numpy()
        np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_what_comes_out_is_ordinary_tensors() -> None:
    planner = Planner(arbitrary(), ONE_STEP, 2, seeds=[0])
    weight = torch.ones(1, requires_grad=True)
    for tensor in recorded(planner, torch.zeros(1, 3)):
        (tensor * weight).sum().backward()
        tensor += 1  # not an inference tensor, either


def test_later_steps_leave_recorded_sequences_alone() -> None:
    planner = Planner(arbitrary(), ONE_STEP, 2, seeds=[0])
    _, sequences = recorded(planner, torch.zeros(1, 3))
    before = sequences.clone()
    recorded(planner, torch.zeros(1, 3))
    assert torch.equal(sequences, before)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_an_error(broken: float) -> None:
    class Broken(Quadratic):
        def q(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            first, second = super().q(latent, action)
            first, second = first.clone(), second.clone()
            first[1, 0] = second[1, 0] = broken  # one sequence of the second episode
            return first, second

    model = Broken(**vars(arbitrary()))
    planner = Planner(model, replace(ONE_STEP, iterations=3), 2, seeds=[11, 12])
    with pytest.raises(ControlError, match=r"a value that is no finite number \(seed 12\)"):
        planner.act(torch.zeros(2, 3))


def test_wrong_numbers_of_rows() -> None:
    planner = Planner(arbitrary(), ONE_STEP, 2, seeds=[0, 1])
    with pytest.raises(ControlError, match=r"shape \(2, n\), one row per seed, not \(3, 3\)"):
        planner.act(torch.zeros(3, 3))
    with pytest.raises(ControlError, match=r"not \(3,\)"):
        planner.act(torch.zeros(3))
    with pytest.raises(ControlError, match="one seed per episode"):
        Planner(arbitrary(), ONE_STEP, 2, seeds=[])

"""Controllers: Stable-Baselines3's policies, recurrent networks, and world models."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..entry import CLASSES, Entry, PeerSettings, Run, library

OBSERVATION = 11
ACTION = 3
STEPS = 4
BATCH = 5


# Stable-Baselines3 ----------------------------------------------------------------------------------------------------


def _policy(name: str, path: str, *, image: bool = False, discrete: bool = False, **options: Any) -> Callable[[], Any]:
    """A policy class of Stable-Baselines3 for a box of observations."""

    def build() -> nn.Module:
        spaces = library("gymnasium.spaces")
        numpy = library("numpy")
        box = spaces.Box(0, 255, (3, 48, 48), numpy.uint8) if image else spaces.Box(-1, 1, (OBSERVATION,))
        actions = spaces.Discrete(CLASSES) if discrete else spaces.Box(-1, 1, (ACTION,))
        policy: nn.Module = getattr(library(f"stable_baselines3.{path}"), name)(box, actions, lambda _: 3e-4, **options)
        return policy

    return build


def _observations() -> tuple[torch.Tensor, ...]:
    return (torch.randn(BATCH, OBSERVATION).tanh(),)


def _images() -> tuple[torch.Tensor, ...]:
    return (torch.randint(0, 255, (2, 3, 48, 48)).float(),)


def _evaluated(model: Any, inputs: Any) -> Any:
    """What PPO trains: the value, log probability and entropy of given actions."""
    (observations,) = inputs
    actions = torch.zeros(len(observations), ACTION, dtype=observations.dtype)
    return model.evaluate_actions(observations, actions)


def _actor_and_critic(model: Any, inputs: Any) -> Any:
    """What SAC and TD3 train: the actor's action and the critics' values of it."""
    (observations,) = inputs
    action = model.actor(observations)
    return action, model.critic(observations, action)


# Recurrent controllers ------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """Features, a recurrent layer read through its outputs or its last hidden state, and an action."""

    def __init__(self, kind: str, *, read: str = "outputs", width: int = 24, **options: Any) -> None:
        super().__init__()
        self.read = read
        self.features = nn.Sequential(nn.Linear(OBSERVATION, 20), nn.ReLU())
        self.memory = getattr(nn, kind)(20, width, batch_first=True, **options)
        directions = 2 if options.get("bidirectional") else 1
        self.head = nn.Linear((options.get("proj_size") or width) * directions, ACTION)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, hidden = self.memory(self.features(x))
        if self.read == "outputs":
            action: torch.Tensor = self.head(outputs)
        else:
            last = hidden[0] if isinstance(hidden, tuple) else hidden
            action = self.head(last[-1])
        return action.tanh()


class GivenState(nn.Module):
    """A recurrent layer whose hidden state the caller keeps: it is an input and an output of every step."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width = width
        self.encoder = nn.Linear(OBSERVATION, width)
        self.memory = nn.GRU(width, width)
        self.policy = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, ACTION))
        self.value = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, 1))

    def start(self, batch: int, like: torch.Tensor) -> torch.Tensor:
        """The hidden state before the first step."""
        return like.new_zeros(1, batch, self.width)

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        outputs, hidden = self.memory(self.encoder(x)[None], hidden)
        return self.policy(outputs[0]), self.value(outputs[0]), hidden


def _rolled_out(model: Any, inputs: Any) -> Any:
    (observations,) = inputs
    hidden = model.start(observations.shape[1], observations)
    actions, values = [], []
    for observation in observations:
        action, value, hidden = model(observation, hidden)
        actions.append(action)
        values.append(value)
    return torch.stack(actions), torch.stack(values)


class CellLoop(nn.Module):
    """A cell called step by step, from a hidden state made inside."""

    def __init__(self, kind: str, width: int = 24) -> None:
        super().__init__()
        self.width = width
        self.encoder = nn.Sequential(nn.Linear(OBSERVATION, 16), nn.ELU())
        self.cell = getattr(nn, kind)(16, width)
        self.head = nn.Linear(width, ACTION)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros(x.shape[0], self.width, dtype=x.dtype, device=x.device)
        state: Any = (hidden, torch.zeros_like(hidden)) if isinstance(self.cell, nn.LSTMCell) else hidden
        actions = []
        for step in range(x.shape[1]):
            state = self.cell(self.encoder(x[:, step]), state)
            actions.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(actions, dim=1)


def _sequences() -> tuple[torch.Tensor, ...]:
    return (torch.randn(BATCH, STEPS, OBSERVATION),)


def _steps() -> tuple[torch.Tensor, ...]:
    return (torch.randn(STEPS, BATCH, OBSERVATION),)


# World models ---------------------------------------------------------------------------------------------------------


def perceptron(*widths: int, activation: type[nn.Module] = nn.ELU, norm: bool = False) -> nn.Sequential:
    """Linear layers with an activation, and a layer norm if asked for, between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(inputs, outputs), *([nn.LayerNorm(outputs)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class TDMPC(nn.Module):
    """TD-MPC's five networks (arXiv 2203.04955)."""

    def __init__(self, latent: int = 20, width: int = 48) -> None:
        super().__init__()
        self.encoder = perceptron(OBSERVATION, width, latent)
        self.dynamics = perceptron(latent + ACTION, width, width, latent)
        self.reward = perceptron(latent + ACTION, width, width, 1)
        self.pi = perceptron(latent, width, width, ACTION)
        self.q1 = self._value(latent, width)
        self.q2 = self._value(latent, width)

    @staticmethod
    def _value(latent: int, width: int) -> nn.Sequential:
        first = [nn.Linear(latent + ACTION, width), nn.LayerNorm(width), nn.Tanh()]
        return nn.Sequential(*first, nn.Linear(width, width), nn.ELU(), nn.Linear(width, 1))


def _planned(model: Any, inputs: Any) -> Any:
    observation, actions = inputs
    z = model.encoder(observation)
    total = torch.zeros(len(observation), 1, dtype=observation.dtype)
    for step, action in enumerate(actions):
        pair = torch.cat([z, action], dim=-1)
        total = total + 0.99**step * model.reward(pair)
        z = model.dynamics(pair)
    last = torch.tanh(model.pi(z))
    pair = torch.cat([z, last], dim=-1)
    return total + torch.minimum(model.q1(pair), model.q2(pair)), last


def _observation_and_actions() -> tuple[torch.Tensor, ...]:
    return torch.randn(BATCH, OBSERVATION), torch.randn(STEPS, BATCH, ACTION).tanh()


class SimNorm(nn.Module):
    """Simplicial normalisation (arXiv 2204.00616): a softmax over every ``dim`` neighbouring features."""

    def __init__(self, dim: int = 4) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        x = x.view(*shape[:-1], -1, self.dim)
        return F.softmax(x, dim=-1).view(*shape)


class NormedLinear(nn.Linear):
    """TD-MPC2's layer (arXiv 2310.16828): Linear, layer norm, activation."""

    def __init__(self, inputs: int, outputs: int, activation: nn.Module | None = None) -> None:
        super().__init__(inputs, outputs)
        self.norm = nn.LayerNorm(outputs)
        self.activation = activation or nn.Mish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.activation(self.norm(super().forward(x)))
        return out


class Ensemble(nn.Module):
    """Value networks whose parameters are stacked and called by ``torch.vmap``."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        parameters, _ = torch.func.stack_module_state(members)
        self._names = list(parameters)
        for name in self._names:
            self.register_parameter(name.replace(".", "_"), nn.Parameter(parameters[name].detach()))
        self._member = [members[0]]  # hidden from the module: its own parameters aren't used

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stacked = {name: getattr(self, name.replace(".", "_")) for name in self._names}

        def one(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = torch.func.functional_call(self._member[0], parameters, (x,))
            return out

        out: torch.Tensor = torch.vmap(one, (0, None), randomness="different")(stacked, x)
        return out


class TDMPC2(nn.Module):
    """TD-MPC2's networks: a SimNorm latent, distributional reward and values, an ensemble of value functions."""

    def __init__(self, latent: int = 32, width: int = 48, bins: int = 21, members: int = 3) -> None:
        super().__init__()
        simplex = SimNorm(4)
        self.encoder = nn.Sequential(NormedLinear(OBSERVATION, width), NormedLinear(width, latent, simplex))
        joint = latent + ACTION
        self.dynamics = nn.Sequential(
            NormedLinear(joint, width), NormedLinear(width, width), NormedLinear(width, latent, simplex)
        )
        self.reward = nn.Sequential(NormedLinear(joint, width), NormedLinear(width, width), nn.Linear(width, bins))
        self.pi = nn.Sequential(NormedLinear(latent, width), NormedLinear(width, width), nn.Linear(width, 2 * ACTION))
        self.values = Ensemble(
            [
                nn.Sequential(NormedLinear(joint, width), NormedLinear(width, width), nn.Linear(width, bins))
                for _ in range(members)
            ]
        )


def _planned_by_bins(model: Any, inputs: Any) -> Any:
    observation, actions = inputs
    z = model.encoder(observation)
    rewards = []
    for action in actions:
        pair = torch.cat([z, action], dim=-1)
        rewards.append(model.reward(pair))
        z = model.dynamics(pair)
    mean, log_std = model.pi(z).chunk(2, dim=-1)
    last = torch.tanh(mean + log_std.clamp(-5, 2).exp() * torch.randn_like(mean))
    return torch.stack(rewards), model.values(torch.cat([z, last], dim=-1))


class RSSM(nn.Module):
    """Dreamer's recurrent state-space model (arXiv 1811.04551): a deterministic and a Gaussian state."""

    def __init__(self, deterministic: int = 32, stochastic: int = 8, width: int = 40) -> None:
        super().__init__()
        self.deterministic, self.stochastic = deterministic, stochastic
        self.encoder = perceptron(OBSERVATION, width, width)
        self.joined = nn.Sequential(nn.Linear(stochastic + ACTION, width), nn.ELU())
        self.cell = nn.GRUCell(width, deterministic)
        self.prior = perceptron(deterministic, width, 2 * stochastic)
        self.posterior = perceptron(deterministic + width, width, 2 * stochastic)
        self.decoder = perceptron(deterministic + stochastic, width, OBSERVATION)
        self.reward = perceptron(deterministic + stochastic, width, 1)

    def sample(self, statistics: torch.Tensor) -> torch.Tensor:
        """A state of the Gaussian that ``statistics``, (..., 2 * stochastic), describe."""
        mean, deviation = torch.chunk(statistics, 2, dim=-1)
        return mean + (F.softplus(deviation) + 0.1) * torch.randn_like(mean)

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch = observations.shape[1]
        h = observations.new_zeros(batch, self.deterministic)
        s = observations.new_zeros(batch, self.stochastic)
        decoded, rewards, divergences = [], [], []
        for observation, action in zip(observations, actions, strict=True):
            h = self.cell(self.joined(torch.cat([s, action], -1)), h)
            prior = self.prior(h)
            posterior = self.posterior(torch.cat([h, self.encoder(observation)], -1))
            s = self.sample(posterior)
            features = torch.cat([h, s], -1)
            decoded.append(self.decoder(features))
            rewards.append(self.reward(features))
            divergences.append((prior - posterior).square().sum(-1))
        return torch.stack(decoded), torch.stack(rewards), torch.stack(divergences)


def _trajectories() -> tuple[torch.Tensor, ...]:
    return torch.randn(STEPS, BATCH, OBSERVATION), torch.randn(STEPS, BATCH, ACTION).tanh()


class DreamerV2(RSSM):
    """The same with categorical states (arXiv 2010.02193): ``stochastic`` variables of ``classes`` values each."""

    def __init__(self, deterministic: int = 32, variables: int = 6, classes: int = 5) -> None:
        super().__init__(deterministic, variables * classes)
        self.variables, self.classes = variables, classes
        self.prior = perceptron(deterministic, 40, variables * classes)
        self.posterior = perceptron(deterministic + 40, 40, variables * classes)

    def sample(self, statistics: torch.Tensor) -> torch.Tensor:
        """Probabilities of every variable's values, flattened; a straight-through sample's mean."""
        logits = statistics.reshape(*statistics.shape[:-1], self.variables, self.classes)
        return F.softmax(logits, dim=-1).flatten(-2)


class PixelEncoder(nn.Module):
    """DrQ's agent from pixels: a convolutional encoder, a trunk with a layer norm, actor and twin critic."""

    def __init__(self, width: int = 16, features: int = 24, hidden: int = 48) -> None:
        super().__init__()
        convolutions: list[nn.Module] = [nn.Conv2d(9, width, 3, stride=2), nn.ReLU()]
        for _ in range(3):
            convolutions += [nn.Conv2d(width, width, 3), nn.ReLU()]
        self.convolutions = nn.Sequential(*convolutions)
        self.trunk = nn.Sequential(nn.Linear(width * 9 * 9, features), nn.LayerNorm(features), nn.Tanh())
        self.actor = perceptron(features, hidden, hidden, 2 * ACTION, activation=nn.ReLU)
        self.critics = nn.ModuleList(
            perceptron(features + ACTION, hidden, hidden, 1, activation=nn.ReLU) for _ in range(2)
        )

    def forward(self, pixels: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = self.convolutions(pixels / 255 - 0.5)
        features = self.trunk(maps.view(maps.shape[0], -1))
        joint = torch.cat([features, action], -1)
        return self.actor(features), *(critic(joint) for critic in self.critics)


class Diffuser(nn.Module):
    """A diffusion policy's network: sinusoidal time, FiLM-conditioned residual blocks (arXiv 2303.04137)."""

    def __init__(self, width: int = 48, horizon: int = 6) -> None:
        super().__init__()
        self.width = width
        self.time = perceptron(16, width, width, activation=nn.Mish)
        self.inputs = nn.Conv1d(ACTION, width, 3, padding=1)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(3))
        self.films = nn.ModuleList(nn.Linear(width + OBSERVATION, 2 * width) for _ in range(3))
        self.outputs = nn.Conv1d(width, ACTION, 1)

    def forward(self, actions: torch.Tensor, step: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        frequencies = torch.exp(torch.arange(8, dtype=actions.dtype) * -0.5)
        angles = step[:, None] * frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        condition = torch.cat([time, observation], -1)
        x = self.inputs(actions)
        for convolution, norm, film in zip(self.convolutions, self.norms, self.films, strict=True):
            scale, shift = film(condition)[..., None].chunk(2, dim=1)
            x = x + F.mish(norm(convolution(x)) * (1 + scale) + shift)
        out: torch.Tensor = self.outputs(x)
        return out


def _noisy_actions() -> tuple[torch.Tensor, ...]:
    return torch.randn(BATCH, ACTION, 6), torch.rand(BATCH), torch.randn(BATCH, OBSERVATION)


def _heads(*names: str) -> PeerSettings:
    return PeerSettings(outputs=names)


def _recurrent(
    name: str, build: Callable[[], nn.Module], inputs: Callable[[], Any] = _sequences, run: Run | None = None
) -> Entry:
    return Entry(f"control/{name}", build, inputs, run, _heads("head", "policy.2", "value.2"))


_SAC: dict[str, Any] = {"net_arch": [48, 48]}

ENTRIES = [
    Entry(
        "control/ppo_mlp",
        _policy("ActorCriticPolicy", "common.policies"),
        _observations,
        _evaluated,
        _heads("action_net", "value_net"),
    ),
    Entry(
        "control/ppo_cnn",
        _policy("ActorCriticCnnPolicy", "common.policies", image=True),
        _images,
        _evaluated,
        _heads("action_net", "value_net"),
    ),
    Entry(
        "control/dqn_mlp",
        _policy("DQNPolicy", "dqn.policies", discrete=True),
        _observations,
        lambda model, inputs: model.q_net(*inputs),
        _heads("q_net.q_net.4"),
    ),
    Entry(
        "control/sac",
        _policy("SACPolicy", "sac.policies", **_SAC),
        _observations,
        _actor_and_critic,
        _heads("actor.mu", "actor.log_std", "critic.qf?.4"),
    ),
    Entry(
        "control/td3",
        _policy("TD3Policy", "td3.policies", **_SAC),
        _observations,
        _actor_and_critic,
        _heads("actor.mu.4", "critic.qf?.4"),
    ),
    _recurrent("lstm", lambda: Recurrent("LSTM")),
    _recurrent("lstm_last_hidden", lambda: Recurrent("LSTM", read="hidden", num_layers=2)),
    _recurrent("lstm_bidirectional", lambda: Recurrent("LSTM", num_layers=2, bidirectional=True)),
    _recurrent("lstm_projected", lambda: Recurrent("LSTM", proj_size=12)),
    _recurrent("gru", lambda: Recurrent("GRU", num_layers=2)),
    _recurrent("gru_last_hidden", lambda: Recurrent("GRU", read="hidden")),
    _recurrent("rnn_relu", lambda: Recurrent("RNN", nonlinearity="relu")),
    _recurrent("gru_given_state", GivenState, _steps, _rolled_out),
    _recurrent("gru_cell", lambda: CellLoop("GRUCell")),
    _recurrent("lstm_cell", lambda: CellLoop("LSTMCell")),
    Entry(
        "control/tdmpc",
        TDMPC,
        _observation_and_actions,
        _planned,
        _heads("reward.4", "pi.4", "q?.5"),
    ),
    Entry(
        "control/tdmpc2",
        TDMPC2,
        _observation_and_actions,
        _planned_by_bins,
        _heads("reward.2", "pi.2"),
    ),
    Entry("control/rssm", RSSM, _trajectories, peer=_heads("decoder.2", "reward.2")),
    Entry("control/dreamer_v2", DreamerV2, _trajectories, peer=_heads("decoder.2", "reward.2")),
    Entry(
        "control/drq",
        PixelEncoder,
        lambda: (255 * torch.rand(2, 9, 32, 32), torch.randn(2, ACTION).tanh()),
        peer=_heads("actor.4", "critics.?.4"),
    ),
    Entry("control/diffusion_policy", Diffuser, _noisy_actions, peer=_heads("outputs")),
]

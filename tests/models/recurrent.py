"""Recurrent models: torch's layers in every form, cells stepped in loops, gated cells by hand, world models."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.models.case import Case
from tests.models.habits import ENC, TOKENS, habit
from tests.models.vectors import vector, vectors

Layer = type[nn.RNN | nn.GRU | nn.LSTM]


class LastState(nn.Module):
    """A sequence classifier that reads what a recurrent layer returns as its last hidden state.

    ``how``: "last layer": ``h_n[-1]``; "both directions": those of the last layer side by side; "all layers": every
    layer's; "cell": an LSTM's memory; "last output": the outputs at the last step.
    """

    def __init__(self, kind: Layer, how: str = "last layer", **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.rnn = kind(6, 8, **options)
        width = options.get("proj_size") or 8
        times = {"both directions": 2, "all layers": options.get("num_layers", 1)}.get(how, 1)
        self.head = nn.Linear(width * times, 2)
        self.how = how
        self.batch_first = bool(options.get("batch_first"))

    def forward(self, x: torch.Tensor) -> Any:
        outputs, state = self.rnn(torch.cos(self.embed(x)))
        last, memory = state if isinstance(state, tuple) else (state, state)
        if self.how == "last output":
            return self.head(outputs[:, -1] if self.batch_first else outputs[-1])
        if self.how == "both directions":
            return self.head(torch.cat([last[-2], last[-1]], dim=-1))
        if self.how == "all layers":
            return self.head(last.transpose(0, 1).flatten(1))
        return self.head(memory[-1] if self.how == "cell" else last[-1])


class Packed(nn.Module):
    """Sequences of different lengths, packed."""

    def __init__(self, kind: Layer, *, bidirectional: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = kind(6, 8, num_layers=2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(16 if bidirectional else 8, 2)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> Any:
        packed = pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.head(outputs.sum(1))


class GivenState(nn.Module):
    """The first hidden state is a parameter, comes from another layer, is zero, or is an input of the model."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 2)
        if how == "learned":
            self.first = nn.Parameter(torch.randn(2, 1, 8))
        elif how == "computed":
            self.condition = nn.Linear(4, 16)
        self.how = how

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> Any:
        return self.head(self.rnn(x, self._state(condition))[0])

    def _state(self, condition: torch.Tensor) -> torch.Tensor:
        if self.how == "learned":
            return self.first.expand(-1, len(condition), -1).contiguous()
        if self.how == "computed":
            return torch.tanh(self.condition(condition)).unflatten(-1, (2, -1)).transpose(0, 1).contiguous()
        if self.how == "zeros":
            weight: Any = self.rnn.weight_hh_l0
            return condition.new_zeros(2, len(condition), weight.shape[1])
        return condition.unflatten(-1, (2, -1)).transpose(0, 1).contiguous()


class CellLoop(nn.Module):
    """Two cells on top of each other, stepped from states made of their own weights' sizes."""

    def __init__(self, kind: type[nn.RNNCell | nn.GRUCell | nn.LSTMCell]) -> None:
        super().__init__()
        self.low = kind(5, 8)
        self.high = kind(8, 7)
        self.head = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> Any:
        low, high = self._zeros(self.low, x), self._zeros(self.high, x)
        for step in range(x.shape[1]):
            low = self.low(x[:, step], low)
            high = self.high(low[0] if isinstance(low, tuple) else low, high)
        return self.head(high[0] if isinstance(high, tuple) else high)

    @staticmethod
    def _zeros(cell: nn.RNNCellBase, x: torch.Tensor) -> Any:
        zeros = x.new_zeros(x.shape[0], cell.weight_hh.shape[1])
        return (zeros, zeros.clone()) if isinstance(cell, nn.LSTMCell) else zeros


class Remembering(nn.Module):
    """A policy that keeps its hidden state between calls."""

    state: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 8)
        self.head = nn.Linear(8, 2)
        self.state = None

    def forward(self, x: torch.Tensor) -> Any:
        self.state = self.cell(x, self.state)
        return self.head(self.state)


def episode(model: Any, observations: torch.Tensor) -> Any:
    """Act step by step, with the state forgotten first."""
    model.state = None
    return [model(observation) for observation in observations]


class NormedGru(nn.Module):
    """The gated cell of Dreamer: all gates from one normalised layer, the update's bias shifted."""

    def __init__(self, inputs: int, width: int, *, norm: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs + width, 3 * width, bias=not norm)
        self.norm = nn.LayerNorm(3 * width) if norm else nn.Identity()

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> Any:
        reset, candidate, update = self.norm(self.layer(torch.cat([x, state], -1))).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return update * candidate + (1 - update) * state


class Dreamer(nn.Module):
    """That cell, stepped over a sequence."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.cell = NormedGru(5, 8, norm=norm)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        state = x.new_zeros(len(x), self.head.weight.shape[1])
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state)


class Rssm(nn.Module):
    """A recurrent state-space model: a deterministic path by a gated cell, a stochastic one by prior and posterior.

    ``latent``: "gaussian" or "discrete" (rows of classes, sampled straight through).
    """

    def __init__(self, latent: str) -> None:
        super().__init__()
        stochastic = 5 if latent == "gaussian" else 12
        heads = 10 if latent == "gaussian" else 12
        self.encoder = nn.Sequential(nn.Linear(6, 9), nn.SiLU())
        self.before = nn.Sequential(nn.Linear(stochastic + 2, 7), nn.SiLU())
        self.cell = nn.GRUCell(7, 8)
        self.prior = nn.Sequential(nn.Linear(8, 10), nn.SiLU(), nn.Linear(10, heads))
        self.posterior = nn.Sequential(nn.Linear(8 + 9, 11), nn.SiLU(), nn.Linear(11, heads))
        self.decoder = nn.Sequential(nn.Linear(8 + stochastic, 12), nn.SiLU(), nn.Linear(12, 6))
        self.reward = nn.Linear(8 + stochastic, 1)
        self.latent = latent

    def forward(self, observations: torch.Tensor, actions: torch.Tensor) -> Any:
        """Filter a sequence of observations, then imagine the rest of the actions."""
        embedded = self.encoder(observations)
        b, steps = observations.shape[:2]
        state = embedded.new_zeros(b, self.cell.weight_hh.shape[1])
        stochastic = self._sample(self.prior(state))[0]
        features, divergence = [], torch.zeros((), dtype=observations.dtype)
        for step in range(actions.shape[1]):
            state = self.cell(self.before(torch.cat([stochastic, actions[:, step]], -1)), state)
            stochastic, prior = self._sample(self.prior(state))
            if step < steps:
                stochastic, posterior = self._sample(self.posterior(torch.cat([state, embedded[:, step]], -1)))
                divergence = divergence + (posterior - prior).pow(2).sum()
            features.append(torch.cat([state, stochastic], -1))
        feature = torch.stack(features, 1)
        return {"observation": self.decoder(feature), "reward": self.reward(feature), "loss": divergence}

    def _sample(self, head: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.latent == "gaussian":
            mean, deviation = head.chunk(2, -1)
            return mean + (F.softplus(deviation) + 0.1) * torch.randn_like(mean), mean
        probabilities = head.view(len(head), -1, 4).softmax(-1)
        probabilities = 0.99 * probabilities + 0.01 / 4
        hard = F.one_hot(probabilities.argmax(-1), 4).to(head.dtype)
        return (hard + probabilities - probabilities.detach()).flatten(1), probabilities.flatten(1)


class SimNormWorld(nn.Module):
    """TD-MPC2's latent: pieces of eight channels, each a softmax, between normalised layers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.Mish(), nn.Linear(12, 24))
        self.dynamics = nn.Sequential(nn.Linear(24 + 2, 14), nn.LayerNorm(14), nn.Mish(), nn.Linear(14, 24))
        self.norms = nn.ModuleList([nn.LayerNorm(24), nn.LayerNorm(24)])
        self.reward = nn.Sequential(nn.Linear(24 + 2, 10), nn.Mish(), nn.Linear(10, 3))

    def forward(self, x: torch.Tensor, actions: torch.Tensor) -> Any:
        z = simplices(self.norms[0](self.encoder(x)))
        rewards = []
        for action in actions.unbind(1):
            joined = torch.cat([z, action], -1)
            rewards.append(self.reward(joined))
            z = simplices(self.norms[1](self.dynamics(joined)))
        return torch.stack(rewards, 1)


def simplices(x: torch.Tensor) -> torch.Tensor:
    shape = x.shape
    return F.softmax(x.view(*shape[:-1], -1, 8), dim=-1).view(*shape)


def sim_norm(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](simplices(m.inner[0](x)))


class ConvLstm(nn.Module):
    """An LSTM cell of convolutions, its four gates from one."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 + 5, 20, 3, padding=1)
        self.head = nn.Conv2d(5, 1, 1)

    def forward(self, x: torch.Tensor) -> Any:
        b, _, _, height, width = x.shape
        hidden = x.new_zeros(b, self.head.weight.shape[1], height, width)
        memory = torch.zeros_like(hidden)
        for step in x.unbind(1):
            into, forget, out, new = self.gates(torch.cat([step, hidden], 1)).chunk(4, 1)
            memory = forget.sigmoid() * memory + into.sigmoid() * new.tanh()
            hidden = out.sigmoid() * memory.tanh()
        return self.head(hidden)


class Translator(nn.Module):
    """An encoder read through additive attention by a decoder that feeds its own words back."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(11, 6)
        self.target = nn.Embedding(9, 7)
        self.encoder = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(10, 8)
        self.query, self.key, self.energy = nn.Linear(8, 6), nn.Linear(10, 6), nn.Linear(6, 1)
        self.cell = nn.LSTMCell(7 + 10, 8)
        self.head = nn.Linear(8 + 10, 9)

    def forward(self, tokens: torch.Tensor) -> Any:
        memory, last = self.encoder(self.source(tokens))
        hidden = torch.tanh(self.bridge(torch.cat([last[0], last[1]], -1)))
        cell, word, outputs = torch.zeros_like(hidden), tokens.new_zeros(len(tokens)), []
        for _ in range(3):
            energies = self.energy(torch.tanh(self.query(hidden)[:, None] + self.key(memory))).squeeze(-1)
            context = torch.bmm(energies.softmax(-1).unsqueeze(1), memory).squeeze(1)
            hidden, cell = self.cell(torch.cat([self.target(word), context], -1), (hidden, cell))
            outputs.append(self.head(torch.cat([hidden, context], -1)))
            word = outputs[-1].argmax(-1)
        return torch.stack(outputs, 1)


class ActorCritic(nn.Module):
    """A recurrent controller: a shared body, memory that episodes' ends reset, an actor and a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 10), nn.Tanh())
        self.memory = nn.LSTM(10, 8)
        self.actor = nn.Sequential(nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 2))
        self.critic = nn.Sequential(nn.Linear(8, 9), nn.Tanh(), nn.Linear(9, 1))

    def forward(self, observations: torch.Tensor, starts: torch.Tensor) -> Any:
        features = self.body(observations)
        state = None
        outputs = []
        for step, start in zip(features, starts, strict=True):
            if state is not None:
                state = tuple((1.0 - start).view(1, -1, 1) * part for part in state)
            output, state = self.memory(step.unsqueeze(0), state)
            outputs.append(output)
        latent = torch.cat(outputs)
        return self.actor(latent), self.critic(latent)


class Scan(nn.Module):
    """A parallel scan instead of a loop: gates that depend on the input alone, and sums along time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.new = nn.Linear(5, 8), nn.Linear(5, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        decay = -F.softplus(self.gate(x)).cumsum(1)
        return self.head(torch.logcumsumexp(self.new(x) - decay, 1).add(decay).exp())


def own_gates(m: Any, x: torch.Tensor) -> Any:
    """An LSTM from two linear layers, whose gates are cut by the hidden state's width."""
    state = memory = x.new_zeros(x.shape[0], m.inner[1].weight.shape[1])
    width = state.shape[1]
    for step in x.unbind(1):
        gates = m.inner[0](step) + m.inner[1](state)
        into, forget = torch.sigmoid(gates[:, :width]), torch.sigmoid(gates[:, width : 2 * width])
        new, out = torch.tanh(gates[:, 2 * width : 3 * width]), torch.sigmoid(gates[:, 3 * width :])
        memory = forget * memory + into * new
        state = out * torch.tanh(memory)
    return m.inner[2](state)


def functional_cell(m: Any, x: torch.Tensor) -> Any:
    cell = m.inner[0]
    state = x.new_zeros(x.shape[0], cell.weight_hh.shape[1])
    for step in x.unbind(1):
        state = torch.gru_cell(step, state, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    return m.inner[1](state)


def tokens_and_lengths() -> Any:
    return torch.randint(11, (3, 5)), torch.tensor([3, 5, 2])


LAST = {"embed": 6, "rnn": 8}
PROJECTED = {"embed": 6, "rnn": 8, "rnn#2": 4}
STEPS = {"low": 8, "high": 7}
BOTH_WAYS = {"num_layers": 2, "bidirectional": True}
WORLD = {"encoder.0": 9, "before.0": 7, "cell": 8, "prior.0": 10, "posterior.0": 11, "decoder.0": 12}

CASES: list[Case] = [
    Case("last-state-lstm", lambda: LastState(nn.LSTM, batch_first=True), vector(2, 3, 5), LAST),
    Case("last-state-gru", lambda: LastState(nn.GRU, batch_first=True), vector(2, 3, 5), LAST),
    Case("last-state-rnn", lambda: LastState(nn.RNN, nonlinearity="relu"), vector(3, 2, 5), LAST),
    Case("last-state-memory", lambda: LastState(nn.LSTM, "cell", num_layers=2), vector(3, 2, 5), LAST),
    Case("last-state-unbatched", lambda: LastState(nn.GRU), vector(3, 5), LAST),
    Case("last-state-directions", lambda: LastState(nn.GRU, "both directions", **BOTH_WAYS), vector(3, 2, 5), LAST),
    Case("last-state-layers", lambda: LastState(nn.GRU, "all layers", num_layers=2), vector(3, 2, 5), LAST),
    Case("last-output", lambda: LastState(nn.LSTM, "last output", batch_first=True, bias=False), vector(2, 3, 5), LAST),
    Case(
        "last-output-deep", lambda: LastState(nn.LSTM, "last output", num_layers=3, dropout=0.1), vector(3, 2, 5), LAST
    ),
    Case("projected", lambda: LastState(nn.LSTM, proj_size=4, num_layers=2), vector(3, 2, 5), PROJECTED),
    Case(
        "projected-directions",
        lambda: LastState(nn.LSTM, "both directions", proj_size=4, bidirectional=True),
        vector(3, 2, 5),
        PROJECTED,
    ),
    Case("packed-lstm", lambda: Packed(nn.LSTM, bidirectional=False), tokens_and_lengths, LAST),
    Case("packed-gru", lambda: Packed(nn.GRU, bidirectional=True), tokens_and_lengths, LAST),
    Case("packed-rnn", lambda: Packed(nn.RNN, bidirectional=True), tokens_and_lengths, LAST),
    Case("state-learned", lambda: GivenState("learned"), vectors((2, 3, 5), (2, 4)), {"first": 8}),
    Case("state-computed", lambda: GivenState("computed"), vectors((2, 3, 5), (2, 4)), {"rnn": 8}),
    Case("state-zeros", lambda: GivenState("zeros"), vectors((2, 3, 5), (2, 4)), {"rnn": 8}),
    Case("state-given", lambda: GivenState("given"), vectors((2, 3, 5), (2, 16)), {}),
    Case("cell-loop-rnn", lambda: CellLoop(nn.RNNCell), vector(2, 3, 5), STEPS),
    Case("cell-loop-gru", lambda: CellLoop(nn.GRUCell), vector(2, 12, 5), STEPS),
    Case("cell-loop-lstm", lambda: CellLoop(nn.LSTMCell), vector(2, 1, 5), STEPS),
    Case("state-remembered", Remembering, vector(3, 2, 5), {"cell": 8}, run=episode),
    Case("dreamer-cell", lambda: Dreamer(norm=False), vector(2, 3, 5), {"cell.layer": 8}),
    Case(
        "dreamer-cell-normed",
        lambda: Dreamer(norm=True),
        vector(2, 3, 5),
        {"cell.layer": 8},
        mixing={"cell.layer": "layer_norm"},
    ),
    Case(
        "rssm",
        lambda: Rssm("gaussian"),
        vectors((2, 2, 6), (2, 3, 2)),
        {**WORLD, "prior.2": 5},
        keep=frozenset({"prior.2"}),  # a narrower latent draws other random numbers
    ),
    # One-hot samples are made in zeros of torch's own, so that the rows of classes stay.
    Case("rssm-discrete", lambda: Rssm("discrete"), vectors((2, 2, 6), (2, 3, 2)), WORLD),
    Case(
        "sim-norm-world",
        SimNormWorld,
        vectors((2, 6), (2, 3, 2)),
        {"encoder.0": 12, "encoder.3": 3, "dynamics.0": 14, "reward.0": 10},
        mixing={"encoder.0": "layer_norm", "encoder.3": "layer_norm", "dynamics.0": "layer_norm"},
    ),
    habit("sim-norm", sim_norm, lambda: [nn.Linear(6, 32), nn.Linear(32, 2)], {ENC: 4}),
    Case("conv-lstm", ConvLstm, vector(2, 3, 2, 4, 4), {"gates": 5}),
    Case(
        "translator",
        Translator,
        lambda: torch.randint(11, (2, 4)),
        {"source": 6, "target": 7, "encoder": 5, "bridge": 8, "query": 6},
    ),
    Case(
        "actor-critic",
        ActorCritic,
        lambda: (torch.randn(3, 2, 6), torch.tensor([[1, 1], [0, 1], [0, 0.0]])),
        {"body.0": 10, "memory": 8, "actor.0": 7, "critic.0": 9},
    ),
    Case("parallel-scan", Scan, vector(2, 4, 5), {"gate": 8}),
    habit(
        "own-gates",
        own_gates,
        lambda: [nn.Linear(6, 32), nn.Linear(8, 32, bias=False), nn.Linear(8, 2)],
        {ENC: 8},
        shape=TOKENS,
    ),
    habit("functional-cell", functional_cell, lambda: [nn.GRUCell(6, 8), nn.Linear(8, 2)], {ENC: 8}, shape=TOKENS),
]

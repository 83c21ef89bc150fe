"""What the entry point never uses follows its twin, or stays whole and is named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import secateur
from secateur.errors import SecateurWarning
from secateur.graph import DependencyGraph, trace
from secateur.graph.copy_names import Kinship, kinship
from secateur.graph.groups import Role
from secateur.graph.parts import Parts
from secateur.graph.record import Trace
from secateur.importance import Taylor
from secateur.io import load, save
from secateur.plan import PruningPlan
from secateur.surgery import apply
from tests.models.case import unsettle
from tests.removal import largest_difference, masked, outputs, random_plan

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double()


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def ready(model: nn.Module) -> Any:
    """In float64 and eval mode, with nothing left at zero or one."""
    torch.manual_seed(0)
    model = model.double().eval()
    unsettle(model)
    return model


def stays(graph: DependencyGraph, prefix: str) -> set[str]:
    """Reasons why axes of the parameters under ``prefix`` stay."""
    return {reason for item in graph.unprunable if item.parameter.startswith(prefix) for reason in item.reasons}


def members(graph: DependencyGraph) -> set[tuple[str, int]]:
    return {(m.parameter, m.axis) for group in graph.groups for m in group.members}


# --- experts ----------------------------------------------------------------------------------------------------------


class Mixture(nn.Module):
    """Experts beside a skip connection; the caller picks one."""

    def __init__(self, make: Callable[[], nn.Module], count: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 8)
        self.experts = nn.ModuleList(make() for _ in range(count))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor, pick: int) -> torch.Tensor:
        h = torch.tanh(self.encoder(x))
        made: torch.Tensor = self.head(torch.tanh(h + self.experts[pick](h)))
        return made


def picking(*picks: int) -> Callable[[nn.Module], Any]:
    return lambda model: [model(X, pick) for pick in picks]


def test_experts_that_were_not_picked_fit_when_they_are() -> None:
    model = ready(Mixture(lambda: perceptron(8, 5, 8)))
    graph = trace(model, run=picking(0, 2))
    assert {g.name: g.size for g in graph.groups} == {"encoder": 8, "experts.0.0": 5, "experts.2.0": 5}
    assert ("experts.1.0.weight", 0) in {(m.parameter, m.axis) for m in graph.group("experts.0.0").members}
    assert ("experts.1.2.weight", 0) in {(m.parameter, m.axis) for m in graph.group("encoder").members}
    for seed in range(3):
        plan = random_plan(graph, seed)
        small = apply(model, plan)
        for pick in range(3):
            run = picking(pick)
            assert largest_difference(outputs(run, small), outputs(run, masked(model, graph, plan))) < 1e-9


def test_a_single_reached_sibling_is_followed_with_a_warning() -> None:
    model = ready(Mixture(lambda: perceptron(8, 5, 8)))
    with pytest.warns(
        SecateurWarning,
        match=r"go like a sibling.*: 'experts\.0' \(like 'experts\.1'\), 'experts\.2' \(like 'experts\.1'\)",
    ):
        graph = trace(model, run=picking(1))
    plan = random_plan(graph, 0)
    for pick in range(3):
        run = picking(pick)
        assert largest_difference(outputs(run, apply(model, plan)), outputs(run, masked(model, graph, plan))) < 1e-9


def test_no_warning_where_nothing_is_in_doubt() -> None:
    """Only channels of the sibling's own can leave: what both may meet is protected."""
    model = ready(Mixture(lambda: perceptron(8, 5, 8)))
    graph = trace(model, run=picking(1), protect="encoder")
    assert {g.name: g.size for g in graph.groups} == {"experts.0.0": 5}


def test_the_nearest_reached_sibling_is_followed() -> None:
    graph = trace(ready(Mixture(lambda: perceptron(8, 5, 8), count=4)), run=picking(0, 3))
    assert {m.parameter.split(".")[1] for m in graph.group("experts.0.0").members} == {"0", "1"}
    assert {m.parameter.split(".")[1] for m in graph.group("experts.2.0").members} == {"2", "3"}


def test_what_siblings_share_belongs_to_none_of_them() -> None:
    shared = nn.Linear(8, 8)
    model = ready(Mixture(lambda: nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 8), shared)))
    with pytest.warns(SecateurWarning, match=r": 'experts\.1' \(like 'experts\.0'\), 'experts\.2' \("):
        trace(model, run=picking(0))


def test_channels_that_must_stay_tell_no_siblings_apart() -> None:
    class Offset(Mixture):
        """Each expert's output has an offset of its own."""

        def __init__(self) -> None:
            super().__init__(lambda: perceptron(8, 5, 2))
            self.offsets = nn.Parameter(torch.randn(3, 2))
            self.a, self.b = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(2))

        def forward(self, x: torch.Tensor, pick: int) -> torch.Tensor:
            made: torch.Tensor = self.experts[pick](self.encoder(x)) + (self.b if pick else self.a)
            return made

    graph = trace(ready(Offset()), run=picking(0, 2), protect="head")
    assert ("experts.1.0.weight", 1) in members(graph)


class Chain(nn.Module):
    """Layers one after the other, as many as asked for, and a head after every one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.heads = nn.ModuleList(nn.Linear(8, 3) for _ in range(4))

    def forward(self, x: torch.Tensor, depth: int) -> list[torch.Tensor]:
        h, made = torch.tanh(self.stem(x)), []
        for layer, head in zip(self.layers[:depth], self.heads, strict=False):
            h = torch.tanh(layer(h))
            made.append(head(h))
        return made


def test_in_a_chain_nothing_is_followed() -> None:
    """Each layer and each head meets channels of its own, so that those of the next are unknown."""
    model = ready(Chain())
    with pytest.warns(SecateurWarning, match=r"stay whole.*: 'layers\.2', 'layers\.3', 'heads\.2', 'heads\.3'\."):
        graph = trace(model, run=lambda m: m(X, 2))
    assert {g.name for g in graph.groups} == {"stem", "layers.0", "layers.1"}
    assert not {m for m in members(graph) if m[0].startswith(("layers.2", "layers.3", "heads.2", "heads.3"))}
    for part, siblings in (("layers.2", "'layers.0', 'layers.1'"), ("heads.3", "'heads.0', 'heads.1'")):
        assert stays(graph, part) == {
            "not reached by the entry point",
            f"{part!r} has siblings that meet different channels ({siblings}), so that those it meets are unknown; "
            "reach it with run=",
        }


def test_siblings_of_another_structure_are_not_followed() -> None:
    """Not even in those parts that are alike (the norm): they would no longer fit the others."""
    model = ready(Mixture(lambda: nn.Sequential(perceptron(8, 5, 8), nn.LayerNorm(8))))
    model.experts[1][0] = perceptron(8, 7, 8).double()
    with pytest.warns(SecateurWarning, match=r"stay whole.*: 'experts\.1'\."):
        graph = trace(model, run=picking(0, 2))
    assert stays(graph, "experts.1") == {"not reached by the entry point"}
    assert not {m for m in members(graph) if m[0].startswith("experts.1")}


class Counting(nn.Module):
    """A convolution, a norm without weights, an attention: attributes count channels."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.LayerNorm(8, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(8, heads, batch_first=True)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.depthwise(h[:, :, None])[..., 0])[None]
        return self.attention(h, h, h, need_weights=False)[0][0]


def test_attributes_follow_too() -> None:
    model = ready(Mixture(Counting))
    small = apply(model, random_plan(trace(model, run=picking(0, 2)), 0))
    width = small.encoder.out_features
    assert width < 8
    for expert in small.experts:
        assert expert.depthwise.groups == expert.depthwise.in_channels == expert.attention.embed_dim == width
        assert expert.norm.normalized_shape == (width,)
        assert expert.attention.num_heads == width // 4
    assert outputs(picking(0, 1, 2), small)


@pytest.mark.parametrize(("heads", "mine", "followed"), [(2, 6, True), (2, 9, False), (4, 6, False)])
def test_numbers_that_differ_make_another_structure(heads: int, mine: int, followed: bool) -> None:
    """But for those that number the siblings."""
    model = ready(Mixture(Counting))
    model.experts[1] = Counting(heads).double().eval()
    for number, expert in enumerate(model.experts, start=5):
        expert.attention.layer_number = number if number != 6 else mine
    graph = trace(model, run=picking(0, 2), protect="encoder")
    assert ("not reached by the entry point" in stays(graph, "experts.1.attention")) != followed


# --- copies -----------------------------------------------------------------------------------------------------------


class Online(nn.Module):
    """A network, and a copy of it that only training uses."""

    def __init__(self, make: Callable[[], nn.Module], copied: Callable[[nn.Module], nn.Module], name: str) -> None:
        super().__init__()
        self.network = make()
        self.add_module(name, copied(self.network))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def convolutional() -> nn.Module:
    layers = [nn.Conv1d(1, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 3, groups=6), nn.Flatten()]
    return nn.Sequential(nn.Unflatten(1, (1, 6)), *layers, nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 2))


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "target_network": copy.deepcopy,
    "teacher": copy.deepcopy,
    "ema_model": lambda network: AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_goes_on_following_its_original(name: str) -> None:
    """Averaging after pruning gives the pruned average."""
    model = ready(Online(convolutional, COPIES[name], name))
    with torch.no_grad():
        for parameter in model.get_submodule(name).parameters():
            parameter.add_(torch.randn_like(parameter))
    graph = trace(model, X)
    assert {g.name: g.size for g in graph.groups} == {"network.1": 6, "network.6": 7}
    plan = random_plan(graph, 0)
    small = apply(model, plan)
    for each in (model, small):
        average(each, name)
    expected = apply(model, plan).state_dict()
    assert expected.keys() == small.state_dict().keys()
    assert all(torch.equal(value, small.state_dict()[key]) for key, value in expected.items())
    run = lambda m: m.get_submodule(name)(X)  # noqa: E731
    assert largest_difference(outputs(run, small), outputs(run, masked(model, graph, plan))) < 1e-9


def average(model: Any, name: str) -> None:
    """Let the copy follow, as training does."""
    copied = model.get_submodule(name)
    if isinstance(copied, AveragedModel):
        copied.update_parameters(model.network)
        return
    with torch.no_grad():
        for mine, theirs in zip(copied.state_dict().values(), model.network.state_dict().values(), strict=True):
            mine.copy_(0.9 * mine + 0.1 * theirs)


class Contrast(nn.Module):
    """Two encoders, one of them for the keys, a queue of keys."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder_q = nn.Sequential(perceptron(6, 9, 7), nn.ReLU(), perceptron(7, 8, 3))
        self.encoder_k = nn.Sequential(perceptron(6, 9, 7), nn.ReLU(), perceptron(7, 8, 3))
        self.register_buffer("queue", torch.randn(3, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder_q(x)

    @torch.no_grad()
    def loss(self, x: torch.Tensor) -> torch.Tensor:
        for query, key in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            key.lerp_(query, 0.1)
        query, key = self.encoder_q(x), self.encoder_k(x)
        return torch.cat([(query * key).sum(1, keepdim=True), query @ self.queue], 1)


def test_a_momentum_encoder() -> None:
    model = ready(Contrast())
    graph = trace(model, X)
    assert {g.name: g.size for g in graph.groups} == {"encoder_q.0.0": 9, "encoder_q.0.2": 7, "encoder_q.2.0": 8}
    assert all({m.component for m in g.members} == {"encoder_q", "encoder_k"} for g in graph.groups)
    assert not graph.interfaces
    plan = random_plan(graph, 1)
    small = apply(model, plan)
    run = lambda m: m.loss(X)  # noqa: E731
    assert largest_difference(outputs(run, small), outputs(run, masked(model, graph, plan))) < 1e-9


class Critics(nn.Module):
    """Two critics, and targets with the given names."""

    def __init__(self, *targets: str) -> None:
        super().__init__()
        self.q1, self.q2 = perceptron(6, 8, 1), perceptron(6, 8, 1)
        for name in targets:
            self.add_module(name, perceptron(6, 8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(self.q1(x), self.q2(x))


def test_each_target_follows_its_own_critic() -> None:
    graph = trace(ready(Critics("q2_target", "q1_target")), X)
    for which in ("q1", "q2"):
        owners = {m.parameter.partition(".")[0] for m in graph.group(f"{which}.0").members}
        assert owners == {which, f"{which}_target"}


def test_a_name_says_more_than_a_place_in_a_container() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.ModuleDict({name: perceptron(6, 8, 1) for name in ("q1", "q2", "q1_target", "q2_target")})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.minimum(self.all["q1"](x), self.all["q2"](x))

    graph = trace(ready(Listed()), X)
    assert {m.parameter.split(".")[1] for m in graph.group("all.q1.0").members} == {"q1", "q1_target"}


def test_an_ambiguous_copy_stays_whole() -> None:
    graph = trace(ready(Critics("target_q")), X)
    assert not {m for m in members(graph) if m[0].startswith("target")}
    assert stays(graph, "target") == {
        "not reached by the entry point",
        "'target_q' may be a copy of 'q1' or of 'q2'; reach it with run=, or name it after one of them",
    }


@pytest.mark.parametrize(
    ("path", "other", "expected"),
    [
        ("target_critic", "critic", Kinship.NAMED),
        ("critic", "critic_target", Kinship.NAMED),
        ("agent.qTarget.0", "agent.q.0", Kinship.NAMED),
        ("ema_model.module", "net", Kinship.NAMED),
        ("ema.body", "body", Kinship.NAMED),
        ("qnetwork_target", "qnetwork_local", Kinship.NAMED),
        ("momentum_encoder", "base_encoder", Kinship.NAMED),
        ("encoder_k", "encoder_q", Kinship.NAMED),
        ("teacher", "backbone", Kinship.POSSIBLE),
        ("target_q", "q1", Kinship.POSSIBLE),
        ("target_net", "policy_net", Kinship.POSSIBLE),
        ("q1_target", "q2", Kinship.NONE),
        ("target_critic", "target_actor", Kinship.NONE),
        ("aux_head", "head", Kinship.NONE),
        ("target_embed", "source_embed", Kinship.NONE),
        ("decoder", "encoder", Kinship.NONE),
        ("schema", "sch", Kinship.NONE),
    ],
)
def test_what_names_say(path: str, other: str, expected: Kinship) -> None:
    assert kinship(path, other, small=False) == kinship(other, path, small=False) == expected


def test_names_of_small_parts_must_say_more() -> None:
    assert kinship("embed_avg", "embed", small=True) is Kinship.NAMED
    assert kinship("key", "query", small=True) is Kinship.NONE
    assert kinship("target_proj", "out_proj", small=True) is Kinship.NONE


class Quantizer(nn.Module):
    """A codebook with running averages of its own, which only training uses."""

    embed: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(8, 2)
        self.register_buffer("embed", torch.randn(8, 5))
        self.register_buffer("embed_avg", torch.randn(8, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder((self.encoder(x) @ self.embed).softmax(1) @ self.embed.T)


def test_a_buffer_that_follows_another() -> None:
    model = ready(Quantizer())
    graph = trace(model, X)
    assert {("embed", 0), ("embed_avg", 0)} < members(graph)
    small = apply(model, random_plan(graph, 0))
    assert small.embed_avg.shape == small.embed.shape < model.embed.shape


# --- what stays whole -------------------------------------------------------------------------------------------------


class Supervised(nn.Module):
    """A head more while training, from the middle of the body."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)
        self.aux_head: nn.Module = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.body(x)
        y = self.head(self.middle(h))
        return (y, self.aux_head(h)) if self.training else y


def test_a_head_for_training_alone_is_no_copy_of_another() -> None:
    model = ready(Supervised())
    with pytest.warns(SecateurWarning, match=r"stay whole, and won't fit .*: 'aux_head'\. Reach them with run="):
        graph = trace(model, X)
    assert stays(graph, "aux_head") == {"not reached by the entry point"}
    assert {g.name for g in graph.groups} == {"body.0", "middle.0"}


def test_buffers_that_evaluation_never_reads_are_no_news() -> None:
    def both(model: Any) -> Any:
        return model(X), model.aux_head(model.body(X))

    graph = trace(ready(Supervised()), run=both)
    assert not {item for item in graph.unprunable if "not reached by the entry point" in item.reasons}


def test_protecting_a_part_says_that_the_user_knows_of_it() -> None:
    trace(ready(Supervised()), X, protect="aux_head")


def test_a_form_without_values_is_no_news() -> None:
    model = ready(Supervised())
    model.aux_head = nn.Linear(8, 3, device="meta")
    assert stays(trace(model, X), "aux_head") == {"not reached by the entry point"}
    assert not Parts(model, Trace()).holds_parameters("aux_head")
    assert Parts(model.to("meta"), Trace()).holds_parameters("aux_head")


def test_a_part_that_reads_something_else_is_no_news() -> None:
    class Critic(Supervised):
        def __init__(self) -> None:
            super().__init__()
            self.aux_head = perceptron(6, 9, 3)

    assert stays(trace(ready(Critic()), X), "aux_head") == {"not reached by the entry point"}


class Tagged(nn.Module):
    """Rows of a table of positions, as many as the input has; gains of which one is used."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
        self.gains = nn.ParameterList(torch.rand(8) for _ in range(2))
        self.table = nn.Parameter(torch.randn(9, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.encoder(x)) * self.gains[int(len(x) > 5)]
        return self.head(h + self.table[: len(x)])


def test_rows_beyond_the_example_stay() -> None:
    model = ready(Tagged())
    with pytest.warns(SecateurWarning, match=r"'gains\.1' \(like 'gains\.0'\)"):
        graph = trace(model, X)
    assert {g.name: g.size for g in graph.groups} == {"table": 8}
    assert {m for m in members(graph) if m[0].startswith("gains")} == {("gains.0", 0), ("gains.1", 0)}
    longer = torch.cat([X, X])
    (rows,) = [item for item in graph.unprunable if (item.parameter, item.axis) == ("table", 0)]
    assert "indices not reached by the entry point" in rows.reasons
    plan = random_plan(graph, 0)
    run = lambda m: m(longer)  # noqa: E731
    assert largest_difference(outputs(run, apply(model, plan)), outputs(run, masked(model, graph, plan))) < 1e-9


# --- what follows in the pipeline -------------------------------------------------------------------------------------


def pruned() -> tuple[Mixture, DependencyGraph, PruningPlan]:
    model = ready(Mixture(lambda: perceptron(8, 5, 8)))
    graph = trace(model, run=picking(0, 2))
    return model, graph, random_plan(graph, 0)


def test_a_follower_plays_the_part_of_its_twin() -> None:
    model, graph, _ = pruned()
    roles = {(m.parameter, m.axis): m.role for g in graph.groups for m in g.members}
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        for axis in (0, 1):
            mine, theirs = ((f"experts.{i}.{name}", axis) for i in (1, 0))
            assert roles.get(mine) == roles.get(theirs)
    assert roles["experts.1.2.weight", 1] is Role.CONSUMER
    assert not [c for c in graph.consumers if c.parameter.startswith("experts.1")]
    graph = trace(model, run=picking(0, 2), protect="experts.1.0")
    assert not {m for m in members(graph) if m[0].startswith(("experts.0.0.weight", "experts.1.0.bias"))} - {
        ("experts.0.0.weight", 1)
    }


def test_the_pipeline_takes_followers_along(tmp_path: Path) -> None:
    model, graph, plan = pruned()
    small = apply(model, plan)
    secateur.verify(model, small, plan)
    save(small, plan, tmp_path / "small")
    again = load(tmp_path / "small", lambda: ready(Mixture(lambda: perceptron(8, 5, 8))))
    run = picking(0, 1, 2)
    assert largest_difference(outputs(run, again), outputs(run, small)) == 0
    scores = Taylor(lambda m, x: m(x, 0).pow(2).mean(), [X])(graph, model)
    assert all(np.isfinite(values).all() for values in scores.values())
    before = [p.clone() for p in small.experts[1].parameters()]
    report = secateur.recovery.refit_consumers(small, model, plan, picking(0, 2), steps=0)
    assert {c.parameter for c in report.refitted} == {
        "experts.0.0.weight", "experts.0.2.weight", "experts.2.0.weight", "experts.2.2.weight", "head.weight",
    }  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(before, small.experts[1].parameters(), strict=True))

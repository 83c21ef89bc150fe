"""Wrong input to ``trace``: one clear error each; and nothing of a trace stays behind, whatever happens in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from secateur.errors import SecateurError, TraceError
from secateur.graph import trace
from secateur.surgery import apply
from tests.removal import largest_difference, masked, outputs, random_plan

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A body and a head, batch norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.body(x)))


# --- wrong models, inputs and entry points ---


def test_a_model_without_parameters() -> None:
    with pytest.raises(TraceError, match=r"ReLU has no parameters"):
        trace(nn.ReLU(), X)


def test_a_model_with_buffers_only() -> None:
    with pytest.raises(TraceError, match=r"no parameters"):
        trace(nn.BatchNorm1d(6, affine=False), X)


def test_something_that_is_no_model() -> None:
    with pytest.raises(TraceError, match=r"expected a torch\.nn\.Module, not function"):
        trace(lambda x: x, X)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.randn(4, 5), RuntimeError, "shapes cannot be multiplied"),
        ((X, X), TypeError, "positional arguments"),
        ({"y": X}, TypeError, "unexpected keyword argument 'y'"),
        (X.to(torch.int64), RuntimeError, "dtype"),
        ("hello", TypeError, "must be Tensor, not str"),
    ],
    ids=["shape", "too-many", "keyword", "dtype", "text"],
)
def test_example_inputs_that_do_not_fit(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(TraceError, match=r"entry point failed while Net was traced") as caught:
        trace(Net().eval(), inputs)
    assert type(caught.value.__cause__) is error
    assert message in str(caught.value.__cause__)
    assert str(caught.value.__cause__) in str(caught.value)
    assert "example_inputs" in str(caught.value)


@pytest.mark.parametrize("given", [{}, {"example_inputs": X, "run": lambda m: m(X)}], ids=["neither", "both"])
def test_exactly_one_of_inputs_and_run(given: dict[str, Any]) -> None:
    with pytest.raises(TraceError, match=r"either example_inputs or run"):
        trace(Net(), **given)


def test_run_that_can_not_be_called() -> None:
    with pytest.raises(TraceError, match=r"run must be a function .* not int"):
        trace(Net(), run=3)  # type: ignore[arg-type]


def test_uninitialised_parameters() -> None:
    with pytest.raises(TraceError, match=r"[Ll]azy"):
        trace(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)), X)


# --- components and protection ---


class NotBatchNorm(nn.Linear):
    """A class that a test can protect."""


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"a": "torso"}, r"component 'a': the model has no module or parameter 'torso'"),
        ({"a": "body.0.wieght"}, r"did you mean 'body\.0\.weight'"),
        ({"a": ["head", "body.9"]}, r"no module or parameter 'body\.9'"),
        ({"a": nn.Linear(2, 2)}, r"component 'a': the Linear given is not part of the model"),
        ({"a": []}, r"component 'a' is empty"),
        ({"a": "body.2"}, r"component 'a' owns no parameter"),
        ({"a": 3}, r"component 'a': expected .* not 3"),
        (["body"], r"components"),
    ],
    ids=["unknown", "typo", "in-list", "foreign-module", "empty", "no-parameters", "number", "list"],
)
def test_components_that_match_nothing(components: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(Net().eval(), X, components=components)


def test_two_components_that_claim_one_parameter() -> None:
    net = Net().eval()
    for second in ("body.0", net.body[0], ["head", "body.0"]):
        with pytest.raises(TraceError, match=r"components 'a' and 'b' both claim 'body\.0'"):
            trace(net, X, components={"a": ["body.0", "body.3"], "b": second})
    with pytest.raises(TraceError, match=r"both claim 'head\.weight'"):
        trace(net, X, components={"a": net.head.weight, "b": "head.weight"})


def test_a_component_whose_parts_are_all_taken() -> None:
    with pytest.raises(TraceError, match=r"component 'a' owns no parameter"):
        trace(Net().eval(), X, components={"a": "", "b": "body", "c": "head"})


def test_the_longest_path_decides() -> None:
    graph = trace(Net().eval(), X, components={"norm": "body.1", "rest": ["body", "head.weight"]})
    owner = {p.name: p.component for p in graph.parameters}
    assert owner["body.0.weight"] == owner["body.3.bias"] == owner["head.weight"] == "rest"
    assert owner["body.1.weight"] == owner["body.1.running_mean"] == "norm"
    assert owner["head.bias"] == "head"


@pytest.mark.parametrize(
    ("protect", "message"),
    [
        (["tail"], r"protect: the model has no module or parameter 'tail'"),
        (["body.0.weigth"], r"did you mean 'body\.0\.weight'"),
        ([nn.Linear(2, 2)], r"protect: the Linear given is not part of the model"),
        ([5], r"protect: expected a module, a parameter, a dotted name, a pattern or a module class, not int"),
        ([float], r"protect: expected a module, a parameter, a dotted name, a pattern or a module class, not type"),
        (
            "body.*.wieght",
            r"no module or parameter .* matches the pattern 'body\.\*\.wieght'; did you mean 'body\.3\.weight'",
        ),
        ("*.head", r"no module or parameter of the model matches the pattern '\*\.head'; did you mean 'head'"),
        (nn.LayerNorm, r"protect: the model has no module of class LayerNorm"),
        ("body.2", r"protect: 'body\.2' holds no parameters, .*protect the layer that makes what it works on"),
        ([nn.ReLU], r"protect: 'body\.2' holds no parameters"),
    ],
    ids=[
        *("unknown", "typo", "foreign-module", "number", "class-of-something-else", "pattern", "pattern-and-top-level"),
        *("class", "nothing-to-pin", "class-with-nothing-to-pin"),
    ],
)
def test_protected_names_that_do_not_exist(protect: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(Net().eval(), X, protect=protect)


@pytest.mark.parametrize(
    "how",
    ["name", "list", "module", "modules", "parameter", "pattern", "pattern-of-parameters", "class"],
)
def test_protect_takes_one_or_several(how: str) -> None:
    net = Net().eval()
    net.body[3] = NotBatchNorm(10, 8)
    protect: Any = {
        "name": "body.3",
        "list": ["body.3"],
        "module": net.body[3],
        "modules": [net.body[3]],
        "parameter": [net.body[3].weight],
        "pattern": "b*.3",
        "pattern-of-parameters": ["body.[3-9].wei*", "body.3.bias"],
        "class": NotBatchNorm,
    }[how]
    assert {g.name for g in trace(net, X, protect=protect).groups} == {"body.0"}


def test_a_class_protects_all_of_its_modules_and_their_subclasses() -> None:
    net = nn.Sequential(
        nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 8), nn.ReLU(), NotBatchNorm(8, 7), nn.Linear(7, 3)
    )
    sizes = {g.name: g.size for g in trace(net.eval(), X).groups}
    assert sizes == {"0": 9, "2": 8, "4": 7}
    protected = trace(net, X, protect=nn.LayerNorm)
    assert {g.name for g in protected.groups} == {"2", "4"}
    (item,) = [u for u in protected.unprunable if (u.parameter, u.axis) == ("0.weight", 0)]
    assert item.reasons == ("protected: 1",)
    assert trace(net, X, protect=[nn.Linear]).groups == ()


def test_a_star_stands_for_any_characters_dots_among_them() -> None:
    def block() -> nn.Module:
        return nn.ModuleDict({"inner": nn.Linear(6, 6), "norm": nn.LayerNorm(6)})

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([block(), block()])
            self.norm = nn.LayerNorm(6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer["norm"](torch.tanh(layer["inner"](x)))  # type: ignore[index]
            return self.norm(x).sum(1)

    model = Blocks().eval()
    assert {g.name for g in trace(model, X).groups} == {"layers.0.inner", "layers.1.inner"}
    assert {g.name for g in trace(model, X, protect="layers.0.*").groups} == {"layers.1.inner"}
    assert {g.name for g in trace(model, X, protect="layers.[!0].norm").groups} == {"layers.0.inner"}
    assert trace(model, X, protect="*.norm").groups == ()
    # A top-level name has no dot before it; this norm's channels are those of the second layer.
    assert {g.name for g in trace(model, X, protect="?orm").groups} == {"layers.0.inner"}


def test_a_tied_parameter_is_protected_by_any_of_its_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(torch.relu(self.first(x)) + torch.tanh(self.second(x)))
            return out

    assert [g.size for g in trace(Tied().eval(), X).groups] == [8]
    for name in ("first.weight", "second.weight", "second", "*.weight"):
        assert trace(Tied().eval(), X, protect=name).groups == ()


def test_components_may_be_patterns_and_classes() -> None:
    graph = trace(Net().eval(), X, components={"norms": nn.BatchNorm1d, "layers": ["body.[03]", "head"]})
    owner = {p.name: p.component for p in graph.parameters}
    assert {owner["body.1.weight"], owner["body.1.running_mean"]} == {"norms"}
    assert {owner["body.0.weight"], owner["body.3.bias"], owner["head.bias"]} == {"layers"}


# --- nothing stays behind ---


def global_state() -> dict[str, Any]:
    """Everything global that a trace touches or might."""
    hooks = torch.nn.modules.module
    return {
        "hooks": [
            len(getattr(hooks, name))
            for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
        ],
        "dispatch modes": list(_get_current_dispatch_mode_stack()),
        "function modes": list(_get_current_function_mode_stack()),
        "mkldnn": torch._C._get_mkldnn_enabled(),
        "cudnn": torch.backends.cudnn.enabled,
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "shape": torch.Tensor.shape,
        "size": torch.Tensor.size,
    }


def model_state(model: nn.Module) -> Any:
    """Values, modes, flags, hooks and plain attributes of a model."""
    plain = {
        (path, key): copy.copy(value)
        for path, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (int, float, str, tuple, list, type(None)))
    }
    types = {key: type(value) for key, value in plain.items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    flags = [(n, p.requires_grad, p.grad is None, p.dtype) for n, p in model.named_parameters()]
    return plain, types, hooks, flags


class Fragile(Net):
    """Raises after its body ran, in a nested call; counts its calls in a buffer and keeps an average in another."""

    calls: torch.Tensor
    average: torch.Tensor

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("average", torch.zeros(8))
        self.register_buffer("last", None)
        self.error = [] if error is None else [error]
        self.width = 8
        self.body[3].register_forward_hook(self._fail)

    def _fail(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.calls += 1
        self.average = 0.9 * self.average + output.mean(0)
        self.last = output.clone()
        if self.error:
            raise self.error[0]


@pytest.mark.parametrize(
    "error", [None, ValueError("inner trouble"), KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_nothing_stays_behind(error: BaseException | None, training: bool) -> None:
    model = Fragile(error).train(training)
    values, before, outside = copy.deepcopy(model.state_dict()), model_state(model), global_state()
    if error is None:
        trace(model, X)
    else:
        expected = TraceError if isinstance(error, Exception) else type(error)
        with pytest.raises(expected) as caught:
            trace(model, X)
        assert error in (caught.value, caught.value.__cause__)
    assert global_state() == outside
    assert model_state(model) == before
    assert list(model.state_dict()) == list(values)
    assert all(torch.equal(values[name], tensor) for name, tensor in model.state_dict().items())
    model.error.clear()
    model(X).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_users_error_is_shown() -> None:
    with pytest.raises(TraceError, match=r"Fragile was traced: ValueError: inner trouble") as caught:
        trace(Fragile(ValueError("inner trouble")), X)
    assert str(caught.value.__cause__) == "inner trouble"


def test_the_users_settings_are_put_back_as_they_were() -> None:
    """Not to torch's defaults: to what the user had chosen."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode():
            trace(Net().eval(), X)
            assert torch.is_inference_mode_enabled()
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def test_an_error_that_the_model_catches_is_its_own_affair() -> None:
    class Tries(Net):
        def forward(self, x: torch.Tensor) -> Any:
            try:
                self.body(x[:, :3])
            except RuntimeError:
                x = x * 2
            return super().forward(x)

    graph = trace(Tries().eval(), X)
    assert {g.name: g.size for g in graph.groups} == {"body.0": 10, "body.3": 8}


def test_what_a_run_writes_to_the_model_is_put_back() -> None:
    class Remembers(Net):
        def __init__(self) -> None:
            super().__init__()
            self.state: torch.Tensor | None = None
            self.log: list[int] = []
            self.sizes: dict[str, Any] = {"first": 1}

        def forward(self, x: torch.Tensor) -> Any:
            h = torch.relu(self.body(x))
            self.state = h.detach() if self.state is None else self.state + h.detach()
            self.log.append(h.shape[1])
            self.sizes["second"] = h.shape
            self.seen = h.shape[1]
            return self.head(h + 0 * self.state)

    model = Remembers().eval()
    log = model.log
    trace(model, X)
    assert model.state is None
    assert model.log is log == []
    assert model.sizes == {"first": 1}
    assert not hasattr(model, "seen")


def test_a_second_trace_finds_the_same() -> None:
    model = Net().eval()
    assert str(trace(model, X)) == str(trace(model, X))


# --- operators without a rule ---


@torch.library.custom_op("secateur_tests::odd", mutates_args=())
def odd(x: torch.Tensor) -> torch.Tensor:
    """No rule is ever written for it."""
    return torch.linalg.matrix_exp(x)


class Exotic(nn.Module):
    """An operator without a rule in the middle of one of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        self.right = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
        self.odd = Odd()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.odd(self.left(x)) + torch.tanh(self.right(x)).sum(1, keepdim=True))


class Odd(nn.Module):
    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return odd(h[:, :, None] * h[:, None, :]).sum(2)


def test_an_operator_without_a_rule_gives_a_reason() -> None:
    graph = trace(Exotic().eval(), X)
    assert graph.missing_rules == ("secateur_tests.odd",)
    line = Odd.forward.__code__.co_firstlineno + 1
    reason = f"no rule for secateur_tests.odd in odd at test_trace_errors.py:{line}"
    unprunable = {(u.parameter, u.axis): u for u in graph.unprunable}
    for key in (("left.2.weight", 0), ("left.2.bias", 0)):
        assert reason in unprunable[key].reasons
        assert unprunable[key].count == unprunable[key].size == 4
    assert reason in str(graph).replace("\n", " ") or "secateur_tests.odd" in str(graph)


def test_what_an_operator_without_a_rule_does_not_touch_stays_prunable() -> None:
    torch.manual_seed(0)
    model = Exotic().double().eval()

    def run(m: nn.Module) -> Any:
        return m(X.double())

    graph = trace(model, run=run)
    assert {g.name: g.size for g in graph.groups} == {"left.0": 8, "right.0": 10, "right.2": 4}
    for seed in range(3):
        chosen = random_plan(graph, seed)
        expected = outputs(run, masked(model, graph, chosen))
        assert largest_difference(outputs(run, apply(model, chosen)), expected) < 1e-9


@pytest.mark.parametrize(
    "unknown",
    [
        lambda h: torch.fft.rfft(h).abs(),
        lambda h: torch.linalg.inv(h.T @ h + torch.eye(6)),
        lambda h: torch.cross(h[:, :3], h[:, 3:6], dim=1),
        lambda h: torch.linalg.svd(h).U,
    ],
    ids=["fft", "inverse", "cross", "svd"],
)
def test_no_unknown_operator_is_taken_for_element_wise(unknown: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Whatever has no rule leaves what goes into it whole, all of it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return unknown(self.body(x)).sum()

    graph = trace(Model().eval(), X)
    touched = [g for g in graph.groups if any(m.parameter == "body.weight" and m.axis == 0 for m in g.members)]
    if graph.missing_rules:
        assert not touched
        (item,) = [u for u in graph.unprunable if (u.parameter, u.axis) == ("body.weight", 0)]
        assert any(op in reason for op in graph.missing_rules for reason in item.reasons)
    else:
        assert all(g.mixing for g in touched)


def test_every_error_is_a_secateur_error() -> None:
    assert issubclass(TraceError, SecateurError)

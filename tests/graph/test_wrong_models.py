"""Models and inputs that can't be traced, or not as they are: each is named, with what to do, and left as it was."""

from __future__ import annotations

import contextlib
import copy
import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import secateur
from secateur.errors import SecateurWarning, TraceError
from secateur.graph import trace

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)).eval()


class Parts(nn.Module):
    """Two linear layers, without a forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 20)
        self.head = nn.Linear(20, 3)


def halved(model: nn.Module, x: Any = X) -> nn.Module:
    """Pruned by half and proved; the parameters that are left."""
    graph = trace(model, x)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    small = secateur.apply(model, plan)
    secateur.verify(model, small, plan)
    return small


def sizes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in model.parameters()]


HALF = [(10, 6), (10,), (3, 10), (3,)]
"""Shapes of ``net()``'s parameters when half of the hidden channels are gone."""


# --- models in other forms --------------------------------------------------------------------------------------------


def test_a_scripted_part_is_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates scripting
        model = nn.Sequential(nn.Linear(6, 20), torch.jit.script(nn.Linear(20, 3)))
    with pytest.raises(TraceError, match=r"'1' is a scripted module, whose operators can't be seen; pass the original"):
        trace(model, X)


def test_a_wrapper_for_several_devices_is_named() -> None:
    model = nn.DataParallel(net())
    with pytest.raises(
        TraceError, match=r"the model runs on several devices.*; pass the model inside \(model\.module\)"
    ):
        trace(model, X)
    assert sizes(halved(model.module)) == HALF


def test_what_is_compiled_is_named_and_compiled_functions_run_eagerly() -> None:
    """In a process of its own: torch's compiler takes seconds to import, and is not to be loaded in other tests."""
    code = """
import copy, torch, secateur
from torch import nn
x = torch.ones(4, 6)
net = lambda *parts: nn.Sequential(nn.Linear(6, 20), nn.ReLU(), *parts, nn.Linear(20, 3))
def message(model):
    try:
        secateur.trace(model, x)
    except secateur.TraceError as error:
        return str(error)
    raise AssertionError("not refused")
class Doubled(nn.Module):
    def forward(self, x):
        return torch.compile(lambda h: 2 * h)(x)
inner, compiled = net(), torch.compile(net())
inner[2].compile()
for model, words in (
    (compiled, "the model is a compiled module; pass the original (model._orig_mod)"),
    (nn.Sequential(compiled), "'0' is a compiled module; pass the original (0._orig_mod)"),
    (inner, "'2' was compiled by its compile(); pass copy.deepcopy(model), which isn't compiled"),
):
    assert words in message(model), message(model)
for model in (compiled._orig_mod, copy.deepcopy(inner), net(Doubled())):
    assert [g.size for g in secateur.trace(model, x).groups] == [20]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("torch.export._unlift", r"'0' is an exported program, with its sizes fixed; pass the original"),
        ("torch.distributed.fsdp", r"'0' is kept in parts, in several places; pass the model that it was made from"),
    ],
)
def test_what_takes_seconds_to_make_is_told_by_where_its_class_comes_from(place: str, message: str) -> None:
    part = type("Part", (nn.Linear,), {"__module__": place})(6, 3)
    with pytest.raises(TraceError, match=message):
        trace(nn.Sequential(part), X)


def test_a_symbolically_traced_module_is_as_good_as_the_original() -> None:
    small = halved(torch.fx.symbolic_trace(net()))
    assert sizes(small) == HALF
    assert torch.equal(small(X), halved(net())(X))


@pytest.mark.parametrize(
    ("lazy", "named"),
    [(nn.LazyLinear(4), r"'1\.weight' of a LazyLinear"), (nn.LazyBatchNorm1d(affine=False), r"'1\.running_mean' of a")],
    ids=["parameter", "buffer"],
)
def test_a_lazy_module_has_no_shape_yet(lazy: nn.Module, named: str) -> None:
    model = nn.Sequential(nn.Linear(6, 20), lazy)
    with pytest.raises(TraceError, match=rf"{named}.* has no shape yet; run the model once on its inputs"):
        trace(model, X)
    model(X)
    assert sum(item.count for item in trace(model, X).unprunable) > 0


# --- models that change themselves ------------------------------------------------------------------------------------


class Restless(nn.Module):
    """Changes itself in its forward, as it is told."""

    def __init__(self, change: Callable[[Restless], None]) -> None:
        super().__init__()
        self.inner = Parts()
        self.change = change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.inner.body(x))
        self.change(self)
        out: torch.Tensor = self.inner.head(h)
        return out


def add_module(m: Restless) -> None:
    m.inner.extra = nn.Linear(2, 2)


def add_parameter(m: Restless) -> None:
    m.inner.extra = nn.Parameter(torch.zeros(2))


def replace_module(m: Restless) -> None:
    m.inner.head = nn.Linear(20, 3)


def replace_parameter(m: Restless) -> None:
    m.inner.head.weight = nn.Parameter(m.inner.head.weight * 2)


def remove_module(m: Restless) -> None:
    head = m.inner.head
    del m.inner.head
    m.inner.__dict__["head"] = head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_module, r"Restless adds its submodule 'inner\.extra' while it runs"),
        (add_parameter, r"adds its parameter 'inner\.extra'"),
        (replace_module, r"replaces its submodule 'inner\.head'"),
        (replace_parameter, r"replaces its parameter 'inner\.head\.weight'"),
        (remove_module, r"removes its submodule 'inner\.head'"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_model_that_changes_its_structure_is_named_and_left_as_it_was(
    change: Callable[[Restless], None], message: str
) -> None:
    model = Restless(change)
    modules, parameters = list(model.named_modules()), list(model.named_parameters())
    values = copy.deepcopy(model.state_dict())
    with pytest.raises(TraceError, match=rf"{message}.*build all of it in __init__, or run the model once first"):
        trace(model, X)
    assert [(n, id(m)) for n, m in model.named_modules()] == [(n, id(m)) for n, m in modules]
    assert [(n, id(p)) for n, p in model.named_parameters()] == [(n, id(p)) for n, p in parameters]
    assert "head" not in vars(model.inner)
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())


def test_buffers_may_come_and_go() -> None:
    def cache(m: Restless) -> None:
        m.register_buffer("cosines", torch.ones(3))

    model = Restless(cache).eval()
    assert [g.size for g in trace(model, X).groups] == [20]
    assert "cosines" not in model.state_dict()


def test_a_parameter_that_is_put_back_is_no_change() -> None:
    def borrow(m: Restless) -> None:
        weight = m.inner.head.weight
        m.inner.head.weight = nn.Parameter(torch.zeros(3, 20))
        m.inner.head.weight = weight

    assert [g.size for g in trace(Restless(borrow).eval(), X).groups] == [20]


def test_a_parameter_whose_values_change_is_warned_of() -> None:
    def renormalise(m: Restless) -> None:
        m.inner.body.weight.div_(m.inner.body.weight.norm())

    with pytest.warns(SecateurWarning, match=r"changes its parameter 'inner\.body\.weight' in place") as caught:
        trace(Restless(renormalise).eval(), X)
    assert caught[0].filename == __file__


def test_a_model_that_only_its_first_run_completes() -> None:
    class Late(Parts):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not hasattr(self, "middle"):
                self.middle = nn.Linear(20, 20)
            out: torch.Tensor = self.head(torch.relu(self.middle(torch.relu(self.body(x)))))
            return out

    model = Late().eval()
    with pytest.raises(TraceError, match=r"adds its submodule 'middle' .* or run the model once first"):
        trace(model, X)
    model(X)
    assert [g.size for g in trace(model, X).groups] == [20, 20]


# --- modules outside the model ----------------------------------------------------------------------------------------


class Listed(Parts):
    """Keeps one of its layers in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(20, 20)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.relu(self.layers[0](torch.relu(self.body(x)))))
        return out


def test_a_layer_in_a_plain_list_is_warned_of_and_pins_what_meets_it() -> None:
    with pytest.warns(SecateurWarning, match=r"parameters Listed doesn't have \(Linear\).*nn\.ModuleList"):
        graph = trace(Listed().eval(), X)
    assert graph.groups == ()
    (item,) = [u for u in graph.unprunable if (u.parameter, u.axis) == ("body.weight", 0)]
    assert item.count == 20


def test_another_model_in_the_run_is_warned_of() -> None:
    teacher = nn.Linear(3, 2)

    def run(model: nn.Module) -> torch.Tensor:
        out: torch.Tensor = teacher(model(X))
        return out

    with pytest.warns(SecateurWarning, match=r"modules whose parameters Sequential doesn't have \(Linear\)") as caught:
        graph = trace(net(), run=run)
    assert caught[0].filename == __file__
    assert [g.size for g in graph.groups] == [20]


def test_a_module_that_runs_with_the_models_own_tensors_is_none_outside() -> None:
    model, base = net(), net()

    def run(m: nn.Module) -> Any:
        return torch.func.functional_call(base, dict(m.named_parameters()), (X,))

    assert [g.size for g in trace(model, run=run).groups] == [20]


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_a_generator_has_not_run() -> None:
    class Lazy(Parts):
        def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
            yield self.head(torch.relu(self.body(x)))

    with pytest.raises(TraceError, match=r"returns a generator, which runs only when it is read.*list\(model\(x\)\)"):
        trace(Lazy().eval(), X)
    assert [g.size for g in trace(Lazy().eval(), run=lambda m: list(m(X))).groups] == [20]


def test_a_coroutine_has_not_run() -> None:
    class Later(Parts):
        async def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.body(x))
            return out

    with pytest.raises(TraceError, match=r"returns a coroutine, which runs only"):
        trace(Later().eval(), X)


@pytest.mark.parametrize("value", [None, 3.0, "done", [], {"loss": 1.0}], ids=str)
def test_outputs_without_a_tensor_are_warned_of(value: Any) -> None:
    class Silent(Parts):
        def forward(self, x: torch.Tensor) -> Any:
            self.head(torch.relu(self.body(x)))
            return value

    with pytest.warns(SecateurWarning, match=r"returns no tensors.*return what must stay"):
        graph = trace(Silent().eval(), X)
    assert sorted(g.size for g in graph.groups) == [3, 20]


# --- runs that fail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Parts(), nn.ModuleList([nn.Linear(6, 3)])], ids=["module", "list"])
def test_a_model_without_forward(model: nn.Module) -> None:
    with pytest.raises(TraceError, match=r"(Parts|ModuleList) has no forward: give run= instead of example_inputs"):
        trace(model, X)


def test_code_that_asks_for_the_very_class_of_a_size_is_told() -> None:
    class Asking(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            width = x.shape[-1] if type(x.shape[-1]) is int else x.shape[-1][0]  # type: ignore[index]
            return super().forward(x) / width

    model = nn.Sequential(nn.Linear(4, 8), Asking(8, 2))
    with pytest.raises(TraceError, match=r"not subscriptable\. While it is traced, .*: ask isinstance\(n, int\)"):
        trace(model, torch.randn(3, 4))


def test_a_forward_that_is_not_written_yet_is_the_users() -> None:
    class Later(Parts):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("soon")

    with pytest.raises(TraceError, match=r"NotImplementedError: soon\. Check that example_inputs"):
        trace(Later(), X)


def partly_meta() -> nn.Module:
    model = net()
    model[2].to("meta")
    return model


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (net(), X.to("meta"), r"The inputs are on meta and the model on cpu: move one to the other"),
        (net().to("meta"), X, r"The inputs are on cpu and the model on meta: move one to the other"),
        (partly_meta(), X, r"The model is on several devices \(cpu, meta\): move it to one"),
    ],
    ids=["inputs", "model", "parts"],
)
def test_devices_that_do_not_fit_are_named(model: nn.Module, inputs: torch.Tensor, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(model, inputs)


def test_a_model_on_the_meta_device_is_traced() -> None:
    graph = trace(net().to("meta"), X.to("meta"))
    assert [g.size for g in graph.groups] == [20]
    assert graph.cost().parameters == 6 * 20 + 20 + 20 * 3 + 3


def test_fake_inputs_for_a_real_model() -> None:
    with FakeTensorMode():
        fake = torch.randn(4, 6)
    with pytest.raises(TraceError, match=r"The inputs are fake tensors and the model is not: give real ones"):
        trace(net(), fake)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_a_fake_model_is_traced(inside: bool) -> None:
    mode = FakeTensorMode()
    with mode:
        model, fake = net(), torch.randn(4, 6)
    with mode if inside else contextlib.nullcontext():
        graph = trace(model, fake)
    assert [g.size for g in graph.groups] == [20]
    assert graph.cost().macs == 4 * (6 * 20 + 20 * 3)


def test_gradients_inside_the_forward_pass() -> None:
    class Force(Parts):
        """The gradient of an energy."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.detach().requires_grad_()
            energy = self.head(torch.tanh(self.body(x))).sum()
            return torch.autograd.grad(energy, x)[0]

    with pytest.raises(TraceError, match=r"wrap that part in torch\.enable_grad\(\)"):
        trace(Force().eval(), X)


def test_one_row_for_a_batch_norm_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(TraceError, match=r"call model\.eval\(\) first, or give more rows"):
        trace(model, X[:1])
    assert [g.size for g in trace(model.eval(), X[:1]).groups] == [8]


# --- what is right as it is -------------------------------------------------------------------------------------------


def test_a_batch_norm_in_training_mode_keeps_its_statistics() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).train()
    before = copy.deepcopy(model.state_dict())
    small = halved(model)
    assert model.training
    assert small.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [tuple(b.shape) for b in small.buffers()] == [(4,), (4,), ()]


def test_inputs_that_require_a_gradient() -> None:
    x = X.clone().requires_grad_()
    assert sizes(halved(net(), x)) == HALF
    assert x.requires_grad
    assert x.grad is None
    assert x.is_leaf


def test_inputs_that_the_model_writes_to_are_put_back() -> None:
    class Scales(Parts):
        def forward(self, x: torch.Tensor) -> Any:
            return self.head(torch.relu(self.body(x.mul_(2))))

    x, expanded = X.clone(), X[:1].expand(4, 6)
    assert sizes(halved(Scales().eval(), x)) == HALF
    assert torch.equal(x, X)
    with torch.inference_mode():
        trace(Scales().eval(), x)
    assert torch.equal(x, X)
    assert sizes(halved(net(), expanded)) == HALF
    assert sizes(halved(net(), torch.full((2, 6), math.nan))) == HALF


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_a_model_made_under_inference_mode(inside: bool) -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3)).eval()
    with torch.inference_mode(inside):
        small = halved(model)
    assert [tuple(p.shape) for p in small.parameters()] == [(10, 6), (10,), (10,), (10,), (3, 10), (3,)]
    assert [tuple(b.shape) for b in small.buffers()] == [(10,), (10,), ()]


def test_warnings_point_at_the_line_that_called() -> None:
    def silent(model: nn.Module) -> None:
        model(X)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace(net(), run=silent)
        secateur.prune(net(), run=silent, target=0.4, tolerance=0.1)
    of_trace = [w for w in caught if "returns no tensors" in str(w.message)]
    first = test_warnings_point_at_the_line_that_called.__code__.co_firstlineno
    assert [(w.filename, w.lineno - first) for w in of_trace] == [(__file__, 6), (__file__, 7)]

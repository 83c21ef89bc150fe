from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from secateur.errors import PlanError
from secateur.plan import PruningPlan, plan
from secateur.surgery import apply
from secateur.surgery.parameters import kept_copy
from tests.handmade import Chain, keeping, linear_chain, random_scores

WIDTHS = [5, 8, 6, 3]


def chain_plan(coefficient: float = 0.5) -> PruningPlan:
    graph = linear_chain(WIDTHS).graph()
    return plan(graph, random_scores(graph), coefficient)


def masked(model: Chain, made: PruningPlan) -> Chain:
    """The dense model with the removed channels' consumer slices zeroed."""
    with torch.no_grad():
        for consumer in made.consumers:
            removed = torch.tensor(made.removed(consumer.parameter, consumer.axis))
            model.get_parameter(consumer.parameter).index_fill_(consumer.axis, removed, 0)
    return model


@pytest.fixture(params=[False, True], ids=["new", "inplace"])
def inplace(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_the_smaller_model_equals_the_masked_one(inplace: bool) -> None:
    model, made, x = Chain(WIDTHS).double(), chain_plan(), torch.randn(7, 5, dtype=torch.float64)
    expected = Chain(WIDTHS).double()
    expected.load_state_dict(model.state_dict())
    masked(expected, made)
    small = apply(model, made, inplace=inplace)
    assert type(small) is Chain
    assert (small is model) == inplace
    assert {n: tuple(p.shape) for n, p in small.named_parameters()} == {n: made.kept_shape(n) for n in made.shapes}
    torch.testing.assert_close(small(x), expected(x), rtol=0, atol=1e-12)


def test_the_dense_model_stays_as_it_is() -> None:
    model = Chain(WIDTHS)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    small = apply(model, chain_plan())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in small.parameters()}
    with torch.no_grad():
        for p in small.parameters():
            p.zero_()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])


def test_an_empty_plan_gives_an_independent_copy() -> None:
    model = Chain(WIDTHS)
    small = apply(model, chain_plan(0.0))
    for dense, copy in zip(model.parameters(), small.parameters(), strict=True):
        assert torch.equal(dense, copy)
        assert dense.data_ptr() != copy.data_ptr()


def test_it_trains_even_while_an_old_graph_is_alive(inplace: bool) -> None:
    model, x = Chain(WIDTHS), torch.randn(7, 5)
    old = model(x).sum()
    old.backward()
    small = apply(model, chain_plan(), inplace=inplace)
    small(x).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
    assert old.grad_fn is not None


def test_tensors_keep_what_they_are(inplace: bool) -> None:
    class Scaled(nn.Parameter):
        note = ""

    model: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    model.to(memory_format=torch.channels_last)
    model.half()
    model[0].weight.requires_grad_(False)
    model[1].weight = Scaled(model[1].weight.data)
    model[1].weight.note = "kept"
    keep = [1, 4, 6]
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    made = keeping(model, {**{(n, 0): keep for n in names}, ("2.weight", 1): keep})
    small = apply(model, made, inplace=inplace)
    assert {p.dtype for p in small.parameters()} == {torch.float16}
    assert [p.requires_grad for p in small.parameters()] == [False, True, True, True, True, True]
    assert type(small[1].weight) is Scaled
    assert small[1].weight.note == "kept"
    assert small[2].weight.shape == (2, 3, 3, 3)
    assert small[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert small[1].running_mean.shape == (3,)
    assert small[1].num_batches_tracked.dtype == torch.int64


def test_gradients_are_cut_alike(inplace: bool) -> None:
    model, made = Chain(WIDTHS), chain_plan()
    model(torch.randn(7, 5)).sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    small = apply(model, made, inplace=inplace)
    for name, p in small.named_parameters():
        assert p.grad is not None
        assert torch.equal(p.grad, kept_copy(grads[name], made.shrunk_axes(name)))


def test_modes_hooks_and_attributes_stay(inplace: bool) -> None:
    model: Any = Chain(WIDTHS)
    model.c1.eval()
    model.note = {"a": [1, 2]}
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    small = apply(model, chain_plan(), inplace=inplace)
    assert [m.training for m in small.children()] == [True, False, True]
    assert small.note == {"a": [1, 2]}
    assert (small.note is model.note) == inplace
    small(torch.randn(1, 5))
    assert calls == [1]


def test_one_parameter_under_two_names_stays_one(inplace: bool) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    made = keeping(model, {("0.weight", 0): [0, 2], ("0.bias", 0): [0, 2], ("1.bias", 0): [0, 2]})
    small = apply(model, made, inplace=inplace)
    assert small[1].weight is small[0].weight
    assert small[0].weight.shape == (2, 4)


def test_two_parameters_of_one_memory_stay_tied(inplace: bool) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.data)
    made = keeping(model, {("0.weight", 1): [0, 2]})
    assert made.tied == {"1.weight": "0.weight"}
    small = apply(model, made, inplace=inplace)
    assert small[1].weight is not small[0].weight
    assert small[1].weight.data_ptr() == small[0].weight.data_ptr()
    assert small[1].weight.shape == (4, 2)
    assert small[1].in_features == 2


def test_no_dense_tensor_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a tensor was deep-copied")

    model: Any = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    made = keeping(model, {("0.weight", 0): [0, 2]})
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", refuse)
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", refuse)
    apply(model, made)


def test_in_inference_mode_the_result_is_trainable() -> None:
    model = Chain(WIDTHS)
    with torch.inference_mode():
        small = apply(model, chain_plan())
    small(torch.randn(2, 5)).sum().backward()


@given(st.data())
def test_slicing_equals_numpy(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axes = {
        axis: np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
        for axis, n in enumerate(shape)
        if data.draw(st.booleans())
    }
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).mT if len(shape) == 2 else torch.randn(shape)
    axes = {a: i[i < tensor.shape[a]] for a, i in axes.items() if (i < tensor.shape[a]).any()}
    full = [axes.get(a, np.arange(n)) for a, n in enumerate(tensor.shape)]
    assert np.array_equal(kept_copy(tensor, axes).numpy(), tensor.numpy()[np.ix_(*full)])


# Wrong input: one clear error, the model untouched


def snapshot(model: nn.Module) -> list[tuple[int, tuple[int, ...]]]:
    return [(id(p), tuple(p.shape)) for p in model.parameters()]


def test_a_plan_for_another_model(inplace: bool) -> None:
    model = Chain([5, 9, 6, 3])
    before = snapshot(model)
    with pytest.raises(PlanError, match=r"another model than this Chain: c0\.0\.weight has shape \(9, 5\)"):
        apply(model, chain_plan(), inplace=inplace)
    assert snapshot(model) == before


def test_activations_that_a_run_has_left_behind_go_along() -> None:
    model: Any = Chain(WIDTHS)
    model.last = {"outputs": [model(torch.ones(2, WIDTHS[0]))]}
    assert model.last["outputs"][0].grad_fn is not None
    small: Any = apply(model, chain_plan())
    assert small.last["outputs"][0].grad_fn is None
    assert torch.equal(small.last["outputs"][0], model.last["outputs"][0])
    assert small.last["outputs"][0] is not model.last["outputs"][0]


def test_a_model_that_cannot_be_copied() -> None:
    model: Any = Chain(WIDTHS)
    model.lock = threading.Lock()
    with pytest.raises(PlanError, match=r"this Chain can't be copied \(.*lock.*\); apply the plan with inplace=True"):
        apply(model, chain_plan())
    assert apply(model, chain_plan(), inplace=True) is model


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("missing.groups", "'missing.groups', which this Sequential doesn't have"),
        ("0.width", "'0.width', which this Sequential doesn't have"),
        ("0.padding_mode", "'0.padding_mode', which is not a whole number"),
        ("0.stride", "'0.stride', which is not a whole number"),
        ("0.stride[2]", r"'0.stride\[2\]', which this Sequential doesn't have"),
        ("1.width", "'1.width', which is a property that can't be set"),
        ("0.stride[", "expected a path such as 'module.attribute"),
        ("0", "is no attribute of a module"),
    ],
)
def test_attributes_that_cannot_be_set(key: str, message: str, inplace: bool) -> None:
    class Fixed(nn.Identity):
        @property
        def width(self) -> int:
            return 3

    model: Any = nn.Sequential(nn.Conv2d(4, 4, 1), Fixed())
    before = snapshot(model)
    with pytest.raises(PlanError, match=message):
        apply(model, keeping(model, {("0.weight", 0): [0]}, {key: 1}), inplace=inplace)
    assert snapshot(model) == before

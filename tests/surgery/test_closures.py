"""Functions kept on modules that close over the model: in a smaller copy, they are bound to the copy."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import SecateurWarning
from secateur.surgery.closures import Owned
from secateur.surgery.copying import deep_copy


class Tied(nn.Module):
    """A head that is a function over the embedding's table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.wide, self.back = nn.Embedding(11, 8), nn.Linear(8, 24), nn.Linear(24, 8)
        self.head: Callable[[torch.Tensor], torch.Tensor] = lambda h: h @ self.table.weight.t()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.table(tokens)
        return self.head(h + self.back(self.wide(h).relu()))


class Layer(nn.Module):
    """A module to hang functions on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.register_buffer("shift", torch.ones(4))
        self.kept: Any = None


def _in_attribute(model: Layer, read: Callable[[], Any]) -> Callable[[Any], Any]:
    model.kept = read
    return lambda copied: copied.kept


def _in_list(model: Layer, read: Callable[[], Any]) -> Callable[[Any], Any]:
    model.kept = [{"deep": (1, read)}]
    return lambda copied: copied.kept[0]["deep"][1]


def _in_partial(model: Layer, read: Callable[[], Any]) -> Callable[[Any], Any]:
    model.kept = functools.partial(lambda f: f(), read)
    return lambda copied: copied.kept


def _in_object(model: Layer, read: Callable[[], Any]) -> Callable[[Any], Any]:
    model.kept = types.SimpleNamespace(read=read)
    return lambda copied: copied.kept.read


def _in_hook(model: Layer, read: Callable[[], Any]) -> Callable[[Any], Any]:
    model.linear.register_forward_hook(lambda module, given, result: read())
    return lambda copied: functools.partial(copied.linear, torch.ones(3))


@pytest.mark.parametrize("place", [_in_attribute, _in_list, _in_partial, _in_object, _in_hook])
@pytest.mark.parametrize("what", ["model", "module", "parameter", "buffer", "listed", "default", "keyword"])
def test_a_function_over_a_part_of_the_model_reads_the_copys(
    place: Callable[[Layer, Callable[[], Any]], Callable[[Any], Any]], what: str
) -> None:
    model = Layer()
    linear, weight, shift, listed = model.linear, model.linear.weight, model.shift, [{"w": model.linear.weight}]
    functions: dict[str, Callable[[], Any]] = {
        "model": lambda: model.linear.weight,
        "module": lambda: linear.weight,
        "parameter": lambda: weight,
        "buffer": lambda: shift,
        "listed": lambda: listed[0]["w"],
    }

    def default(given: nn.Linear = linear) -> torch.Tensor:
        return given.weight

    def keyword(*, given: nn.Linear = linear) -> torch.Tensor:
        return given.weight

    found = place(model, functions.get(what, default if what == "default" else keyword))
    made = deep_copy(model, {})
    assert found(made)() is (made.shift if what == "buffer" else made.linear.weight)
    assert found(model)() is (model.shift if what == "buffer" else model.linear.weight)


def test_a_smaller_copy_of_a_tied_model_is_tied_itself() -> None:
    torch.manual_seed(0)
    model, tokens = Tied(), torch.tensor([[1, 2, 3]])
    small: Any = secateur.prune(model, tokens, target=secateur.Sparsity(0.4, tolerance=0.1)).model
    assert small.table.weight.shape[1] < 8
    small(tokens).sum().backward()
    assert model.table.weight.grad is None
    assert small.table.weight.grad is not None
    with torch.no_grad():
        small.table.weight.zero_()
    assert not small(tokens).any()


def test_what_closes_over_nothing_of_the_model_stays_as_it_is() -> None:
    model, seen, other = Layer(), [1], nn.Linear(2, 2)

    def hook(module: nn.Module, given: Any, result: Any, keep: Any = other) -> None:
        seen.append(2)

    model.kept = hook
    model.register_forward_hook(hook)
    made = deep_copy(model, {})
    assert made.kept is hook
    assert list(made._forward_hooks.values()) == [hook]


def test_what_is_not_of_the_model_stays_shared_inside_a_bound_function() -> None:
    model, seen = Layer(), []

    def note() -> None:
        seen.append(model.linear)

    model.kept = note
    made = deep_copy(model, {})
    made.kept()
    assert seen == [made.linear]


def test_a_cell_of_two_functions_is_one_cell_of_their_copies() -> None:
    model, count = Layer(), 0

    def step() -> nn.Module:
        nonlocal count
        count += 1
        return model.linear

    def counted() -> int:
        return count

    model.kept = [counted, step]
    made = deep_copy(model, {})
    read, go = made.kept
    assert go() is made.linear
    assert (read(), counted()) == (1, 0)


def test_recursion_ends() -> None:
    model = Layer()

    def odd(depth: int) -> Any:
        return even(depth - 1) if depth else model

    def even(depth: int) -> Any:
        return odd(depth - 1) if depth else model

    def own(depth: int) -> Any:
        return own(depth - 1) if depth else None

    model.kept = [odd, even, own]
    made = deep_copy(model, {})
    assert [f(3) for f in made.kept] == [made, made, None]
    assert made.kept[0] is not odd
    assert made.kept[2] is own


def test_a_bound_function_keeps_all_else() -> None:
    model = Layer()

    def read(x: int, *, y: str = "y") -> tuple[Any, ...]:
        """What it does."""
        return model, x, y, late

    read.note = model.linear  # type: ignore[attr-defined]
    model.kept = read
    made = deep_copy(model, {})
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "__kwdefaults__"):
        assert getattr(made.kept, name) == getattr(read, name)
    assert made.kept.note is made.linear
    with pytest.raises(NameError):
        made.kept(1)  # the cell is still empty
    late = 2
    assert read(1) == (model, 1, "y", late)


def test_a_function_that_remembers_its_results() -> None:
    model = Layer()
    model.kept = functools.lru_cache(maxsize=3)(lambda number: model.linear)
    assert model.kept(1) is model.linear
    made = deep_copy(model, {})
    assert made.kept(1) is made.linear
    assert made.kept.cache_parameters() == model.kept.cache_parameters()


def test_a_forward_that_was_replaced() -> None:
    model: Any = Layer()
    old = model.linear.forward
    model.linear.forward = lambda x: old(x) * model.shift
    model.forward = types.MethodType(lambda self, x: self.linear(x) + model.shift, model)
    made = deep_copy(model, {})
    with torch.no_grad():
        made.shift.zero_()
        assert not made(torch.ones(3)).any()
        assert model(torch.ones(3)).any()
        made.linear.weight.fill_(float("nan"))
        assert model(torch.ones(3)).isfinite().all()


def test_a_module_that_copies_itself() -> None:
    class Own(Layer):
        def __getstate__(self) -> dict[str, Any]:
            return dict(vars(self))

    model: Any = nn.Sequential(Own())
    model[0].kept = lambda: model[0].linear
    model[0].linear.register_forward_hook(lambda module, given, result: model)
    made: Any = deep_copy(model, {})
    assert made[0].kept() is made[0].linear
    assert made[0].linear(torch.ones(3)) is made


def test_an_attribute_of_a_parameter() -> None:
    model: Any = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model[0].weight.owner = lambda: model[2].weight
    model[2].weight.owner = model[0]
    made: Any = secateur.prune(model, torch.ones(1, 4), target=secateur.Sparsity(0.5, tolerance=0.1)).model
    assert made[0].weight.owner() is made[2].weight
    assert made[2].weight.owner is made[0]


def _of_another_object(model: Layer) -> Any:
    trainer = types.SimpleNamespace(model=model)
    return lambda: trainer.model


def _of_a_parent(model: Layer) -> Any:
    parent = nn.Sequential(model)
    return lambda: parent[0]


def _of_a_view(model: Layer) -> Any:
    view = model.linear.weight.detach()
    return lambda: view


@pytest.mark.parametrize("make", [_of_another_object, _of_a_parent, _of_a_view])
def test_what_still_reaches_the_original_is_named(make: Callable[[Layer], Any]) -> None:
    model: Any = nn.Sequential(Layer())
    model[0].kept = [make(model[0])]
    with pytest.warns(SecateurWarning, match=r"'0\.kept'.*original"):
        deep_copy(model, {})


def test_what_is_known_of_a_value_is_not_taken_for_the_next_at_its_address() -> None:
    model = nn.Sequential(Layer())
    owned = Owned(model)
    assert owned.reaches([model[0]])
    assert not any(owned.reaches([number]) for number in range(100))

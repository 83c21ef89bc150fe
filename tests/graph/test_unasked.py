"""Sizes given to functions that take an integer's value without asking: noted, and the functions are put back."""

from __future__ import annotations

import math
import sys
import threading
import warnings
from collections.abc import Callable
from math import log
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import SecateurError
from secateur.graph import DependencyGraph

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
Use = Callable[[torch.Tensor, int], Any]


class Layer(nn.Module):
    """A hidden layer of 12 channels between two others; the test says what is done with them and their number."""

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.inner, self.outer, self.use = nn.Linear(6, 12), nn.Linear(12, 3), use

    def forward(self, x: torch.Tensor) -> Any:
        h = torch.cos(self.inner(x))
        return self.outer(self.use(h, h.shape[1]))


def reasons(graph: DependencyGraph) -> str:
    return "; ".join(r for u in graph.unprunable if u.parameter == "inner.weight" for r in u.reasons)


def global_functions() -> list[Any]:
    """All that has a stand-in while a model is traced."""
    return [
        math.log, math.comb, log, vars(sys.modules[__name__]).get("range"), threading.Thread.start,
        torch._C.ScriptFunction.__call__,
    ]  # fmt: skip


def in_a_thread(work: Callable[[], Any]) -> Any:
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()
    thread.join()
    assert "run" not in vars(thread)
    return done[0]


@pytest.mark.parametrize("fails", [False, True])
def test_functions_are_put_back(fails: bool) -> None:
    before = global_functions()

    def use(h: torch.Tensor, n: int) -> torch.Tensor:
        assert all(now is not then for now, then in zip(global_functions(), before, strict=True))
        if fails:
            raise ValueError("in the middle")
        return h

    if fails:
        with pytest.raises(SecateurError, match="in the middle"):
            secateur.trace(Layer(use), X)
    else:
        assert secateur.trace(Layer(use), X).groups
    assert all(now is then for now, then in zip(global_functions(), before, strict=True))


def test_stand_ins_give_what_functions_give() -> None:
    def use(h: torch.Tensor, n: int) -> torch.Tensor:
        assert list(range(2, n, 5)) == [2, 7]
        assert isinstance(range(3), range)
        assert not isinstance([3], range)
        assert (math.log(n), log(n, 2)) == pytest.approx((2.4849066, 3.5849625))
        assert (math.comb(n, 2), math.gcd(n, 18, 9), math.isqrt(n)) == (66, 3, 3)
        assert (math.log(5), math.log(5, 5)) == pytest.approx((1.6094379, 1.0))
        assert in_a_thread(lambda: n) == 12
        return h

    secateur.trace(Layer(use), X)


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda h, n: sum(h for _ in range(n)), "width goes through range()"),
        (lambda h, n: h * math.isqrt(n), "width goes through isqrt()"),
        (lambda h, n: in_a_thread(lambda: 2 * h), "used in another thread, which isn't followed"),
        (lambda h, n: h.view(len(h), int(n)), "the size itself, without int(), would follow"),
        (lambda h, n: h.view([int(s) for s in (len(h), n)]), "the size itself, without int(), would follow"),
    ],
    ids=["range", "isqrt", "thread", "int", "ints"],
)
def test_what_is_pinned_is_named(use: Use, reason: str) -> None:
    graph = secateur.trace(Layer(use), X)
    assert not graph.groups
    assert reason in reasons(graph)
    assert "test_unasked.py" in reasons(graph)


def test_without_int_the_same_size_follows() -> None:
    (group,) = secateur.trace(Layer(lambda h, n: h.view([s for s in (len(h), n)])), X).groups  # noqa: C416
    assert group.size == 12


def test_sizes_given_to_a_scripted_function() -> None:
    def view(h: torch.Tensor, n: int) -> torch.Tensor:
        return h.view(4, n)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(view)
    graph = secateur.trace(Layer(scripted), X)
    assert not graph.groups
    assert "the scripted function view() is given sizes" in reasons(graph)
    assert secateur.trace(Layer(lambda h, n: scripted(h, -1)), X).groups


def test_a_thread_that_computes_nothing_pins_nothing() -> None:
    (group,) = secateur.trace(Layer(lambda h, n: h * in_a_thread(lambda: 2)), X).groups
    assert group.size == 12


def test_a_thread_that_outlives_the_run_computes_as_before() -> None:
    go, done = threading.Event(), list[torch.Tensor]()

    def waits(h: torch.Tensor) -> None:
        go.wait(10)
        done.append(2 * h)

    threads: list[threading.Thread] = []

    def use(h: torch.Tensor, n: int) -> torch.Tensor:
        threads.append(threading.Thread(target=waits, args=(h,)))
        threads[-1].start()
        return h

    (group,) = secateur.trace(Layer(use), X).groups
    go.set()
    for thread in threads:
        thread.join()
    assert group.size == 12
    assert done[0].shape == (4, 12)

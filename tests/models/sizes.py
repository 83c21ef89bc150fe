"""What people write about sizes in ``forward``: read, computed, compared, given, or written out as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce
from itertools import accumulate
from math import log2
from threading import Thread
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case, Step
from tests.models.habits import ENC, TOKENS, chain, habit, hidden, tensors
from tests.models.vectors import vector


def expects_width(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    assert h.shape[1] == 12
    return m.inner[1](h)


def expects_shape(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    if h.size() != (x.shape[0], 12):
        raise ValueError("unexpected shape")
    return m.inner[1](h)


def compares_shapes(m: Any, x: torch.Tensor) -> Any:
    a, b = hidden(m, x), m.inner[1](x)
    assert a.shape == b.shape
    assert a.shape[1] > 1
    return m.inner[2](a + b)


def pads_to_multiple(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](F.pad(h, (0, (-h.shape[1]) % 4)))


def pads_by_number(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](F.pad(hidden(m, x), (1, 2), value=0.5))


def pads_rows(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](F.pad(hidden(m, x).view(len(x), 3, -1), (0, 0, 0, 1)).flatten(1))


def half_by_float(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h[:, : int(h.shape[1] * 0.5)])


def half_by_shift(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h[:, : h.shape[1] >> 1])


def remainder(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h[:, h.shape[1] % 5 :])


def smallest(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h[:, : min(h.shape[1], 20)])


def product_of_sizes(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).view(len(x), -1, 3)
    return m.inner[1](h.view(h.shape[0], math.prod(h.shape[1:])))


def divided_by_length(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x)) / len(m.inner[0].weight)


def divided_by_elements(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h) / h.numel()


def counted_if_any(m: Any, x: torch.Tensor) -> Any:
    h, none = hidden(m, x), m.inner[0](x[:0])
    heads = h.unflatten(-1, (3, -1))
    return m.inner[1](h if none.numel() == 0 and heads.numel() != 0 else none)


def counted_in_two_dimensions(m: Any, x: torch.Tensor) -> Any:
    weight = F.normalize(m.gain, dim=1)
    h = F.linear(hidden(m, x), weight * math.sqrt(m.gain.numel() / m.gain.shape[0]))
    return m.inner[1](torch.relu(h))


def flattened_by_count(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).unflatten(-1, (3, -1))
    return m.inner[1](h.reshape(-1, h.numel() // h.shape[0]))


def divided_by_root(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h) / math.sqrt(h.shape[1])


def as_many_chunks(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](torch.cat([i * piece for i, piece in enumerate(h.chunk(h.shape[1] // 4, 1))], 1))


def split_where_joined(m: Any, x: torch.Tensor) -> Any:
    a, b = hidden(m, x), torch.sigmoid(m.inner[1](x))
    left, right = torch.cat([a, b], 1).split([a.shape[1], b.shape[1]], dim=1)
    return m.inner[2](left) + m.inner[3](right)


def even_and_odd(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](torch.cat([h[:, ::2] * h[:, 1::2], h], 1))


def last_by_number(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h[:, -4:]) + m.inner[2](h[:, :-4])


def every_channel(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](sum(h[:, i : i + 1] for i in range(h.shape[1])))


def listed_ones(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h * torch.tensor([1.0] * h.shape[1], dtype=h.dtype))


def literal_state(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.zeros(x.shape[0], 12, dtype=x.dtype) + hidden(m, x))


def literal_recurrent_state(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](m.inner[0](x, torch.zeros(1, 2, 8, dtype=x.dtype))[0])


def classes_by_width(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x)
    return m.inner[1](F.one_hot(h.argmax(1), h.shape[1]).to(x.dtype))


def norm_groups_by_width(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x)
    return m.inner[1](F.group_norm(h, h.shape[1] // 4))


def layer_norm_by_shape(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x)
    return m.inner[1](F.layer_norm(h, h.shape[1:], m.gain))


def layer_norm_by_number(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](F.layer_norm(m.inner[0](x), (12,), m.gain))


class Sized(Step):
    """Keeps its width in an attribute as well."""

    def __init__(self, function: Callable[..., torch.Tensor], *modules: nn.Module) -> None:
        super().__init__(function, *modules)
        self.width = 12


class Twice(torch.autograd.Function):
    """An operator of the user's own, given a size."""

    @staticmethod
    def forward(ctx: Any, h: torch.Tensor, n: int) -> torch.Tensor:
        return 2 * h.view(-1, n)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return 2 * gradient, None


def in_another_thread(h: torch.Tensor, n: int) -> torch.Tensor:
    results: list[torch.Tensor] = []
    thread = Thread(target=lambda: results.append(2 * h.detach().view(-1, n)))
    thread.start()
    thread.join()
    return results[0]


def by_cases(h: torch.Tensor, n: int) -> torch.Tensor:
    match n:
        case 12:
            return 2 * h
        case _:
            return h


def tried_in_vain(h: torch.Tensor, n: int) -> torch.Tensor:
    try:
        return h.view(7, n)
    except RuntimeError:
        return h.view(-1, n)


@cache
def remembered(n: int) -> int:
    return 2 * n


Use = Callable[[torch.Tensor, int], Any]


def read(name: str, use: Use, groups: dict[str, int], **expected: Any) -> Case:
    """A case from a function of activations and their width, which is read from their shape."""

    def function(m: Any, x: torch.Tensor) -> Any:
        h = hidden(m, x)
        return m.inner[1](use(h, h.shape[1]))

    return Case(f"{name}-of-shape", lambda: Sized(function, *chain(12, 12)()), vector(4, 6), groups, **expected)


def kept(name: str, use: Use, groups: dict[str, int], **expected: Any) -> Case:
    """The same with the width from an attribute."""

    def function(m: Any, x: torch.Tensor) -> Any:
        return m.inner[1](use(hidden(m, x).view(-1, m.width), m.width))

    return Case(f"{name}-of-attribute", lambda: Sized(function, *chain(12, 12)()), vector(4, 6), groups, **expected)


BY_NUMBER = {ENC: "width used as a number"}
GIVEN = [
    # Functions that take an integer's value without asking it.
    read("loop-after-softmax", lambda h, n: reduce(lambda a, _: 1.01 * a, range(n), h.softmax(1)), {}),
    read("logarithm", lambda h, n: h * math.log(n), {ENC: 12}, mixing=BY_NUMBER),
    read("logarithm-by-name", lambda h, n: h * log2(n), {ENC: 12}, mixing=BY_NUMBER),
    read("whole-logarithm", lambda h, n: h[:, : int(log2(n))].repeat(1, 4), {}),
    read("common-divisor", lambda h, n: h * math.gcd(n, 18), {}),
    read("thread", in_another_thread, {}),
    # What Python makes of an integer.
    read("int", lambda h, n: h.view(-1, int(n)), {}),
    read("ints", lambda h, n: h.view([int(s) for s in (len(h), n)]), {}),
    read("text", lambda h, n: h.view(-1, int(f"{n}")), {}),
    read("rounded", lambda h, n: h.view(-1, math.floor(round(math.trunc(n)))), {ENC: 12}),
    read("accumulated", lambda h, n: h.view(-1, list(accumulate([n, 0]))[-1]), {ENC: 12}),
    read("remembered", lambda h, n: h.view(-1, remembered(n) // 2), {ENC: 12}),
    read("sorted", lambda h, n: h.view(-1, sorted([n, 3])[1]), {ENC: 12}),
    read("beyond-64-bits", lambda h, n: h.view(-1, n * 10**30 // 10**30), {ENC: 12}),
    # Comparisons.
    read("between", lambda h, n: 2 * h if 1 < n < 100 else h, {ENC: 12}),
    read("by-cases", by_cases, {}),
    read("looked-up", lambda h, n: h * {12: 3.0}.get(n, 1.0), {}),
    read("tried-in-vain", tried_in_vain, {ENC: 12}),
    # Differences that are nothing, one, or more than there is.
    kept("cut-at-nothing", lambda h, n: h[:, n - 12 :], {}),
    kept("made-of-one", lambda h, n: h * torch.ones(len(h), n - 11, dtype=h.dtype), {}),
    read("cut-beyond-the-end", lambda h, n: h[:, : 2 * n], {ENC: 12}),
    kept("split-in-one", lambda h, n: h.split(2 * n, 1)[0], {ENC: 12}),
    read("divided-by-difference", lambda h, n: h / math.sqrt(n - 3), {ENC: 12}, mixing=BY_NUMBER),
    # Other ways into torch.
    kept("fixed-kernel", lambda h, n: F.conv1d(h[..., None], h.new_ones(12, 1, 1), groups=n)[..., 0], {}),
    read("autograd-function", Twice.apply, {ENC: 12}),
    read("vmap", lambda h, n: torch.vmap(lambda row: 2 * row.view(n))(h), {ENC: 12}),
    read("difference-to-width", lambda h, n: n - h, {ENC: 12}, mixing=BY_NUMBER),
    read("halves-swapped", lambda h, n: torch.cat([h[:, n // 2 :], h[:, : n // 2]], 1), {ENC: 12}, blocks={ENC: 2}),
    read("last-but-kept", lambda h, n: h * h[:, n - 1 : n], {ENC: 11}),
    kept("loop-after-softmax", lambda h, n: reduce(lambda a, _: 1.01 * a, range(n), h.softmax(1)), {}),
    kept("logarithm", lambda h, n: h * math.log(n), {ENC: 12}, mixing=BY_NUMBER),
    kept("thread", in_another_thread, {}),
    kept("ints", lambda h, n: h.view([int(s) for s in (len(h), n)]), {}),
    kept("remembered", lambda h, n: h.view(-1, remembered(n) // 2), {ENC: 12}),
    kept("between", lambda h, n: 2 * h if 1 < n < 100 else h, {ENC: 12}),
    kept("by-cases", by_cases, {}),
    kept("autograd-function", Twice.apply, {ENC: 12}),
    kept("halves-swapped", lambda h, n: torch.cat([h[:, n // 2 :], h[:, : n // 2]], 1), {ENC: 12}, blocks={ENC: 2}),
]
CASES = [
    *GIVEN,
    habit("expects-width", expects_width, chain(12, 12), {}),
    habit("expects-shape", expects_shape, chain(12, 12), {}),
    habit(
        "compares-shapes", compares_shapes, lambda: [nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 2)], {ENC: 12}
    ),
    habit("pads-to-multiple", pads_to_multiple, chain(12, 12), {ENC: 12}),
    habit("pads-by-number", pads_by_number, chain(12, 15), {ENC: 12}),
    habit("pads-rows", pads_rows, chain(12, 16), {ENC: 4}),
    habit("half-by-float", half_by_float, chain(12, 6), {}),
    habit("half-by-shift", half_by_shift, chain(12, 6), {}),
    habit("remainder", remainder, chain(10, 10), {ENC: 10}),
    habit("smallest", smallest, chain(12, 12), {ENC: 12}),
    habit("product-of-sizes", product_of_sizes, chain(12, 12), {ENC: 4}),
    habit("divided-by-length", divided_by_length, chain(12, 12), {}),
    habit("divided-by-elements", divided_by_elements, chain(12, 12), {ENC: 12}, mixing={ENC: "width used"}),
    habit("divided-by-root", divided_by_root, chain(12, 12), {ENC: 12}, mixing={ENC: "width used"}),
    habit("as-many-chunks", as_many_chunks, chain(12, 12), {}),
    habit(
        "split-where-joined",
        split_where_joined,
        lambda: [nn.Linear(6, 12), nn.Linear(6, 7), nn.Linear(12, 2), nn.Linear(7, 2)],
        {ENC: 12, "inner.1": 7},
    ),
    habit("even-and-odd", even_and_odd, chain(12, 18), {ENC: 6}),
    habit("last-by-number", last_by_number, chain(12, 4, 8), {ENC: 8}),
    habit("every-channel", every_channel, chain(12, 1), {}),
    habit("listed-ones", listed_ones, chain(12, 12), {}),
    habit("literal-state", literal_state, chain(12, 12), {}),
    habit(
        "literal-recurrent-state",
        literal_recurrent_state,
        lambda: [nn.GRU(6, 8, batch_first=True), nn.Linear(8, 2)],
        {},
        shape=TOKENS,
    ),
    habit("classes-by-width", classes_by_width, chain(12, 12), {}),
    habit("norm-groups-by-width", norm_groups_by_width, chain(12, 12), {}),
    habit(
        "layer-norm-by-shape",
        layer_norm_by_shape,
        chain(12, 12),
        {"gain": 12},
        tensors=tensors(gain=(12,)),
        mixing={"gain": "layer_norm"},
    ),
    habit("layer-norm-by-number", layer_norm_by_number, chain(12, 12), {}, tensors=tensors(gain=(12,))),
    habit("counted-if-any", counted_if_any, chain(12, 12), {ENC: 12}, shape=TOKENS, blocks={ENC: 3}),
    habit(
        "counted-in-two-dimensions",
        counted_in_two_dimensions,
        chain(12, 8),
        {ENC: 12, "gain": 8},
        tensors=tensors(gain=(8, 12)),
        mixing={ENC: "width used", "gain": "width used"},
    ),
    habit("flattened-by-count", flattened_by_count, chain(12, 12), {ENC: 12}, blocks={ENC: 3}),
]

"""Modules whose code is drawn at random: sizes by any arithmetic, from shapes and attributes, given to operators.

Pruned equals masked, or an axis stays and a reason says why; and the model is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from secateur.graph import DependencyGraph, trace
from secateur.surgery import apply
from tests.models.case import unsettle
from tests.removal import largest_difference, masked, outputs, random_plan

_IN = 6
_WIDTHS = (4, 6, 8, 12)
_WIDEST = 40


class Program:
    """The body of a ``forward(m, x)``, written line by line; ``h`` has ``width`` channels at each line's end."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.layers: list[tuple[int, int]] = []
        self.attributes: dict[str, int] = {}
        self.lines: list[str] = []
        self.width = _IN
        self.lines.append(self._layer())
        for _ in range(rng.randint(1, 4)):
            self.lines.append(rng.choice(_STEPS)(self))
        self._width_after(3)
        self.lines.append(f"return m.layers[{len(self.layers) - 1}](h)")

    @property
    def text(self) -> str:
        return "\n".join(("def forward(m, x):", *(f"    {line}" for line in self.lines)))

    # --- sizes --------------------------------------------------------------------------------------------------------

    def size(self, n: int, depth: int = 2) -> str:
        """An expression whose value is ``n``."""
        rng = self._rng
        if depth == 0 or rng.random() < 0.4:
            return self._leaf(n)
        a = rng.randint(1, 6)
        ways = [
            lambda: f"({self.size(n + a, depth - 1)} - {self.size(a, depth - 1)})",
            lambda: f"({self.size(n * a, depth - 1)} // {self.size(a, depth - 1)})",
            lambda: f"({self.size(n * a, depth - 1)} // {a})",
            lambda: f"max({self.size(n, depth - 1)}, 1)",
            lambda: f"-(-{self.size(n * a, depth - 1)} // {a})",
            lambda: f"({self.size(n * a, depth - 1)} // {self._leaf(n)} * {self._leaf(n)} // {a})",
            lambda: f"abs({self.size(n, depth - 1)} + {self.size(n * a, depth - 1)} % {self._leaf(a)})",
        ]
        if n > 1:
            part = rng.randint(1, n - 1)
            divisor = rng.choice([d for d in range(1, n + 1) if n % d == 0])
            ways += [
                lambda: f"({self.size(part, depth - 1)} + {self.size(n - part, depth - 1)})",
                lambda: f"sum([{self.size(part, depth - 1)}, {self.size(n - part, depth - 1)}])",
                lambda: f"({self.size(divisor, depth - 1)} * {self.size(n // divisor, depth - 1)})",
                lambda: f"({divisor} * {self.size(n // divisor, depth - 1)})",
                lambda: f"math.prod([{self.size(divisor, depth - 1)}, {self.size(n // divisor, depth - 1)}])",
            ]
        return rng.choice(ways)()

    def _leaf(self, n: int) -> str:
        rng = self._rng
        if n == self.width and rng.random() < 0.5:
            return rng.choice(["h.shape[-1]", "h.size(2)", "h[0].shape[1]"])
        known = [name for name, value in self.attributes.items() if value == n]
        if known and rng.random() < 0.7:
            return rng.choice(known)
        if rng.random() < 0.1:
            return str(n)
        number = len(self.attributes)
        name = rng.choice(_PLACES).format(number)
        self.attributes[name] = n
        return name

    def _divisor(self) -> int:
        return self._rng.choice([d for d in range(1, self.width + 1) if self.width % d == 0])

    # --- steps --------------------------------------------------------------------------------------------------------

    def _width_after(self, width: int) -> None:
        self.layers.append((self.width, width))
        self.width = width

    def _layer(self) -> str:
        self._width_after(self._rng.choice(_WIDTHS))
        source = "h" if len(self.layers) > 1 else "x"
        return f"h = torch.cos(m.layers[{len(self.layers) - 1}]({source}))"

    def _meeting(self) -> str:
        self.layers.append((_IN, self.width))
        return f"h = h * torch.cos(m.layers[{len(self.layers) - 1}](x))"

    def _nothing(self) -> str:
        """Cuts at an end of the axis or beyond it: they take nothing away, and must not later."""
        a = self._rng.randint(1, self.width)
        sizes = {"zero": f"({self.size(a)} - {self.size(a)})", "width": self.size(self.width)}
        over = self.size(self.width + self._rng.randint(1, 9))
        return f"h = {self._rng.choice(_NOTHING).format(over=over, **sizes)}"

    def _changed(self) -> str:
        """Another width, without a layer."""
        before, k = self.width, self._rng.randint(1, 3)
        a = self._rng.randint(1, before - 1)
        b = self._rng.randint(a + 1, before)
        few, first, last = self.size(k), self.size(a), self.size(b)
        way, width = self._rng.choice(
            [
                (f"h.repeat(1, 1, {few})", before * k),
                (f"h.repeat_interleave({few}, -1)", before * k),
                (f"F.pad(h, ({few}, 0), value=1.0)", before + k),
                (f"torch.cat([h, torch.ones(2, 5, {few}, dtype=h.dtype)], -1)", before + k),
                (f"h[..., {first}:{last}]", b - a),
                (f"h.narrow(-1, {first}, {self.size(b - a)})", b - a),
                (f"h[..., ::{few}]", -(-before // k)),
                (f"h.split({last}, -1)[0]", b),
                (f"h.chunk({few}, -1)[0]", -(-before // k)),
                (f"h.tensor_split({few}, -1)[-1]", before // k),
            ]
        )
        if not 2 <= width <= _WIDEST:
            return "pass"
        self.width = width
        return f"h = {way}"

    def _given(self) -> str:
        """The width itself, in any place where the code may give it."""
        return f"h = {self._rng.choice(_GIVEN).format(self.size(self.width), self.size(self.width))}"

    def _asserted(self) -> str:
        shape = self._rng.choice(["h.shape[-1] == {}", "h.shape == (2, 5, {})", "h.size() == x.shape[:2] + ({},)"])
        return f"assert {shape.format(self.size(self.width))}"

    def _blocks(self) -> str:
        count = self._divisor()
        sizes = [self.size(count), self.size(self.width // count)]
        if self._rng.random() < 0.5:
            sizes[self._rng.randint(0, 1)] = "-1"
        split = self._rng.choice(["h.view(2, 5, {}, {})", "h.unflatten(-1, ({}, {}))"]).format(*sizes)
        joined = [".flatten(2)", ".transpose(2, 3).flatten(2)", f".reshape(2, 5, {self.size(self.width)})"]
        return f"h = {split}{self._rng.choice(joined)}"

    def _pieces(self) -> str:
        first = self._rng.randint(1, self.width - 1)
        a, b = self.size(first), self.size(self.width - first)
        ways = [
            f"h.split([{a}, {b}], -1)",
            f"h.split({self.size(self._divisor())}, -1)",
            f"(h.narrow(-1, 0, {a}), h.narrow(-1, {self.size(first)}, {b}))",
            f"(h[..., :{a}], h[..., {self.size(first)}:])",
            f"h.tensor_split(({a},), -1)",
            f"h.chunk({self.size(self._divisor())}, -1)",
            f"(h[..., -({b}):], h[..., :-({b})])",
            f"(h[..., {a} : {a} + {b}], h[..., :{a}])",
        ]
        return f"h = torch.cat(tuple({self._rng.choice(ways)})[::-1], -1)"

    def _compared(self) -> str:
        a, b = (self._rng.randint(1, 2 * self.width) for _ in range(2))
        relation = self._rng.choice(["<", ">=", "==", "!="])
        left = self.size(self._rng.choice([a, self.width]))
        return f"h = h * (2 if {left} {relation} {self.size(b)} else 3)"

    def _number(self) -> str:
        return self._rng.choice(["h = h / math.sqrt({})", "h = h * {}"]).format(self.size(self.width))


_PLACES = ["m.a{}", "m.sizes[{}]", "m.options['k{}']", "m.config.c{}", "m.config.inside['k'][{}]"]
_GIVEN = [
    "h.view(2, 5, {})",
    "h.reshape(*x.shape[:-1], {})",
    "h.reshape(-1, {}).view(2, 5, -1)",
    "h.flatten(1).view(2, 5, {})",
    "h.mT.reshape(2, {}, 5).mT",
    "h.reshape(2, 5 * {}).view(2, 5, {})",
    "F.layer_norm(h, ({},))",
    "h.roll({}, -1)",
    "h * h[..., {} - 1 :]",
    "F.pad(h, (0, {} - h.shape[-1]))",
    "h.index_select(-1, torch.arange({}))",
    "h[..., :{}]",
    "h[..., -{}:]",
    "h @ torch.eye({}, dtype=h.dtype)",
    "h + torch.ones(2, 1, {}, dtype=h.dtype)",
    "h + h.new_full(({},), 0.5)",
    "h + torch.ones(1, dtype=h.dtype).expand(2, 5, {})",
    "h + torch.ones(1, dtype=h.dtype).repeat({})",
    "F.conv1d(h.mT, torch.ones({}, 1, 1, dtype=h.dtype), groups={}).mT",
    "h.contiguous().as_strided((2, 5, {}), (5 * {}, h.shape[-1], 1))",
    "h.transpose(0, 1).reshape(5, 2 * {}).view(5, 2, {}).transpose(0, 1)",
    "torch.cat([h, h], -1).view(2, 5, 2, {})[:, :, 0]",
]
_NOTHING = [
    "h[..., {zero}:]",
    "h[..., {zero}:{over}]",
    "h[..., :{over}]",
    "h[..., -{over}:]",
    "h.narrow(-1, {zero}, {width})",
    "torch.cat(h.tensor_split(({zero},), -1), -1)",
    "torch.cat(h.split({over}, -1), -1)",
    "torch.cat([h, torch.ones(2, 5, {zero}, dtype=h.dtype)], -1)",
    "h * torch.ones(2, 5, {zero} + 1, dtype=h.dtype)",
]
_STEPS: list[Callable[[Program], str]] = [
    Program._layer, Program._meeting, Program._given, Program._given, Program._given, Program._blocks, Program._blocks,
    Program._pieces, Program._pieces, Program._nothing, Program._changed, Program._changed, Program._compared,
    Program._asserted, Program._number,
]  # fmt: skip


class Written(nn.Module):
    """A module with a program for its ``forward``, and the attributes that it reads."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in program.layers)
        values = list(program.attributes.values())
        self.sizes = tuple(values)
        self.options = {f"k{i}": value for i, value in enumerate(values)}
        self.config = SimpleNamespace(**{f"c{i}": value for i, value in enumerate(values)}, inside={"k": list(values)})
        for i, value in enumerate(values):
            setattr(self, f"a{i}", value)
        names: dict[str, Any] = {"math": math, "torch": torch, "F": F}
        exec(program.text, names)
        self.function = names["forward"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.function(self, x)
        return result


def held(model: Written) -> list[Any]:
    """All that the model keeps beside parameters, with its types."""
    kept = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    inside = [*model.sizes, *model.options.values(), *vars(model.config).values(), *kept.values()]
    return [repr(kept), [type(value) for value in inside]]


def unexplained(graph: DependencyGraph) -> set[tuple[str, int]]:
    """Axes of parameters that stay whole without a reason."""
    known = {(m.parameter, m.axis) for group in graph.groups for m in group.members}
    known |= {(u.parameter, u.axis) for u in graph.unprunable if u.reasons and all(u.reasons)}
    return {(p.name, axis) for p in graph.parameters for axis in range(len(p.shape))} - known


@settings(max_examples=400, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False), seed=st.integers(0, 999))
def test_random_sizes(rng: Random, seed: int) -> None:
    program = Program(rng)
    torch.manual_seed(seed)
    model = Written(program).double().eval()
    unsettle(model)
    before, x = held(model), torch.randn(2, 5, _IN, dtype=torch.float64)

    def run(m: nn.Module) -> Any:
        return m(x)

    graph = trace(model, run=run)
    assert not unexplained(graph), program.text
    chosen = random_plan(graph, seed, keep=[g.name for g in graph.groups if g.mixing])
    expected = outputs(run, masked(model, graph, chosen))
    scale = 1 + max(float(t.abs().max()) for t in expected)
    assert largest_difference(outputs(run, apply(model, chosen)), expected) < 1e-9 * scale, program.text
    outputs(run, apply(model, random_plan(graph, seed + 1)))
    assert held(model) == before

"""Dependency graphs written by hand, so that what follows the trace can be tested without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.graph.cost import Affine, CostModel, products
from secateur.graph.graph import AttributeSize, DependencyGraph
from secateur.graph.groups import Component, Consumer, Group, Member, ParameterSpec, Role
from secateur.graph.storage import tied_names
from secateur.plan import PruningPlan, named_tensors


@dataclass(frozen=True)
class GroupSketch:
    """A group as one would write it on paper.

    ``members`` maps (parameter, axis) to the axis indices of each channel, shape (size, multiplicity), or to None where
    channel c is index c.
    """

    name: str
    size: int
    members: Mapping[tuple[str, int], Any]
    consumers: frozenset[tuple[str, int]] = frozenset()
    blocks: int = 1
    units: int | None = None
    tie: int | None = None
    mixing: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphSketch:
    """Shapes of parameters (component first: ``encoder.0.weight``), groups, and the parameters that matmuls use."""

    shapes: Mapping[str, tuple[int, ...]]
    groups: Sequence[GroupSketch]
    matrices: Sequence[str] = ()
    buffers: frozenset[str] = frozenset()
    tied: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[AttributeSize, ...] = ()

    def graph(self) -> DependencyGraph:
        components = list(dict.fromkeys(name.split(".")[0] for name in self.shapes))
        groups = tuple(self._group(i, sketch, components) for i, sketch in enumerate(self.groups))
        owners = [components.index(name.split(".")[0]) for name in self.shapes]
        terms = {name: self._factors(name, groups) for name in self.shapes}
        return DependencyGraph(
            components=tuple(Component(c, tuple(n for n in self.shapes if n.split(".")[0] == c)) for c in components),
            groups=groups,
            flows=(),
            unprunable=(),
            parameters=tuple(
                ParameterSpec(n, tuple(s), n.split(".")[0], n in self.buffers) for n, s in self.shapes.items()
            ),
            tied=dict(self.tied),
            consumers=tuple(Consumer(*c) for sketch in self.groups for c in sorted(sketch.consumers)),
            attributes=self.attributes,
            cost_model=CostModel(
                products(list(terms.values()), owners, len(groups)),
                products(
                    [terms[n] for n in self.matrices],
                    [components.index(n.split(".")[0]) for n in self.matrices],
                    len(groups),
                ),
                tuple(components),
                np.array([g.size for g in groups], dtype=np.int64),
            ),
            entry_point=lambda model: model(torch.ones(1)),
        )

    def _group(self, index: int, sketch: GroupSketch, components: list[str]) -> Group:
        identity = np.arange(sketch.size, dtype=np.int64)[:, None]
        members = tuple(
            Member(
                name,
                axis,
                Role.CONSUMER if (name, axis) in sketch.consumers else Role.PRODUCER,
                name.split(".")[0],
                identity if indices is None else np.asarray(indices, dtype=np.int64),
            )
            for (name, axis), indices in sketch.members.items()
        )
        owners = {m.component for m in members}
        return Group(
            name=sketch.name,
            size=sketch.size,
            members=members,
            components=tuple(c for c in components if c in owners),
            blocks=sketch.blocks,
            block_of=np.arange(sketch.size) // (sketch.size // sketch.blocks),
            tie=index if sketch.tie is None else sketch.tie,
            units=sketch.units or sketch.size // sketch.blocks,
            mixing=sketch.mixing,
        )

    def _factors(self, name: str, groups: Sequence[Group]) -> list[Affine]:
        factors: list[Affine] = []
        for axis, length in enumerate(self.shapes[name]):
            per_group = {
                i: m.multiplicity
                for i, g in enumerate(groups)
                for m in g.members
                if (m.parameter, m.axis) == (name, axis)
            }
            fixed = length - sum(n * groups[i].size for i, n in per_group.items())
            factors.append(Affine(fixed, tuple(per_group.items())))
        return factors


def linear_chain(
    widths: Sequence[int], *, per_component: int = 1, units: Sequence[int | None] | None = None
) -> GraphSketch:
    """Linear layers ``c0.0, c0.1, ..., c1.0, ...`` with these widths; ``per_component`` layers each."""
    layers = [f"c{i // per_component}.{i % per_component}" for i in range(len(widths) - 1)]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, inputs, outputs in zip(layers, widths[:-1], widths[1:], strict=True):
        shapes |= {f"{layer}.weight": (outputs, inputs), f"{layer}.bias": (outputs,)}
    groups = [
        GroupSketch(
            layer,
            width,
            {(f"{layer}.weight", 0): None, (f"{layer}.bias", 0): None, (f"{following}.weight", 1): None},
            consumers=frozenset({(f"{following}.weight", 1)}),
            units=None if units is None else units[i],
        )
        for i, (layer, following, width) in enumerate(zip(layers[:-1], layers[1:], widths[1:-1], strict=True))
    ]
    return GraphSketch(shapes, groups, [f"{layer}.weight" for layer in layers])


class Chain(nn.Module):
    """The model of :func:`linear_chain`, with ReLU between its layers."""

    def __init__(self, widths: Sequence[int], *, per_component: int = 1) -> None:
        super().__init__()
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        for start in range(0, len(layers), per_component):
            self.add_module(f"c{start // per_component}", nn.Sequential(*layers[start : start + per_component]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = [layer for component in self.children() for layer in component.children()]
        for layer in layers[:-1]:
            x = torch.relu(layer(x))
        out: torch.Tensor = layers[-1](x)
        return out


def keeping(
    model: nn.Module, kept: Mapping[tuple[str, int], Any], attributes: Mapping[str, int] | None = None
) -> PruningPlan:
    """A plan for ``model`` that keeps these indices of these axes; its groups are the axes themselves."""
    tensors = named_tensors(model)
    tied = tied_names(tensors)
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if name not in tied}
    indices = {key: np.asarray(values, dtype=np.int64) for key, values in kept.items()}
    return PruningPlan(
        shapes=shapes,
        kept=indices,
        groups={f"{name}[{axis}]": values for (name, axis), values in indices.items()},
        sizes={f"{name}[{axis}]": shapes[name][axis] for name, axis in indices},
        attributes=attributes or {},
        tied=tied,
    )


def random_scores(graph: DependencyGraph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {g.name: rng.random(g.size) for g in graph.groups}

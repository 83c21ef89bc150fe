"""The dependency graph: what a trace knows about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np

from secateur.errors import PlanError
from secateur.graph.conditions import Condition
from secateur.graph.cost import Affine, Cost, CostModel, IntArray
from secateur.graph.describe import describe
from secateur.graph.entry_point import EntryPoint
from secateur.graph.groups import Component, Consumer, Flow, Group, ParameterSpec, Unprunable
from secateur.graph.record import Step


@dataclass(frozen=True)
class AttributeSize:
    """An integer attribute of a module that counts labels: a grouped convolution's ``groups``, say.

    Attributes:
        key: dotted path, such as ``encoder.attention.heads``, ``encoder.config.width`` or ``norm.normalized_shape[0]``.
        count: a number of labels, as a function of the kept counts.
        ratio: the attribute is so many times that number.
    """

    key: str
    count: Affine
    ratio: Fraction = Fraction(1)

    def value(self, kept: IntArray) -> int:
        """The attribute's value for kept counts of shape (groups,)."""
        count = self.count.value(kept)
        return count if self.ratio == 1 else int(count * self.ratio)


@dataclass(frozen=True, eq=False)
class DependencyGraph:
    """Which channels of which parameters must leave together, component by component and across interfaces.

    Built by :func:`secateur.trace`; immutable, and free of tensors but for the entry point's own inputs.

    Attributes:
        components: the model's parts, in model order.
        groups: the prunable channel groups, in trace order.
        flows: data-flow edges between components.
        unprunable: parameter axes with indices that must stay, with the reasons.
        parameters: every parameter and buffer, under the first of its names.
        tied: other names of tied parameters, to the first.
        consumers: parameter axes contracted with activations, in order of their first use.
        attributes: module attributes that follow the kept counts.
        cost_model: parameters and MACs in closed form.
        entry_point: the code that was traced.
        missing_rules: operators without a rule that the trace met.
        whole: places in the code, by module path and line, where an axis is split into blocks that leave whole.
        steps: the operators with labels that ran, by which two runs can be told apart.
        conditions: comparisons of sizes in the code that might come out otherwise in a smaller model.
    """

    components: tuple[Component, ...]
    groups: tuple[Group, ...]
    flows: tuple[Flow, ...]
    unprunable: tuple[Unprunable, ...]
    parameters: tuple[ParameterSpec, ...]
    tied: Mapping[str, str]
    consumers: tuple[Consumer, ...]
    attributes: tuple[AttributeSize, ...]
    cost_model: CostModel
    entry_point: EntryPoint = field(repr=False)
    missing_rules: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    steps: tuple[Step, ...] = field(default=(), repr=False)
    conditions: tuple[Condition, ...] = field(default=(), repr=False)

    @property
    def interfaces(self) -> tuple[Group, ...]:
        """The groups whose parameters belong to several components."""
        return tuple(g for g in self.groups if g.is_interface)

    def __str__(self) -> str:
        """Components, groups, interfaces and what can't be pruned, as plain-text tables."""
        return describe(self)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {g.name: i for i, g in enumerate(self.groups)}

    def group(self, name: str) -> Group:
        """The group called ``name``.

        Raises:
            PlanError: there is none.
        """
        if name not in self._index:
            raise PlanError(f"no channel group is called {name!r}; print(graph) lists the {len(self.groups)} there are")
        return self.groups[self._index[name]]

    def kept_vector(self, kept: Mapping[str, int] | None = None) -> IntArray:
        """Kept channels per group, shape (groups,), from group names to counts; a group not named keeps all."""
        counts = self.cost_model.full.copy()
        for name, count in (kept or {}).items():
            group = self.group(name)
            if not 1 <= count <= group.size:
                raise PlanError(f"group {name!r} has {group.size} channels; {count} can't be kept")
            counts[self._index[name]] = count
        return counts

    def cost(self, kept: Mapping[str, int] | None = None) -> Cost:
        """Parameters and MACs when these channels per group are kept; exact, without surgery.

        Args:
            kept: group name to number of channels kept; a group not named keeps all.

        Raises:
            PlanError: an unknown group, or a count outside 1 ... size.
        """
        return self.cost_model.cost(self.kept_vector(kept))

    @cached_property
    def ties(self) -> tuple[IntArray, ...]:
        """Indices of the groups that must keep equal fractions, one array per tie, in order of first group."""
        tie_of = np.array([g.tie for g in self.groups], dtype=np.int64)
        _, first = np.unique(tie_of, return_index=True)
        return tuple(np.flatnonzero(tie_of == tie_of[i]) for i in np.sort(first))

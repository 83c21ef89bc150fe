"""The dependency graph: labels, operator rules, tracing, groups, components and cost."""

from secateur.graph.cost import ComponentCost, Cost, CostModel
from secateur.graph.graph import AttributeSize, DependencyGraph
from secateur.graph.groups import Component, Consumer, Flow, Group, Member, ParameterSpec, Role, Unprunable
from secateur.graph.trace import trace

__all__ = [
    "AttributeSize",
    "Component",
    "ComponentCost",
    "Consumer",
    "Cost",
    "CostModel",
    "DependencyGraph",
    "Flow",
    "Group",
    "Member",
    "ParameterSpec",
    "Role",
    "Unprunable",
    "trace",
]

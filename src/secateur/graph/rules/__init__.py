"""Operator rules: how labels pass from the inputs of an ATen operator to its outputs; a table per family."""

from secateur.graph.rules import contraction, creation, indexing, pointwise, reduction, shape, spatial
from secateur.graph.rules.base import RULES, Extents, Masked, OpCall, Term, find_rule, rule

__all__ = [
    "RULES",
    "Extents",
    "Masked",
    "OpCall",
    "Term",
    "contraction",
    "creation",
    "find_rule",
    "indexing",
    "pointwise",
    "reduction",
    "rule",
    "shape",
    "spatial",
]

"""Pruning plans: what stays, decided from scores and coefficients, and kept as data."""

from secateur.graph.cost import FloatArray
from secateur.graph.storage import named_tensors
from secateur.plan.make import checked_scores, plan
from secateur.plan.pruning_plan import PruningPlan

__all__ = ["FloatArray", "PruningPlan", "checked_scores", "named_tensors", "plan"]

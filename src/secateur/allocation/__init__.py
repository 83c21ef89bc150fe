"""Allocation: one pruning coefficient per channel group, so that a size target is met."""

from secateur.allocation.allocate import allocate
from secateur.allocation.problem import Problem
from secateur.allocation.result import AllocationResult, Evaluation
from secateur.allocation.sparsity import Sparsity
from secateur.allocation.strategy import Strategy
from secateur.allocation.uniform import Uniform

__all__ = ["AllocationResult", "Evaluation", "Problem", "Sparsity", "Strategy", "Uniform", "allocate"]

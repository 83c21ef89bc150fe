"""Allocation: one pruning coefficient per channel group, so that a size target is met and the objective is best."""

from secateur.allocation.allocate import allocate
from secateur.allocation.black_box import BlackBox
from secateur.allocation.budget import direction_path, meet, nearby_path, uniform_path
from secateur.allocation.gradient_descent import GradientDescent
from secateur.allocation.grid_search import GridSearch
from secateur.allocation.norm_based import NormBased
from secateur.allocation.objective import Constraint, Minimize, Objective
from secateur.allocation.problem import Measurements, Problem
from secateur.allocation.progress import Progress
from secateur.allocation.random import Random
from secateur.allocation.result import AllocationResult, Evaluation
from secateur.allocation.search import Search
from secateur.allocation.sensitivity import Sensitivity
from secateur.allocation.strategy import Strategy
from secateur.allocation.targets import Smallest, Sparsity, Target
from secateur.allocation.uniform import Uniform

__all__ = [
    "AllocationResult",
    "BlackBox",
    "Constraint",
    "Evaluation",
    "GradientDescent",
    "GridSearch",
    "Measurements",
    "Minimize",
    "NormBased",
    "Objective",
    "Problem",
    "Progress",
    "Random",
    "Search",
    "Sensitivity",
    "Smallest",
    "Sparsity",
    "Strategy",
    "Target",
    "Uniform",
    "allocate",
    "direction_path",
    "meet",
    "nearby_path",
    "uniform_path",
]

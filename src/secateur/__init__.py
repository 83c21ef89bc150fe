"""Secateur: structured pruning of multi-component PyTorch networks, with a proof and a closed-form repair.

``prune`` does all of it in one call; ``trace``, ``allocate``, ``plan``, ``apply``, ``verify`` and ``refit`` are its
steps, ``importance`` holds the criteria, and ``distill`` trains the smaller model on for a short time.
"""

from secateur import importance, metrics
from secateur.allocation import (
    AllocationResult,
    BlackBox,
    Constraint,
    GradientDescent,
    GridSearch,
    Minimize,
    NormBased,
    Random,
    Search,
    Sensitivity,
    Smallest,
    Sparsity,
    Uniform,
    allocate,
)
from secateur.api import PruningResult, prune
from secateur.errors import (
    CalibrationError,
    ConstraintError,
    InfeasibleError,
    ObjectiveError,
    PlanError,
    ScoreError,
    SecateurError,
    SecateurWarning,
    StorageError,
    TargetError,
    TraceError,
    VerificationError,
)
from secateur.graph import DependencyGraph, trace
from secateur.io import load, save
from secateur.plan import PruningPlan, plan
from secateur.recovery import distill, refit
from secateur.report.tradeoff import TradeOff
from secateur.surgery import apply
from secateur.tradeoff import tradeoff
from secateur.verify import VerificationReport, verify

__version__ = "0.1.0"

__all__ = [
    "AllocationResult",
    "BlackBox",
    "CalibrationError",
    "Constraint",
    "ConstraintError",
    "DependencyGraph",
    "GradientDescent",
    "GridSearch",
    "InfeasibleError",
    "Minimize",
    "NormBased",
    "ObjectiveError",
    "PlanError",
    "PruningPlan",
    "PruningResult",
    "Random",
    "ScoreError",
    "Search",
    "SecateurError",
    "SecateurWarning",
    "Sensitivity",
    "Smallest",
    "Sparsity",
    "StorageError",
    "TargetError",
    "TraceError",
    "TradeOff",
    "Uniform",
    "VerificationError",
    "VerificationReport",
    "__version__",
    "allocate",
    "apply",
    "distill",
    "importance",
    "load",
    "metrics",
    "plan",
    "prune",
    "refit",
    "save",
    "trace",
    "tradeoff",
    "verify",
]

"""Repairing a smaller model after surgery."""

from secateur.recovery.distill import Distillation, DistillReport, distill
from secateur.recovery.fit import RefittedConsumer
from secateur.recovery.refit import RefitReport, refit, refit_consumers

__all__ = [
    "DistillReport",
    "Distillation",
    "RefitReport",
    "RefittedConsumer",
    "distill",
    "refit",
    "refit_consumers",
]

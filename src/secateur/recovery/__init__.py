"""Repairing a smaller model after surgery."""

from secateur.recovery.distill import DistillReport, distill, distill_outputs
from secateur.recovery.fit import RefittedConsumer
from secateur.recovery.refit import RefitReport, refit, refit_consumers

__all__ = [
    "DistillReport",
    "RefitReport",
    "RefittedConsumer",
    "distill",
    "distill_outputs",
    "refit",
    "refit_consumers",
]

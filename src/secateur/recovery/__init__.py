"""Repairing a smaller model after surgery."""

from secateur.recovery.fit import RefittedConsumer
from secateur.recovery.refit import RefitReport, refit, refit_consumers

__all__ = ["RefitReport", "RefittedConsumer", "refit", "refit_consumers"]

"""Repairing a smaller model after surgery."""

from secateur.recovery.refit import RefitReport, RefittedConsumer, refit, refit_consumers

__all__ = ["RefitReport", "RefittedConsumer", "refit", "refit_consumers"]

"""Surgery: the smaller model, from the model and a plan."""

from secateur.surgery.apply import apply

__all__ = ["apply"]

"""Surgery: the smaller model, from the model and a plan."""

from secateur.graph.own_sizes import updates_sizes
from secateur.surgery.apply import apply

__all__ = ["apply", "updates_sizes"]

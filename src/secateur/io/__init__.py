"""Save a smaller model and its plan as safetensors and JSON, and load them again. No pickle anywhere."""

from secateur.io.load import load
from secateur.io.save import save

__all__ = ["load", "save"]

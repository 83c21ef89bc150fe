"""What happens where the user's code calls torch functions that read sizes or are given some; importing registers."""

from secateur.graph.handlers import creating, cutting, layers, reading, reshaping, strides
from secateur.graph.torch_calls import HANDLERS

__all__ = ["HANDLERS", "creating", "cutting", "layers", "reading", "reshaping", "strides"]

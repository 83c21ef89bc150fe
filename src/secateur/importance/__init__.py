"""Criteria: how important each channel of each channel group is; a higher score stays longer."""

from secateur.importance.activation import Activation
from secateur.importance.criterion import Criterion, Scores
from secateur.importance.gradient import Fisher, Taylor
from secateur.importance.magnitude import Magnitude
from secateur.importance.random_order import Random
from secateur.importance.reconstruction import Reconstruction

__all__ = ["Activation", "Criterion", "Fisher", "Magnitude", "Random", "Reconstruction", "Scores", "Taylor"]

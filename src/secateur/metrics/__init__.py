"""Ready-made objectives and constraints: each is called with a model and returns a number, or an ``Estimate``."""

from secateur.metrics.classes import Accuracy
from secateur.metrics.estimate import Estimate, PlanMetric
from secateur.metrics.examples import Examples
from secateur.metrics.images import Psnr, Ssim
from secateur.metrics.interface import LatentDrift, Similarity
from secateur.metrics.latency import Latency
from secateur.metrics.outputs import DenseError
from secateur.metrics.repeats import Repeats

__all__ = [
    "Accuracy",
    "DenseError",
    "Estimate",
    "Examples",
    "Latency",
    "LatentDrift",
    "PlanMetric",
    "Psnr",
    "Repeats",
    "Similarity",
    "Ssim",
]

"""A short training along a cosine, that leaves no trace when it fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateur.calibration.runs import failures_named
from secateur.errors import CalibrationError

LARGEST_GRADIENT = 1.0
"""Gradients of a larger norm are scaled down to it; Adam makes up for the scale, but not for single outliers."""

OnProgress = Callable[[float, float], object]
"""Told the fraction of the training that is done, and the loss on the step's minibatch."""


class Training:
    """Adam on some weights, and the way back to what they were; their ``grad`` is put back after every run.

    Args:
        weights: those that are trained.
        learning_rate: at the start; it falls to zero on a cosine.
    """

    def __init__(self, weights: Sequence[nn.Parameter], learning_rate: float) -> None:
        self._weights = list(weights)
        self._learning_rate = learning_rate
        self._given = [weight.detach().clone() for weight in weights]

    def run(
        self,
        loss_of: Callable[[int], Tensor],
        minibatches: Iterator[int],
        fractions: Iterator[float],
        on_progress: OnProgress | None,
    ) -> int:
        """One step on the next minibatch for every fraction of the training that is done; the number of steps.

        Raises:
            CalibrationError: the gradient is no longer finite, or can't be found.
        """
        optimizer = torch.optim.Adam(self._weights, lr=self._learning_rate)
        step = 0
        with self._own_gradients():
            for step, (done, minibatch) in enumerate(zip(fractions, minibatches, strict=False), start=1):
                loss = loss_of(minibatch)
                with failures_named("the smaller model's gradient"):
                    gradients = torch.autograd.grad(loss, self._weights, allow_unused=True)
                for weight, gradient in zip(self._weights, self._clipped(gradients, step), strict=True):
                    weight.grad = gradient
                optimizer.param_groups[0]["lr"] = self._learning_rate * 0.5 * (1 + math.cos(math.pi * done))
                optimizer.step()
                if on_progress is not None:
                    on_progress(done, float(loss.detach()))
        return step

    @contextmanager
    def _own_gradients(self) -> Iterator[None]:
        """The weights' ``grad`` is free inside, and as before afterwards."""
        given = [weight.grad for weight in self._weights]
        try:
            yield
        finally:
            for weight, gradient in zip(self._weights, given, strict=True):
                weight.grad = gradient

    def _clipped(self, gradients: Sequence[Tensor | None], step: int) -> list[Tensor | None]:
        present = [gradient for gradient in gradients if gradient is not None]
        norms = [torch.linalg.vector_norm(g, dtype=_precise(g)) for g in present]
        norm = float(torch.linalg.vector_norm(torch.stack([n.to(norms[0]) for n in norms])))
        if not math.isfinite(norm):
            raise CalibrationError(
                f"training diverged in step {step}: the gradient isn't finite; use a smaller learning_rate than"
                f" {self._learning_rate:g}"
            )
        scale = min(1.0, LARGEST_GRADIENT / max(norm, 1e-12))
        return [None if gradient is None else gradient * scale for gradient in gradients]

    def undo(self) -> None:
        """Put the weights back to what they were."""
        with torch.no_grad():
            for weight, given in zip(self._weights, self._given, strict=True):
                weight.copy_(given)

    @contextmanager
    def undone_on_failure(self) -> Iterator[None]:
        """The weights are as before afterwards, unless the block ends well."""
        try:
            yield
        except BaseException:  # an interrupt, too, must not leave a half-trained model
            self.undo()
            raise


def shuffled_passes(count: int, seed: int) -> Iterator[int]:
    """Indices below ``count``, endlessly: all of them in every pass, each pass in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator, device="cpu").tolist()


def fractions_of(steps: int) -> Iterator[float]:
    """How much of a training of so many steps is done, before each."""
    return (step / steps for step in range(steps))


def fractions_until(deadline: float) -> Iterator[float]:
    """How much of a training is done, before every step that begins in time; at least one.

    Args:
        deadline: in the time of ``time.perf_counter``.
    """
    began = time.perf_counter()
    yield 0.0
    while (now := time.perf_counter()) < deadline:
        yield (now - began) / (deadline - began)


def _precise(tensor: Tensor) -> torch.dtype:
    """Float32 at least: squares leave the range of shorter types."""
    return torch.promote_types(tensor.dtype, torch.float32)

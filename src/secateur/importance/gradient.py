"""Taylor and Fisher: what the loss would notice if a channel went, to first order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.calibration import evaluating
from secateur.errors import CalibrationError, ScoreError
from secateur.graph.graph import DependencyGraph
from secateur.importance.criterion import FloatArray, Scores, channel_sums, checked, parameters_of, sums_by_axis

LossFunction = Callable[[nn.Module, Any], Tensor]


class _GradientCriterion(ABC):
    """Mean over batches of a function of each channel's first-order term.

    That term is the sum of w * dL/dw over all parameter elements that leave with the channel.

    The model runs in evaluation mode, so that its buffers stay as they are. Frozen parameters count like the others.
    """

    def __init__(self, loss_fn: LossFunction, batches: Iterable[Any]) -> None:
        """Keep the loss and its data.

        Args:
            loss_fn: takes the model and one batch; returns a scalar tensor that depends on the model's parameters.
            batches: read once per call of the criterion; a one-shot iterator is read into a list here.
        """
        self.loss_fn = loss_fn
        self.batches = list(batches) if isinstance(batches, Iterator) else batches

    def __call__(self, graph: DependencyGraph, model: nn.Module) -> Scores:
        """Scores for every channel group.

        Raises:
            CalibrationError: there are no batches.
            ScoreError: the loss isn't a scalar, doesn't depend on the parameters, or isn't finite.
        """
        totals = {group.name: np.zeros(group.size) for group in graph.groups}
        count = 0
        with evaluating(model), torch.inference_mode(False), _trainable(model) as parameters, torch.enable_grad():
            for batch in self.batches:
                sums = sums_by_axis(graph, self._products(model, parameters, batch))
                for group in graph.groups:
                    totals[group.name] += self._reduce(channel_sums(group, sums))
                count += 1
        if count == 0:
            raise CalibrationError(f"{type(self).__name__} was given no batches")
        means: Scores = {name: total / count for name, total in totals.items()}
        return checked(means, type(self).__name__, "the loss and its gradients")

    def _products(self, model: nn.Module, parameters: dict[str, nn.Parameter], batch: Any) -> dict[str, Tensor]:
        """Each parameter times its gradient, by parameter name; parameters the loss doesn't depend on are left out."""
        loss: object = self.loss_fn(model, batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ScoreError(f"{type(self).__name__}: loss_fn must return a scalar tensor, not {got}")
        if not loss.requires_grad:
            raise ScoreError(f"{type(self).__name__}: the loss doesn't depend on the model's parameters")
        gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
            loss.reshape(()), list(parameters.values()), allow_unused=True
        )
        pairs = zip(parameters.items(), gradients, strict=True)
        return {name: parameter.detach() * grad for (name, parameter), grad in pairs if grad is not None}

    @abstractmethod
    def _reduce(self, terms: FloatArray) -> FloatArray: ...


class Taylor(_GradientCriterion):
    """Mean over batches of the absolute first-order change of the loss.

    Signed inside a channel, because all of it leaves at once; absolute over channels and batches, because near a
    minimum the signed mean is zero for any channel.

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning" (arXiv 1906.10771), section 3.
    """

    def _reduce(self, terms: FloatArray) -> FloatArray:
        return np.abs(terms)


class Fisher(_GradientCriterion):
    """Empirical Fisher information of a mask on the channel: mean over batches of the squared first-order change.

    Source: Theis et al., "Faster gaze prediction with dense networks and Fisher pruning" (arXiv 1801.05787), eq. 10.
    """

    def _reduce(self, terms: FloatArray) -> FloatArray:
        return np.square(terms)


@contextmanager
def _trainable(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """All floating-point parameters with ``requires_grad``, inside only."""
    parameters = parameters_of(model)
    flags = {name: parameter.requires_grad for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(flags[name])

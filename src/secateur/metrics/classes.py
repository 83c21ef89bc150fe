"""How often a classifier is right, as torchmetrics computes it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from torch import Tensor, nn

from secateur.errors import ObjectiveError
from secateur.extras import needs
from secateur.metrics.checks import is_whole
from secateur.metrics.examples import Examples


@dataclass(frozen=True, eq=False)
class Accuracy(Examples):
    """Fraction of examples whose class is among the model's ``top_k`` highest outputs; higher is better.

    The model's outputs have shape (batch, classes) or (batch, classes, ...), the targets, integers in
    [0, classes), shape (batch,) or (batch, ...).

    Attributes:
        top_k: how many of the highest outputs count.
    """

    _: KW_ONLY
    top_k: int = 1

    name: ClassVar[str] = "accuracy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets is None or self.targets.is_floating_point():
            raise ObjectiveError("accuracy needs targets: the classes as a tensor of integers")
        if not is_whole(self.top_k, 1):
            raise ObjectiveError(f"accuracy needs a top_k of at least 1, not {self.top_k!r}")

    def __call__(self, model: nn.Module) -> float:
        """The model's accuracy, in [0, 1].

        Raises:
            ObjectiveError: the outputs have another shape, or fewer classes than ``top_k``.
        """
        with needs("torchmetrics", extra="metrics"):
            from torchmetrics.classification import MulticlassAccuracy
        accuracies: list[MulticlassAccuracy] = []  # one, once the first outputs tell the number of classes

        def update(outputs: Tensor, targets: Tensor) -> None:
            if outputs.ndim < 2:
                raise ObjectiveError(f"accuracy needs outputs of shape (batch, classes), not {tuple(outputs.shape)}")
            classes, least = outputs.shape[1], max(2, self.top_k)
            if classes < least:
                raise ObjectiveError(
                    f"accuracy with top_k={self.top_k} needs outputs of at least {least} classes, not {classes}"
                )
            if not accuracies:
                made = MulticlassAccuracy(classes, top_k=self.top_k, average="micro")
                accuracies.append(made.to(outputs.device))
            accuracies[0].update(outputs, targets)

        self.run(model, update)
        return float(accuracies[0].compute())

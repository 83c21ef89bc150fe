"""How well a model reconstructs images: PSNR and SSIM, as torchmetrics computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from torch import Tensor, nn

from secateur.errors import ObjectiveError
from secateur.extras import needs
from secateur.metrics.checks import is_positive, is_whole
from secateur.metrics.examples import Examples


@dataclass(frozen=True, eq=False)
class Psnr(Examples):
    """Peak signal-to-noise ratio in dB, ``10 log10(peak^2 / MSE)``; higher is better.

    The mean squared error is that of all values of all examples, whatever the batches.

    Attributes:
        peak: the distance between the smallest and the largest possible value, above 0.

    Raises:
        ObjectiveError: as of :class:`Examples`, or the peak isn't above 0.
    """

    _: KW_ONLY
    peak: float = 1.0

    name: ClassVar[str] = "PSNR"
    unit: ClassVar[str] = "dB"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_peak(self.name, self.peak)

    def __call__(self, model: nn.Module) -> float:
        """The model's PSNR in dB."""
        with needs("torchmetrics", extra="metrics"):
            from torchmetrics.image import PeakSignalNoiseRatio
        ratio = PeakSignalNoiseRatio(data_range=self.peak)
        self.run(model, lambda outputs, targets: ratio.to(outputs.device).update(outputs, targets))
        return float(ratio.compute())


@dataclass(frozen=True, eq=False)
class Ssim(Examples):
    """Structural similarity, at most 1, averaged over images; higher is better.

    Gaussian windows of 11 x 11 pixels with a standard deviation of 1.5, as in the original.

    Attributes:
        shape: (height, width) or (channels, height, width) of an image, where examples are flattened images; not
            needed where they have shape (examples, channels, height, width).
        peak: the distance between the smallest and the largest possible value, above 0.

    Raises:
        ObjectiveError: as of :class:`Examples`; the peak isn't above 0, or the shape isn't that of an image.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity" (IEEE TIP 2004).
    """

    _: KW_ONLY
    shape: tuple[int, ...] | None = None
    peak: float = 1.0

    name: ClassVar[str] = "SSIM"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_peak(self.name, self.peak)
        if self.shape is not None and not _is_image_shape(self.shape):
            raise ObjectiveError(
                f"SSIM needs a shape of (height, width) or (channels, height, width), not {self.shape!r}"
            )

    def __call__(self, model: nn.Module) -> float:
        """The model's mean SSIM."""
        with needs("torchmetrics", extra="metrics"):
            from torchmetrics.image import StructuralSimilarityIndexMeasure
        similarity = StructuralSimilarityIndexMeasure(data_range=self.peak)

        def update(outputs: Tensor, targets: Tensor) -> None:
            similarity.to(outputs.device).update(self._images(outputs), self._images(targets))

        self.run(model, update)
        value = similarity.compute()
        return float(value if isinstance(value, Tensor) else value[0])

    def _images(self, values: Tensor) -> Tensor:
        """The values as images, shape (batch, channels, height, width)."""
        if self.shape is not None:
            channels, height, width = (1, *self.shape)[-3:]
            if values[0].numel() != channels * height * width:
                raise ObjectiveError(f"SSIM can't make images of {self.shape} of values of shape {tuple(values.shape)}")
            return values.reshape(-1, channels, height, width)
        if values.ndim != 4:
            raise ObjectiveError(
                f"SSIM needs images of shape (batch, channels, height, width), not {tuple(values.shape)}; "
                "give shape=(height, width) for flattened ones"
            )
        return values


def _check_peak(name: str, peak: object) -> None:
    if not is_positive(peak):
        raise ObjectiveError(f"{name} needs a peak above 0, the range of the values, not {peak!r}")


def _is_image_shape(shape: object) -> bool:
    return isinstance(shape, Sequence) and len(shape) in (2, 3) and all(is_whole(size, 1) for size in shape)

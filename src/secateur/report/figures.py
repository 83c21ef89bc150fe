"""Figures, drawn with matplotlib (in the ``demo`` extra) and without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Images = NDArray[np.floating]


def image_rows(rows: Sequence[tuple[str, Images]], *, title: str = "", dpi: int = 150) -> bytes:
    """A PNG with one labelled row per set of images, the same images below each other.

    Args:
        rows: label and images of shape (count, height, width), values in [0, 1]; the same count in every row.
        title: written above.
        dpi: dots per inch; an image is 0.8 inches wide.

    Raises:
        ValueError: there are no rows, or they differ in the number of images.
    """
    counts = {len(images) for _, images in rows}
    if len(counts) != 1:
        raise ValueError(f"every row needs the same number of images, not {sorted(counts)}")
    (count,) = counts
    label_width, side = 1.9, 0.8
    figure = Figure(figsize=(label_width + side * count, side * len(rows) + 0.5), dpi=dpi)
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()
    axes = figure.subplots(len(rows), count, squeeze=False)
    figure.subplots_adjust(
        left=label_width / width,
        right=1 - 0.1 / width,
        top=1 - 0.4 / height,
        bottom=0.1 / height,
        wspace=0.06,
        hspace=0.06,
    )
    for (label, images), line in zip(rows, axes, strict=True):
        line[0].text(-0.15, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=10)
        for image, axis in zip(images, line, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_axis_off()
    figure.text(0.1 / width, 1 - 0.2 / height, title, ha="left", va="center", fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

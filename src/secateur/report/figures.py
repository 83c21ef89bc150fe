"""Figures, drawn with matplotlib (in the ``demo`` extra) and without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

Images = NDArray[np.floating]

# Told apart also by those who see few colours; line styles and markers tell the rest.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
_STYLES = ("-", "--", ":")
_MARKERS = "os^vDPX*"

_LETTERS = 60
"""As many fit side by side under a chart; more are written aslant."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        label: its name in the legend.
        x: shape (points,), ascending.
        y: shape (points,).
        low: lower ends of ranges around ``y``, shape (points,); no ranges if empty.
        high: their upper ends.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


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
    return as_png(figure)


def curves(
    lines: Sequence[Curve],
    *,
    x: str,
    y: str,
    title: str = "",
    levels: Mapping[str, float] | None = None,
    percent: bool = False,
    dpi: int = 150,
) -> bytes:
    """A PNG with one line per curve, and its ranges as a band.

    Args:
        lines: at least one.
        x: what the horizontal axis is called.
        y: what the vertical axis is called.
        title: written above.
        levels: label to the height of a horizontal line, such as that of the dense model.
        percent: show horizontal values, which are fractions, as percentages.
        dpi: dots per inch.

    Raises:
        ValueError: there are no lines.
    """
    if not lines:
        raise ValueError("a chart needs at least one curve")
    figure, axes = _chart(title, x, y, dpi)
    for position, line in enumerate(lines):
        look = look_of(position)
        axes.plot(line.x, line.y, label=line.label, **look)
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.15, linewidth=0)
    for label, height in (levels or {}).items():
        axes.axhline(height, color="0.3", linewidth=0.8, linestyle="-.", label=label)
    if percent:
        axes.xaxis.set_major_formatter(lambda value, _position: f"{100 * value:g} %")
    _legend(axes)
    return as_png(figure)


def bars(
    places: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    y: str,
    title: str = "",
    logarithmic: bool = False,
    dpi: int = 150,
) -> bytes:
    """A PNG with bars side by side: at each place one for every series.

    Args:
        places: what stands below each set of bars.
        series: label to heights, shape (places,); at least one.
        y: what the vertical axis is called.
        title: written above.
        logarithmic: whether the vertical axis is.
        dpi: dots per inch.

    Raises:
        ValueError: there are no series, or they differ in length from the places.
    """
    if not series or any(len(heights) != len(places) for heights in series.values()):
        raise ValueError(f"every series needs {len(places)} heights, and there must be one")
    figure, axes = _chart(title, "", y, dpi)
    width, middles = 0.84 / len(series), np.arange(len(places))
    for position, (label, heights) in enumerate(series.items()):
        offset = (position - (len(series) - 1) / 2) * width
        hatch = "" if position < len(_COLOURS) else "///"
        axes.bar(middles + offset, heights, width, color=_COLOURS[position % len(_COLOURS)], label=label, hatch=hatch)
    axes.set_xticks(middles, places)
    if sum(map(len, places)) > _LETTERS:
        axes.tick_params("x", labelrotation=35)
        for place in axes.get_xticklabels():
            place.set_horizontalalignment("right")
    if logarithmic:
        axes.set_yscale("log")
    _legend(axes)
    return as_png(figure)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    value: str,
    title: str = "",
    dpi: int = 150,
) -> bytes:
    """A PNG with a table of fractions, each a coloured field with its number.

    Args:
        rows: their names.
        columns: their names.
        values: in [0, 1], shape (rows, columns).
        value: what the numbers are called.
        title: written above.
        dpi: dots per inch.

    Raises:
        ValueError: there are no values, or their shape is another.
    """
    table = np.array(values, dtype=np.float64)
    if table.size == 0 or table.shape != (len(rows), len(columns)):
        raise ValueError(f"a heat map of {len(rows)} rows and {len(columns)} columns needs as many values")
    figure = Figure(figsize=(0.62 * len(columns) + 3.4, 0.36 * len(rows) + 1.6), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    picture = axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), number in np.ndenumerate(table):
        colour = "white" if number > 0.6 else "black"
        axes.text(column, row, f"{number:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(np.arange(len(columns)), columns, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(np.arange(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    figure.colorbar(picture, label=value)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return as_png(figure)


def _chart(title: str, x: str, y: str, dpi: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)


def look_of(position: int) -> dict[str, Any]:
    """Colour, marker and style of the line at this position of a legend, as matplotlib's ``plot`` takes them."""
    again, place = divmod(position, len(_COLOURS))
    return {
        "color": _COLOURS[place],
        "marker": _MARKERS[(place + 3 * again) % len(_MARKERS)],
        "linestyle": _STYLES[again % len(_STYLES)],
        "markersize": 4,
        "linewidth": 1.4,
    }


def as_png(figure: Figure) -> bytes:
    """The figure's file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()

"""Charts side by side with one legend, and charts of single measurements; drawn with matplotlib, without a display."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from secateur.report.figures import Curve, as_png, look_of

FloatArray = NDArray[np.float64]

XScale = Literal["number", "percent", "removed"]

_WIDTH, _HEIGHT, _LEGEND = 3.6, 3.6, 2.3
"""Of a panel and of the legend, in inches."""

_TICK = 0.1
"""The least distance of two ticks: a fraction of the axis."""

_APART = 0.006
"""How far lines are moved apart, so that their error bars can be told apart: a fraction of the axis per line."""


@dataclass(frozen=True)
class Panel:
    """One chart among several.

    Attributes:
        title: written above it.
        lines: ``low`` and ``high`` are drawn as error bars.
        references: what they are compared with, such as the dense model's; drawn in grey.
    """

    title: str
    lines: Sequence[Curve]
    references: Sequence[Curve] = ()


@dataclass(frozen=True)
class Level:
    """A horizontal line, such as that of the dense model.

    Attributes:
        height: where.
        low: lower end of a band around it; no band where both ends are equal.
        high: its upper end.
    """

    height: float
    low: float = 0.0
    high: float = 0.0


def panels(
    parts: Sequence[Panel],
    *,
    x: str,
    y: str,
    title: str = "",
    levels: Mapping[str, Level] | None = None,
    marks: Mapping[str, float] | None = None,
    x_scale: XScale = "number",
    bottom: float | None = None,
    logarithmic: bool = False,
    order: Sequence[str] = (),
    dpi: int = 150,
) -> bytes:
    """A PNG with charts side by side, on one vertical scale. Lines of one name look alike in all of them.

    Args:
        parts: at least one, with at least one line among them.
        x: what the horizontal axes are called.
        y: what the vertical axis is called.
        title: written above all.
        levels: label to a horizontal line in every panel.
        marks: label to where a vertical line stands in every panel.
        x_scale: how horizontal values are drawn: as they are; fractions as percentages, ``"percent"``; or
            ``"removed"``, fractions in [0, 1) on the logarithmic scale of what is left, with a tick at each, so that
            90 % and 95 % are as far apart as 80 % and 90 %.
        bottom: where the vertical axis begins; below what is drawn if not given.
        logarithmic: whether the vertical axis is.
        order: names of lines whose looks are chosen in this order, the same in every figure; then come all others.
        dpi: dots per inch.

    Raises:
        ValueError: there are no panels, or no lines in them.
    """
    drawn = [line.label for part in parts for line in part.lines]
    names = list(dict.fromkeys([*order, *drawn]))
    if not drawn:
        raise ValueError("panels need at least one curve")
    figure = Figure(figsize=(_WIDTH * len(parts) + _LEGEND, _HEIGHT + 0.3), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(parts), sharey=True, sharex=True, squeeze=False)[0]
    scale = _LEFT if x_scale == "removed" else _PLAIN
    places = sorted({value for part in parts for line in part.lines for value in line.x})
    for axes, part in zip(every, parts, strict=True):
        _draw(axes, part, names, scale, _span(scale.to_axis(np.array(places))) * _APART)
        _add_rules(axes, levels or {}, marks or {})
        if x_scale == "removed":
            _as_removed(axes, places)
        if x_scale == "percent":
            axes.xaxis.set_major_formatter(lambda value, _position: f"{100 * value:g} %")
        if logarithmic:
            axes.set_yscale("log")
        axes.set_xlabel(x)
    every[0].set_ylabel(y)
    every[0].set_ylim(bottom=bottom)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _one_legend(figure, every)
    return as_png(figure)


def strips(
    places: Sequence[str],
    series: Mapping[str, Sequence[Sequence[float]]],
    *,
    y: str,
    title: str = "",
    levels: Mapping[str, Level] | None = None,
    bottom: float | None = None,
    order: Sequence[str] = (),
    dpi: int = 150,
) -> bytes:
    """A PNG with every single measurement as a dot, side by side at each place, and a bar at their mean.

    Args:
        places: what stands below each set of strips.
        series: label to the measurements at each place, shape (places, any number); at least one.
        y: what the vertical axis is called.
        title: written above.
        levels: label to a horizontal line.
        bottom: as in :func:`panels`.
        order: as in :func:`panels`.
        dpi: dots per inch.

    Raises:
        ValueError: there are no series, or they differ in length from the places.
    """
    if not series or any(len(at) != len(places) for at in series.values()):
        raise ValueError(f"every series needs measurements at {len(places)} places, and there must be one")
    width = max(_WIDTH, 0.55 * len(series) * len(places)) + _LEGEND
    figure = Figure(figsize=(min(width, 14), _HEIGHT + 0.9), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    step = 0.84 / len(series)
    names = list(dict.fromkeys([*order, *series]))
    for position, (label, at) in enumerate(series.items()):
        middles = np.arange(len(places), dtype=np.float64) + (position - (len(series) - 1) / 2) * step
        _add_strip(axes, label, names.index(label), middles, at, step)
    axes.set_xticks(np.arange(len(places)), places)
    axes.set_xlim(-0.5, len(places) - 0.5)
    for boundary in range(1, len(places)):
        axes.axvline(boundary - 0.5, color="0.85", linewidth=0.8)
    _finish(axes)
    _add_rules(axes, levels or {}, {})
    axes.set_ylabel(y)
    axes.set_ylim(bottom=bottom)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    _one_legend(figure, [axes])
    return as_png(figure)


class _Scale(NamedTuple):
    """How far along the axis a value lies, and which value lies there."""

    to_axis: Callable[[FloatArray], FloatArray]
    to_value: Callable[[FloatArray], FloatArray]


_PLAIN = _Scale(lambda value: value, lambda place: place)
_LEFT = _Scale(
    lambda value: -np.log1p(-np.minimum(value, 1 - 1e-9)),  # matplotlib asks for what lies beyond the axis, too
    lambda place: -np.expm1(-place),
)


def _draw(axes: Axes, part: Panel, names: Sequence[str], scale: _Scale, apart: float) -> None:
    axes.set_title(part.title, loc="left", fontsize=10)
    _finish(axes)
    for line in part.lines:
        position = names.index(line.label)
        beside = (position - (len(names) - 1) / 2) * apart * bool(line.low)
        x = scale.to_value(scale.to_axis(np.asarray(line.x, dtype=np.float64)) + beside)
        look = look_of(position)
        axes.plot(x, line.y, label=line.label, **look)
        if line.low:
            reach = np.abs(np.array([line.low, line.high]) - np.asarray(line.y))
            axes.errorbar(x, line.y, reach, fmt="none", ecolor=look["color"], elinewidth=0.9, capsize=2, alpha=0.8)
    for style, line in zip(cycle(("--", ":")), part.references):
        axes.plot(line.x, line.y, linestyle=style, color="0.4", linewidth=1.6, label=line.label)


def _as_removed(axes: Axes, places: Sequence[float]) -> None:
    """The scale of what is left, with ticks at these fractions that don't overlap."""
    axes.set_xscale("function", functions=_LEFT)
    along = _LEFT.to_axis(np.array(places))
    ticks, last = [], -np.inf
    for value, place in zip(places, along, strict=True):
        if place - last >= _TICK * _span(along):
            ticks.append(value)
            last = place
    axes.set_xticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks], fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())


def _add_strip(
    axes: Axes, label: str, position: int, middles: FloatArray, at: Sequence[Sequence[float]], step: float
) -> None:
    look = look_of(position)
    for place, (middle, values) in enumerate(zip(middles, at, strict=True)):
        spread = np.linspace(-0.28, 0.28, len(values)) * step if len(values) > 1 else np.zeros(len(values))
        name = label if place == 0 else None
        axes.plot(middle + spread, values, look["marker"], color=look["color"], markersize=3.5, alpha=0.65, label=name)
        if len(values):
            axes.hlines(np.mean(values), middle - 0.4 * step, middle + 0.4 * step, color=look["color"], linewidth=2.2)


def _add_rules(axes: Axes, levels: Mapping[str, Level], marks: Mapping[str, float]) -> None:
    for style, (label, level) in zip(cycle(("-.", ":", "--")), levels.items()):
        axes.axhline(level.height, color="0.3", linewidth=1.1, linestyle=style, label=label, zorder=1)
        if level.low < level.high:
            axes.axhspan(level.low, level.high, color="0.3", alpha=0.12, linewidth=0, zorder=0)
    for label, place in marks.items():
        axes.axvline(place, color="0.5", linewidth=0.9, linestyle=(0, (1, 2)), label=label, zorder=1)


def _finish(axes: Axes) -> None:
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _one_legend(figure: Figure, every: Sequence[Axes]) -> None:
    found: dict[str, Artist] = {}
    for axes in every:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(list(found.values()), list(found), loc="outside right center", fontsize=8, frameon=False)


def _span(along: FloatArray) -> float:
    return float(along.max() - along.min()) or 1.0

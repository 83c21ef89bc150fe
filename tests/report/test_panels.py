from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import image as image_reader
from numpy.typing import NDArray

from secateur.report.figures import Curve
from secateur.report.panels import Level, Panel, panels, strips

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

BLUE, ORANGE = (0.0, 0.447, 0.698), (0.835, 0.369, 0.0)


def pixels(png: bytes) -> Pixels:
    return np.asarray(image_reader.imread(io.BytesIO(png), format="png"))


def places(picture: Pixels, colour: tuple[float, float, float]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels of a colour."""
    rows, columns = np.nonzero((np.abs(picture[..., :3] - np.array(colour)) < 0.08).all(axis=-1))
    return rows, columns


def line(label: str, *values: float, half: float = 0.0) -> Curve:
    x = [0.5, 0.75, 0.875][: len(values)]
    ranges = ([v - half for v in values], [v + half for v in values]) if half else ((), ())
    return Curve(label, x, list(values), *ranges)


def test_one_name_has_one_colour_in_every_panel() -> None:
    parts = [Panel("first", [line("a", 1, 2), line("b", 2, 1)]), Panel("second", [line("b", 2, 1)])]
    picture = pixels(panels(parts, x="x", y="y", title="Two panels"))
    first, second = picture[:, : int(0.49 * picture.shape[1])], picture[:, int(0.5 * picture.shape[1]) : -100]
    assert [len(places(panel, BLUE)[0]) > 100 for panel in (first, second)] == [True, False]
    assert [len(places(panel, ORANGE)[0]) > 100 for panel in (first, second)] == [True, True]


def test_the_scale_of_what_is_left_puts_halvings_at_equal_distances() -> None:
    """At 50 %, 75 % and 87.5 % removed: a line of equal steps is straight, so that its middle lies half way."""
    picture = pixels(panels([Panel("", [line("a", 0, 1, 2)])], x="removed", y="y", x_scale="removed"))
    rows, columns = places(picture[:, : int(picture.shape[1] * 0.6)], BLUE)
    left, right = rows[columns == columns.min()].mean(), rows[columns == columns.max()].mean()
    middle = rows[np.abs(columns - (columns.min() + columns.max()) / 2) < 1].mean()
    assert middle == pytest.approx((left + right) / 2, abs=3)


def test_intervals_are_as_long_as_their_numbers() -> None:
    short, long = (
        places(pixels(panels([Panel("", [line("a", 0, 0, half=half), line("b", -4, 4)])], x="x", y="y")), BLUE)[0]
        for half in (1.0, 3.0)
    )
    assert np.ptp(long) > 2.5 * np.ptp(short)


def test_a_level_stands_at_its_height_with_its_band() -> None:
    part = Panel("", [line("a", 0, 10)])
    bare = panels([part], x="x", y="y")
    with_level = panels([part], x="x", y="y", levels={"dense": Level(5, 4, 6)})
    grey = np.abs(pixels(with_level)[..., 0] - (1 - 0.12 * 0.7)) < 0.01
    rows = np.nonzero(grey.sum(axis=1) > 200)[0]
    height = pixels(bare).shape[0]
    assert 0.4 * height < rows.mean() < 0.6 * height
    assert np.ptp(rows) > 0.05 * height


def test_every_measurement_is_a_dot_and_their_mean_a_bar() -> None:
    picture = pixels(strips(["here"], {"a": [[0.0, 0.0, 0.0, 100.0]]}, y="return"))
    plot = picture[:, : int(picture.shape[1] * 0.7), :3]
    rows, _ = np.nonzero(plot[..., 2] - plot[..., 0] > 0.3)
    bar = places(plot, BLUE)[0].mean()
    assert (rows.max() - bar) / np.ptp(rows) == pytest.approx(0.25, abs=0.02)
    assert [len(np.unique(rows[part])) > 5 for part in (rows < bar - 50, rows > bar + 50)] == [True, True]


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="panels need at least one curve"):
        panels([Panel("empty", [])], x="", y="")
    with pytest.raises(ValueError, match="every series needs measurements at 2 places"):
        strips(["a", "b"], {"one": [[1.0]]}, y="")

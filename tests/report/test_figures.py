from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import image as image_reader

from secateur.report.figures import Curve, bars, curves, heat_map, image_rows


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(image_reader.imread(io.BytesIO(png), format="png"))


def test_every_image_is_drawn_in_its_place() -> None:
    white, black = np.ones((3, 4, 4)), np.zeros((3, 4, 4))
    picture = pixels(image_rows([("white", white), ("black", black)], title="Two rows"))
    height, width, _ = picture.shape
    right = picture[:, int(width * 0.62) : int(width * 0.95), :3].mean(axis=(1, 2))
    assert right[int(height * 0.35)] > 0.99
    assert right[int(height * 0.8)] < 0.1


def test_the_same_images_give_the_same_bytes() -> None:
    rows = [("noise", np.random.default_rng(0).random((2, 8, 8)))]
    assert image_rows(rows) == image_rows(rows)


def test_rows_of_different_length_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"every row needs the same number of images, not \[1, 2\]"):
        image_rows([("one", np.zeros((1, 4, 4))), ("two", np.zeros((2, 4, 4)))])


def is_blue(
    picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool]]:
    red, green, blue = (picture[..., channel] for channel in range(3))
    return (np.abs(red) < 0.1) & (np.abs(green - 0.447) < 0.1) & (np.abs(blue - 0.698) < 0.1)


def test_a_falling_curve_falls() -> None:
    line = Curve("falling", [0.2, 0.5, 0.8], [3, 2, 1], low=[2.9, 1.9, 0.9], high=[3.1, 2.1, 1.1])
    picture = pixels(curves([line], x="removed", y="dB", title="One line", levels={"dense": 3.5}, percent=True))
    rows, columns = np.nonzero(is_blue(picture)[:, : int(picture.shape[1] * 0.75)])
    assert rows[columns.argmin()] < rows[columns.argmax()] - 100


def test_bars_are_as_high_as_their_numbers() -> None:
    picture = pixels(bars(["a", "b"], {"one": [1.0, 3.0]}, y="seconds"))
    width = picture.shape[1] * 0.85
    blue = is_blue(picture)
    low, high = (blue[:, int(a * width) : int(b * width)].any(axis=1).sum() for a, b in ((0.1, 0.45), (0.6, 0.95)))
    assert high / low == pytest.approx(3, rel=0.05)


def test_long_names_under_bars_are_written_aslant() -> None:
    names = [f"a rather long name of place {i}" for i in range(5)]
    assert bars(names, {"one": range(5)}, y="", logarithmic=False) != bars(list("abcde"), {"one": range(5)}, y="")


def test_a_heat_map_is_darker_where_its_numbers_are_larger() -> None:
    picture = pixels(heat_map(["low", "high"], ["a", "b"], [[0.0, 0.1], [0.9, 1.0]], value="coefficient"))
    blue = picture[..., 2] - picture[..., 0]
    rows = np.nonzero((picture[:, :, 0] < 0.1) & (blue > 0.3))[0]
    assert rows.min() > 0.35 * picture.shape[0] or (rows > 0.35 * picture.shape[0]).mean() > 0.8


def test_charts_without_lines_or_with_bars_missing_are_an_error() -> None:
    with pytest.raises(ValueError, match="a chart needs at least one curve"):
        curves([], x="", y="")
    with pytest.raises(ValueError, match="every series needs 2 heights"):
        bars(["a", "b"], {"one": [1.0]}, y="")
    with pytest.raises(ValueError, match="a heat map of 1 rows and 2 columns"):
        heat_map(["a"], ["b", "c"], [[1.0]], value="")

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import image as image_reader

from secateur.report.figures import image_rows


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

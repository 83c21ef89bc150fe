"""Image data for the autoencoder: scikit-learn's digits, and MNIST from its four original files."""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.errors import StorageError
from secateur.report.files import write_whole

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
DATA_VARIABLE = "SECATEUR_DATA"


@dataclass(frozen=True)
class MnistFile:
    """One of the original files: its name and the published MD5 checksum of the gzip file."""

    name: str
    md5: str


TRAIN_IMAGES = MnistFile("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873")
TEST_IMAGES = MnistFile("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3")
MNIST_FILES = (
    TRAIN_IMAGES,
    MnistFile("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
    TEST_IMAGES,
    MnistFile("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
)


@dataclass(frozen=True, eq=False)
class Images:
    """Flattened grey images with values in [0, 1].

    Attributes:
        name: what the data set is called.
        train: float32, shape (images, height * width).
        test: float32, shape (images, height * width).
        shape: height and width.
    """

    name: str
    train: torch.Tensor
    test: torch.Tensor
    shape: tuple[int, int]

    @property
    def pixels(self) -> int:
        """Pixels per image."""
        return self.shape[0] * self.shape[1]


def load_digits(*, seed: int = 0) -> Images:
    """scikit-learn's 1,797 digits of 8x8 pixels; a fifth of them, drawn by ``seed``, is the test set."""
    from sklearn import datasets  # ships the data; in the `demo` extra

    pixels = torch.from_numpy(datasets.load_digits().data).float() / 16
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    held_out = len(pixels) // 5
    return Images("digits", pixels[order[held_out:]], pixels[order[:held_out]], (8, 8))


def load_mnist(directory: Path) -> Images:
    """MNIST's 60,000 training and 10,000 test images, from the original gzip files in ``directory``.

    Raises:
        StorageError: a file is missing, or isn't the published one.
    """
    train, test = (_pixels(directory / file.name, file.md5) for file in (TRAIN_IMAGES, TEST_IMAGES))
    height, width = train.shape[1:]
    return Images("mnist", _flat(train), _flat(test), (height, width))


def data_directory(given: Path | None) -> Path:
    """The folder with MNIST: the one given, or the one that the environment variable SECATEUR_DATA names.

    Raises:
        StorageError: neither is there.
    """
    if given is not None:
        return given
    if DATA_VARIABLE not in os.environ:
        raise StorageError(
            f"where is MNIST? name the folder with its four original .gz files by --data or by {DATA_VARIABLE}; "
            "--download fetches them into it"
        )
    return Path(os.environ[DATA_VARIABLE])


def download_mnist(
    directory: Path, *, url: str = MNIST_URL, on_file: Callable[[str], object] = lambda _name: None
) -> None:
    """Fetch MNIST's four files into ``directory``; those already there and right are kept.

    Args:
        directory: made if it isn't there.
        url: where the files are, with a slash at the end.
        on_file: called with each file's name once it is there.

    Raises:
        StorageError: a file can't be fetched, or isn't the published one. Nothing half-written stays.
    """
    for file in MNIST_FILES:
        path = directory / file.name
        if not path.exists() or _md5(path.read_bytes()) != file.md5:
            _fetch(url + file.name, path, file.md5)
        on_file(file.name)


def _fetch(url: str, path: Path, md5: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            content: bytes = response.read()
    except OSError as error:
        raise StorageError(
            f"{url} can't be fetched: {error}; put MNIST's .gz files into {path.parent} by hand"
        ) from error
    _check(content, md5, url)
    write_whole(path, content)


def _pixels(path: Path, md5: str) -> NDArray[np.uint8]:
    """The images of an idx3 file, shape (images, height, width)."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"MNIST's {path.name} can't be read from {path.parent}: {error.strerror}") from error
    _check(content, md5, str(path))
    raw = gzip.decompress(content)
    count, height, width = np.frombuffer(raw, dtype=">u4", count=3, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(count, height, width)


def _check(content: bytes, md5: str, where: str) -> None:
    if _md5(content) != md5:
        raise StorageError(
            f"{where} isn't MNIST's original file: its MD5 is {_md5(content)} and should be {md5}; fetch it again"
        )


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _flat(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)

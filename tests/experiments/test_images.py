from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.errors import StorageError
from secateur.experiments import images
from secateur.experiments.images import MnistFile, data_directory, download_mnist, load_digits, load_mnist


def test_digits_are_split_by_seed_and_lie_between_0_and_1() -> None:
    data = load_digits(seed=0)
    assert data.train.shape == (1438, 64)
    assert data.test.shape == (359, 64)
    assert data.train.min() == 0
    assert data.train.max() == 1
    assert data.train.dtype == torch.float32
    assert data.pixels == 64
    assert torch.equal(data.test, load_digits(seed=0).test)
    assert not torch.equal(data.test, load_digits(seed=1).test)


def idx(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return gzip.compress(struct.pack(">4i", 2051, *pixels.shape) + pixels.tobytes(), mtime=0)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four small files in MNIST's format, and the checksums that go with them."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = []
    for file, count in zip(images.MNIST_FILES, (6, 6, 2, 2), strict=True):
        content = idx(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        (folder / file.name).write_bytes(content)
        files.append(MnistFile(file.name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(images, "MNIST_FILES", tuple(files))
    monkeypatch.setattr(images, "TRAIN_IMAGES", files[0])
    monkeypatch.setattr(images, "TEST_IMAGES", files[2])
    return folder


def test_download_then_load(mirror: Path, tmp_path: Path) -> None:
    fetched: list[str] = []
    target = tmp_path / "data"
    download_mnist(target, url=f"{mirror.as_uri()}/", on_file=fetched.append)
    assert fetched == [file.name for file in images.MNIST_FILES]
    assert sorted(path.name for path in target.iterdir()) == sorted(fetched)
    data = load_mnist(target)
    assert data.train.shape == (6, 784)
    assert data.test.shape == (2, 784)
    assert data.shape == (28, 28)
    raw = gzip.decompress((mirror / images.TRAIN_IMAGES.name).read_bytes())
    assert torch.equal(data.train, torch.frombuffer(bytearray(raw[16:]), dtype=torch.uint8).reshape(6, 784) / 255)


def test_download_keeps_what_is_there_and_replaces_what_is_broken(mirror: Path, tmp_path: Path) -> None:
    target = tmp_path / "data"
    download_mnist(target, url=f"{mirror.as_uri()}/")
    right, broken = (target / file.name for file in images.MNIST_FILES[:2])
    os.utime(right, (1, 1))
    broken.write_bytes(b"half a fi")
    download_mnist(target, url=f"{mirror.as_uri()}/")
    assert right.stat().st_mtime == 1
    assert broken.read_bytes() == (mirror / broken.name).read_bytes()


def test_a_wrong_file_from_the_mirror_is_not_kept(mirror: Path, tmp_path: Path) -> None:
    (mirror / images.MNIST_FILES[0].name).write_bytes(b"another file")
    with pytest.raises(StorageError, match=r"train-images-idx3-ubyte\.gz isn't MNIST's original file: its MD5 is"):
        download_mnist(tmp_path / "data", url=f"{mirror.as_uri()}/")
    assert not (tmp_path / "data").exists()


def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/train-images-idx3-ubyte\.gz can't be fetched: .* by hand"):
        download_mnist(tmp_path / "data", url=f"{(tmp_path / 'nowhere').as_uri()}/")


def test_load_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"train-images-idx3-ubyte\.gz can't be read from .*: No such file"):
        load_mnist(tmp_path)


def test_load_refuses_a_truncated_file(mirror: Path) -> None:
    path = mirror / images.TEST_IMAGES.name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StorageError, match=r"t10k-images-idx3-ubyte\.gz isn't MNIST's original file"):
        load_mnist(mirror)


def test_the_folder_comes_from_the_argument_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_DATA", "/somewhere")
    assert data_directory(Path("here")) == Path("here")
    assert data_directory(None) == Path("/somewhere")
    monkeypatch.delenv("SECATEUR_DATA")
    with pytest.raises(StorageError, match=r"name the folder .* by --data or by SECATEUR_DATA"):
        data_directory(None)

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.errors import StorageError
from secateur.experiments.images import Images, load_digits
from secateur.experiments.reproduce.checkpoints import trained


@pytest.fixture(scope="module")
def images() -> Images:
    return load_digits()


def test_a_model_is_trained_once(images: Images, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    model = trained(images, tmp_path, seed=1, epochs=2, on_epoch=lambda *step: told.append(step))
    again = trained(images, tmp_path, seed=1, epochs=2, on_epoch=lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]
    assert not again.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_other_seeds_epochs_and_latents_have_files_of_their_own(images: Images, tmp_path: Path) -> None:
    for seed, epochs, linear in ((0, 1, False), (1, 1, False), (0, 2, False), (0, 1, True)):
        trained(images, tmp_path, seed=seed, epochs=epochs, linear_latent=linear)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_damaged_file_is_named(images: Images, tmp_path: Path) -> None:
    trained(images, tmp_path, seed=0, epochs=1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"seed-0\.safetensors can't be read: .*; delete it to train again"):
        trained(images, tmp_path, seed=0, epochs=1)

"""Trained autoencoders, kept so that the next run needn't train them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from secateur.errors import StorageError
from secateur.experiments.autoencoder import EPOCHS, HIDDEN, Autoencoder, train
from secateur.experiments.images import Images
from secateur.report.files import write_whole


def trained(
    images: Images,
    folder: Path,
    *,
    seed: int,
    epochs: int | None = None,
    linear_latent: bool = False,
    on_epoch: Callable[[int, int], object] = lambda _done, _total: None,
) -> Autoencoder:
    """The autoencoder of a seed: read from ``folder`` if it is there, trained and written if not.

    Args:
        images: the data.
        folder: where the checkpoints are.
        seed: of the training.
        epochs: of the training; the data set's usual number if not given.
        linear_latent: no ReLU after the latent layer.
        on_epoch: called after every epoch with the epochs done and their total.

    Raises:
        StorageError: a file that is there can't be read, or holds another model; or it can't be written.
    """
    total = epochs or EPOCHS[images.name]
    file = folder / f"{images.name}{'-linear-latent' if linear_latent else ''}-{total}-epochs-seed-{seed}.safetensors"
    if file.exists():
        return _read(file, images, linear_latent)
    model = train(
        images, epochs=total, seed=seed, linear_latent=linear_latent, on_epoch=lambda done, _loss: on_epoch(done, total)
    )
    write_whole(file, save(model.state_dict()))
    return model


def _read(file: Path, images: Images, linear_latent: bool) -> Autoencoder:
    model = Autoencoder(images.pixels, HIDDEN[images.name], linear_latent=linear_latent)
    try:
        model.load_state_dict(load(file.read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise StorageError(f"{file} can't be read: {error}; delete it to train again") from error
    return model.eval()

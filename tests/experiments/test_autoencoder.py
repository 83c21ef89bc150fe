from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from secateur.experiments.autoencoder import HIDDEN, Autoencoder, fine_tune, psnr, train
from secateur.experiments.images import load_digits


def test_the_mnist_autoencoder_has_the_papers_widths() -> None:
    model = Autoencoder(784, HIDDEN["mnist"])
    widths = [layer.out_features for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert widths == [512, 256, 64, 256, 512, 784]
    assert [name for name, _ in model.named_children()] == ["encoder", "decoder"]
    assert [type(list(part)[-1]) for part in (model.encoder, model.decoder)] == [nn.ReLU, nn.Linear]
    out = model(torch.rand(2, 784))
    assert 0 < out.min() < out.max() < 1


class Brighter(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + 0.1


def test_psnr_of_a_known_error() -> None:
    assert psnr(Brighter(), torch.rand(2500, 4)) == pytest.approx(20, abs=1e-4)
    model, images = Autoencoder(4, (2,)), torch.rand(7, 4)
    expected = -10 * math.log10(torch.mean((model(images) - images) ** 2).item())
    assert psnr(model, images) == pytest.approx(expected, abs=1e-5)


def test_training_improves_repeats_and_reports() -> None:
    images = load_digits()
    losses: list[float] = []
    model = train(images, epochs=5, seed=1, on_epoch=lambda _epoch, loss: losses.append(loss))
    assert len(losses) == 5
    assert losses[-1] < 0.7 * losses[0]
    again = train(images, epochs=5, seed=1)
    assert psnr(model, images.test) == psnr(again, images.test)
    assert psnr(model, images.test) != psnr(train(images, epochs=5, seed=2), images.test)
    assert not model.training


def test_a_linear_latent_can_be_negative() -> None:
    images = torch.rand(50, 64)
    latents = {linear: Autoencoder(64, (8, 4), linear_latent=linear).encoder(images) for linear in (False, True)}
    assert latents[False].min() >= 0
    assert latents[True].min() < 0


def test_fine_tuning_goes_on_from_where_the_training_stopped() -> None:
    images = load_digits()
    model = train(images, epochs=5, linear_latent=True)
    tuned = copy.deepcopy(model)
    fine_tune(tuned, images, epochs=1, seed=3)
    assert psnr(tuned, images.test) > psnr(model, images.test)
    again = copy.deepcopy(model)
    fine_tune(again, images, epochs=1, seed=3)
    assert psnr(tuned, images.test) == psnr(again, images.test)

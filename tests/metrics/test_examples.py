"""PSNR, SSIM and accuracy against their formulas, and what a metric must leave alone."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from secateur.errors import ObjectiveError, SecateurError
from secateur.metrics import Accuracy, Examples, Psnr, Ssim

INPUTS = torch.rand(23, 12, generator=torch.Generator().manual_seed(0))


class Shift(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


class Noisy(nn.Module):
    """Differs in training mode, and draws from every global generator."""

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3)
        np.random.random()
        random.random()
        return x + 1 if self.training else x + 0.1


def test_psnr_is_that_of_the_mean_squared_error() -> None:
    assert Psnr(INPUTS)(Shift(0.1)) == pytest.approx(20.0, abs=1e-4)
    assert Psnr(INPUTS, peak=2.0)(Shift(0.1)) == pytest.approx(20 + 20 * np.log10(2), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_psnr_does_not_depend_on_the_batches(batch_size: int) -> None:
    targets = INPUTS.flip(0)
    expected = -10 * np.log10(np.mean((INPUTS.numpy().astype(float) - targets.numpy()) ** 2))
    assert Psnr(INPUTS, targets, batch_size=batch_size)(Shift(0.0)) == pytest.approx(expected, abs=1e-4)


def test_ssim_is_the_mean_over_images() -> None:
    images = torch.rand(5, 1, 16, 16)
    model = Shift(0.2)
    with torch.no_grad():
        shifted = model(images)
    expected = np.mean(
        [
            float(structural_similarity_index_measure(s[None], i[None], data_range=1.0))  # type: ignore[arg-type]
            for s, i in zip(shifted, images, strict=True)
        ]
    )
    assert Ssim(images, batch_size=2)(model) == pytest.approx(expected, abs=1e-6)
    assert Ssim(images.flatten(1), shape=(16, 16), batch_size=3)(model) == pytest.approx(expected, abs=1e-6)
    assert Ssim(images.flatten(1), shape=(1, 16, 16))(nn.Identity()) == pytest.approx(1.0, abs=1e-6)


def test_ssim_needs_images() -> None:
    with pytest.raises(ObjectiveError, match=r"give shape=\(height, width\) for flattened ones"):
        Ssim(INPUTS)(nn.Identity())
    with pytest.raises(ObjectiveError, match=r"can't make images of \(5, 5\) of values of shape \(23, 12\)"):
        Ssim(INPUTS, shape=(5, 5))(nn.Identity())


def test_accuracy_counts_hits() -> None:
    logits = torch.randn(50, 7)
    classes = torch.randint(0, 7, (50,))
    ranks = logits.argsort(dim=1, descending=True)
    for k in (1, 3):
        expected = float((ranks[:, :k] == classes[:, None]).any(dim=1).float().mean())
        found = Accuracy(logits, classes, top_k=k, batch_size=8)(nn.Identity())
        assert found == pytest.approx(expected, abs=1e-6)


def test_accuracy_of_every_position() -> None:
    logits = torch.randn(6, 4, 5)  # sequences of 5
    classes = logits.argmax(dim=1)
    classes[0, :3] = (classes[0, :3] + 1) % 4
    assert Accuracy(logits, classes, batch_size=4)(nn.Identity()) == pytest.approx(27 / 30, abs=1e-6)


def test_forward_picks_the_tensor() -> None:
    model = nn.LSTM(12, 12, batch_first=True)
    sequences = INPUTS[:, None]
    metric = Psnr(sequences, forward=lambda m, x: m(x)[0])
    with torch.no_grad():
        expected = -10 * torch.log10(torch.mean((model(sequences)[0] - sequences) ** 2))
    assert metric(model) == pytest.approx(float(expected), abs=1e-4)
    with pytest.raises(ObjectiveError, match="needs a model that returns one tensor, not a tuple; give forward="):
        Psnr(sequences)(model)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_state_stay_as_they_were(training: bool) -> None:
    model = nn.Sequential(Noisy(), nn.Dropout(0.5)).train(training)
    model[1].train(not training)
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # type: ignore[index]
    assert Psnr(INPUTS)(model) == pytest.approx(20.0, abs=1e-4)
    assert [m.training for m in model.modules()] == [training, training, not training]
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[index]
    assert states[2] == random.getstate()


def test_what_fails_leaves_the_model_as_it_was_too() -> None:
    model = nn.Sequential(nn.Flatten(0), nn.Dropout(0.5)).train()
    with pytest.raises(ObjectiveError, match="accuracy needs outputs of shape") as caught:
        Accuracy(INPUTS, torch.zeros(23).long())(model)
    assert caught.value.__traceback__ is not None
    assert model[1].training
    assert torch.is_grad_enabled()


def test_no_gradients_are_kept() -> None:
    seen = []

    def watch(model: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = model(x)
        seen.append(out.requires_grad)
        return out

    Psnr(INPUTS, forward=watch)(Shift(0.1))
    assert seen == [False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Psnr(torch.zeros(0, 3)),
            r"inputs as a tensor with a row per example, not one of shape \(0, 3\)",
        ),
        (lambda: Psnr([1.0, 2.0]), "PSNR needs inputs as a tensor with a row per example, not a list"),  # type: ignore[arg-type]
        (lambda: Psnr(INPUTS, INPUTS[1:]), "PSNR got 23 inputs but 22 targets"),
        (lambda: Ssim(INPUTS, batch_size=0), "SSIM needs a batch_size of at least 1, not 0"),
        (lambda: Accuracy(INPUTS), "accuracy needs targets: the classes as a tensor of integers"),
        (lambda: Accuracy(INPUTS, INPUTS[:, 0]), "accuracy needs targets"),
        (lambda: Accuracy(INPUTS, torch.zeros(23).long(), top_k=0), "accuracy needs a top_k of at least 1, not 0"),
        (lambda: Psnr(INPUTS, peak=-1), "PSNR needs a peak above 0, the range of the values, not -1"),
        (lambda: Psnr(INPUTS, peak=0), "PSNR needs a peak above 0, the range of the values, not 0"),
        (lambda: Psnr(INPUTS, peak=None), "PSNR needs a peak above 0, .* not None"),  # type: ignore[arg-type]
        (lambda: Ssim(INPUTS, peak=float("nan")), "SSIM needs a peak above 0, the range of the values, not nan"),
        (lambda: Ssim(INPUTS, shape=(12,)), r"SSIM needs a shape of \(height, width\) or .*, not \(12,\)"),
        (lambda: Ssim(INPUTS, shape=12), "SSIM needs a shape of .*, not 12"),  # type: ignore[arg-type]
        (lambda: Ssim(INPUTS, shape=(3.0, 4)), r"SSIM needs a shape of .*, not \(3.0, 4\)"),  # type: ignore[arg-type]
    ],
)
def test_wrong_input(make: Any, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        make()


def test_accuracy_needs_as_many_classes_as_it_counts() -> None:
    classes = torch.zeros(23).long()
    assert Accuracy(INPUTS[:, :3], classes, top_k=3)(nn.Identity()) == 1
    with pytest.raises(ObjectiveError, match="accuracy with top_k=4 needs outputs of at least 4 classes, not 3"):
        Accuracy(INPUTS[:, :3], classes, top_k=4)(nn.Identity())
    with pytest.raises(ObjectiveError, match="accuracy with top_k=1 needs outputs of at least 2 classes, not 1"):
        Accuracy(INPUTS[:, :1], classes)(nn.Identity())


def test_accuracy_needs_a_row_of_outputs_per_example() -> None:
    with pytest.raises(ObjectiveError, match=r"accuracy needs outputs of shape \(batch, classes\), not \(23,\)"):
        Accuracy(INPUTS[:, 0], torch.zeros(23).long())(nn.Identity())


@pytest.mark.parametrize(
    "metric", [Psnr(INPUTS), Ssim(INPUTS[:, :, None, None]), Accuracy(INPUTS, torch.zeros(23).long())]
)
def test_without_torchmetrics_the_error_names_the_extra(metric: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchmetrics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoTorchmetrics(), *sys.meta_path])
    with pytest.raises(SecateurError, match=r"this needs torchmetrics: pip install 'secateur\[metrics\]'"):
        metric(nn.Identity())  # type: ignore[operator]


class _NoTorchmetrics:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "torchmetrics":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

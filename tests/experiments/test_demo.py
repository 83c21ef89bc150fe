"""The demo on digits, and on MNIST where its files are."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from matplotlib import image as image_reader
from torch import nn

from secateur.experiments.autoencoder import psnr, train
from secateur.experiments.demo import DemoResult, prune_autoencoder, run
from secateur.experiments.images import TRAIN_IMAGES, Images, load_digits, load_mnist


@pytest.fixture(scope="module")
def digits() -> Images:
    return load_digits()


@pytest.fixture(scope="module")
def result(digits: Images) -> DemoResult:
    return run(digits)


def test_half_of_the_parameters_cost_little_after_the_repair(result: DemoResult) -> None:
    dense, pruned, refitted = result.stages
    assert dense.objective is not None
    assert pruned.objective is not None
    assert dense.objective > 18
    assert result.drop < 0.3
    assert pruned.objective < dense.objective - 4
    assert abs(1 - refitted.parameters / dense.parameters - 0.5) <= 0.01


def test_sizes_are_those_counted_in_the_models(result: DemoResult) -> None:
    _, pruned, refitted = result.stages
    for stage, model in ((pruned, result.work.pruned), (refitted, result.work.refitted)):
        assert stage.parameters == sum(p.numel() for p in model.parameters())
        assert stage.macs == sum(m.in_features * m.out_features for m in model.modules() if isinstance(m, nn.Linear))
        assert sum(part.parameters for part in stage.cost.by_component.values()) == stage.parameters


def test_the_figure_shows_four_rows_of_ten(result: DemoResult) -> None:
    picture = image_reader.imread(io.BytesIO(result.figure), format="png")
    height, width, _ = picture.shape
    assert width > 2 * height
    assert picture.std() > 0.1


def test_progress_is_told_step_by_step(digits: Images) -> None:
    told: list[tuple[str, int, int]] = []
    run(digits, epochs=2, on_step=lambda *step: told.append(step))
    assert told[:2] == [("train", 1, 2), ("train", 2, 2)]
    assert [step for step in told if step[0] == "prune"] == [("prune", done, 4) for done in range(5)]
    assert told[-1] == ("measure", 1, 1)


def mnist_folder() -> Path:
    root = Path(__file__).parents[2]
    places = [Path(p) for p in [os.environ.get("SECATEUR_DATA")] if p]
    places += [root.parent / "shared" / "data" / "mnist", root.parent / "shared" / "data"]
    found = [place for place in places if (place / TRAIN_IMAGES.name).exists()]
    if not found:
        pytest.skip("MNIST is not here; name its folder by SECATEUR_DATA")
    return found[0]


def test_mnist_has_the_published_files_and_a_short_training_survives_pruning() -> None:
    images = load_mnist(mnist_folder())
    assert images.train.shape == (60_000, 784)
    assert images.test.shape == (10_000, 784)
    few = Images("mnist", images.train[:6_000], images.test[:1_000], images.shape)
    dense = train(few, epochs=4)
    work = prune_autoencoder(dense, few)
    before, pruned, refitted = (psnr(m, few.test) for m in (dense, work.pruned, work.refitted))
    assert before - refitted < 0.4
    assert pruned < refitted - 1
    assert work.seconds < 20

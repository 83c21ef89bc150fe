"""What a study knows of its metrics: two of one name are not taken for each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.allocation import Constraint, Minimize
from secateur.allocation.evaluator import Evaluator
from secateur.allocation.fingerprint import fingerprint
from secateur.allocation.identity import identity
from secateur.metrics import Accuracy, DenseError, LatentDrift, Psnr, Repeats, Similarity

INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.rand(16, 4, generator=torch.Generator().manual_seed(2))


def dense(bias: float = 0.0) -> nn.Module:
    model = nn.Linear(6, 4)
    nn.init.constant_(model.weight, 0.5)
    nn.init.constant_(model.bias, bias)
    return model


class Named:
    """Calls itself as another metric does."""

    name = "PSNR"

    def __call__(self, model: nn.Module) -> float:
        return 1.0


@dataclass(frozen=True)
class Logged:
    """A user's metric, which holds what its value doesn't depend on."""

    log: str

    def __call__(self, model: nn.Module) -> float:
        return 1.0


class Side(Enum):
    LEFT = 1
    RIGHT = 2


class Own(Psnr):
    """A user's child of a metric of the library."""


def scaled(model: nn.Module, factor: float = 1.0, data: Any = None) -> float:
    return factor


def elsewhere() -> Callable[..., float]:
    def scaled(model: nn.Module, seed: int = 0) -> float:
        return 2.0

    return scaled


def psnr(targets: torch.Tensor = TARGETS, **settings: Any) -> Psnr:
    return Psnr(INPUTS, targets.clone(), **settings)


DIFFERENT: dict[str, list[Any]] = {
    "classes": [psnr(), Named(), Own(INPUTS, TARGETS)],
    "functions": [scaled, elsewhere(), elsewhere],
    "settings": [psnr(), psnr(peak=2.0), psnr(batch_size=4), psnr(forward=scaled), psnr(forward=elsewhere())],
    "data": [psnr(), psnr(TARGETS + 1), psnr(TARGETS[:, :3]), psnr(TARGETS.reshape(16, 2, 2)), psnr(TARGETS.double())],
    "children": [Own(INPUTS, TARGETS), Own(INPUTS, TARGETS + 1)],
    "classification": [Accuracy(INPUTS, torch.zeros(16).long()), Accuracy(INPUTS, torch.ones(16).long())],
    "dense models": [DenseError(dense(), [INPUTS]), DenseError(dense(1.0), [INPUTS])],
    "one-shot data": [DenseError(dense(), iter([INPUTS])), DenseError(dense(), iter([TARGETS]))],
    "modules": [Similarity(nn.Sequential(dense()), m, [INPUTS]) for m in ("", "0")],
    "rows": [LatentDrift(dense(), "", [INPUTS]), LatentDrift(dense(), "", [INPUTS[1:]])],
    "seeds": [Repeats(scaled, 2), Repeats(scaled, 3), Repeats(elsewhere(), 2), Repeats(partial(scaled, data=1), 2)],
    "arguments": [partial(scaled), partial(scaled, factor=1.0), partial(scaled, factor=2.0), partial(elsewhere())],
    "values": [partial(scaled, data=d) for d in (None, 1, 1.0, True, "1", b"1", np.int64(1), scaled, Logged, INPUTS)],
    "places and types": [
        partial(scaled, data=d)
        for d in (Path("a"), Path("b"), torch.float32, torch.float64, torch.device("meta"), slice(1), slice(2), *Side)
    ],
    "containers": [
        partial(scaled, data=d)
        for d in ([1, 2], [2, 1], [[1], 2], [[1, 2]], {"a": 1}, {"a": 2}, {"b": 1}, {1, 2}, np.ones(2), ["a"])
    ],
}


@pytest.mark.parametrize("metrics", DIFFERENT.values(), ids=list(DIFFERENT))
def test_they_differ(metrics: list[Any]) -> None:
    assert len({identity(metric) for metric in metrics}) == len(metrics)


@pytest.mark.parametrize(
    "make",
    [
        psnr,
        lambda: scaled,
        Named,
        lambda: partial(scaled, data={"rows": TARGETS.clone(), "of": np.arange(3), "names": {"a", "b"}}),
        lambda: DenseError(dense(), iter([INPUTS.clone()])),
        lambda: Repeats(partial(scaled, data=psnr()), [0, 1]),
        lambda: Similarity(dense(), "", lambda model: model(INPUTS)),
    ],
)
def test_one_that_is_made_again_is_the_same(make: Callable[[], Any]) -> None:
    assert identity(make()) == identity(make())


def test_of_a_users_object_the_class_counts() -> None:
    assert identity(Logged("a")) == identity(Logged("b"))


def test_it_can_be_read() -> None:
    assert identity(scaled) == f"scaled: {__name__}.scaled"
    assert identity(partial(scaled, data=1)).startswith(f"partial: {__name__}.scaled ")
    assert identity(Named()) == f"PSNR: {__name__}.Named"
    assert identity(psnr()).startswith("PSNR: secateur.metrics.images.Psnr ")


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        ({"objective": psnr()}, {"objective": psnr(peak=2.0)}, "objective"),
        ({"objective": Minimize(psnr())}, {"objective": Minimize(Named())}, "objective"),
        ({"objective": psnr()}, {"objective": Minimize(psnr())}, "objective"),
        (*({"constraints": (Constraint(m, at_least=1, name="c"),)} for m in (psnr(), Named())), "constraints"),
        ({"calibration": [INPUTS]}, {"calibration": [INPUTS + 1]}, "calibration data"),
        ({"calibration": [INPUTS]}, {"calibration": [INPUTS.reshape(2, 8, 6)]}, "calibration data"),
        ({"calibration": [INPUTS]}, {"calibration": [INPUTS.view(torch.int32)]}, "calibration data"),
        ({"calibration": [INPUTS]}, {"calibration": [*INPUTS.split(8)]}, "calibration data"),
        ({"calibration": [{"x": INPUTS}]}, {"calibration": [{"y": INPUTS}]}, "calibration data"),
    ],
)
def test_a_study_tells_them_apart(first: dict[str, Any], second: dict[str, Any], part: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    graph = secateur.trace(model, INPUTS)
    scores = secateur.importance.Magnitude()(graph, model)

    def found(settings: dict[str, Any]) -> dict[str, Any]:
        settings = {"objective": None, "constraints": (), "calibration": None, **settings}
        return fingerprint(Evaluator(graph, scores, model, **settings))

    assert {name for name, value in found(first).items() if found(second)[name] != value} == {part}
    assert found(first) == found(first)

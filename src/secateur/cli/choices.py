"""The strategies and criteria that the command line offers, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import typer

from secateur import importance
from secateur.allocation import (
    BlackBox,
    GradientDescent,
    GridSearch,
    NormBased,
    Random,
    Sensitivity,
    Strategy,
    Uniform,
)
from secateur.importance import Criterion


class StrategyName(str, Enum):
    """How the coefficients are found."""

    UNIFORM = "uniform"
    RANDOM = "random"
    NORM = "norm"
    GRID = "grid"
    GRADIENT = "gradient"
    GRADIENT_WEIGHTS = "gradient-weights"
    BLACK_BOX = "black-box"
    SENSITIVITY = "sensitivity"


class CriterionName(str, Enum):
    """What ranks the channels of a group."""

    MAGNITUDE = "magnitude"
    ACTIVATION = "activation"
    TAYLOR = "taylor"
    FISHER = "fisher"
    RECONSTRUCTION = "reconstruction"
    RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What strategies and criteria are made of.

    Attributes:
        seed: of whatever is drawn.
        evaluations: candidates that a search may measure; the strategy's own number if None.
        batch: candidates that a search proposes at a time.
        loss: takes the model and a batch.
        batches: of the loss.
        calibration: inputs, or a function that exercises the model.
    """

    seed: int
    evaluations: int | None
    batch: int
    loss: Callable[..., Any] | None
    batches: Any
    calibration: Any

    def need(self, attribute: str, option: str, what: str) -> Any:
        """An ingredient that must be there."""
        value = getattr(self, attribute)
        if value is None:
            raise typer.BadParameter(f"{what} needs {option}")
        return value


def strategy(name: StrategyName, given: Ingredients) -> Strategy:
    """The strategy of that name."""
    return _STRATEGIES[name](given)


def criterion(name: CriterionName, given: Ingredients) -> Criterion:
    """The criterion of that name."""
    return _CRITERIA[name](given)


def _evaluations(given: Ingredients, keyword: str = "evaluations") -> dict[str, Any]:
    return {} if given.evaluations is None else {keyword: given.evaluations}


def _gradient(given: Ingredients) -> Strategy:
    if given.loss is None and given.batches is None:
        return GradientDescent(seed=given.seed)
    loss, batches = given.need("loss", "--loss", "--batches"), given.need("batches", "--batches", "--loss")
    return GradientDescent(loss, batches, seed=given.seed)


def _gradient_and_weights(given: Ingredients) -> Strategy:
    what = f"--strategy {StrategyName.GRADIENT_WEIGHTS.value}"
    loss, batches = given.need("loss", "--loss", what), given.need("batches", "--batches", what)
    return GradientDescent(loss, batches, seed=given.seed, weights=True)


def _with_loss(make: Callable[[Any, Any], Criterion], name: CriterionName) -> Callable[[Ingredients], Criterion]:
    what = f"--criterion {name.value}"
    return lambda given: make(given.need("loss", "--loss", what), given.need("batches", "--batches", what))


def _with_calibration(make: Callable[[Any], Criterion], name: CriterionName) -> Callable[[Ingredients], Criterion]:
    return lambda given: make(given.need("calibration", "--calibration", f"--criterion {name.value}"))


_STRATEGIES: Mapping[StrategyName, Callable[[Ingredients], Strategy]] = {
    StrategyName.UNIFORM: lambda given: Uniform(),
    StrategyName.RANDOM: lambda given: Random(seed=given.seed, **_evaluations(given, "draws")),
    StrategyName.NORM: lambda given: NormBased(),
    StrategyName.GRID: lambda given: GridSearch(**_evaluations(given, "max_evaluations")),
    StrategyName.GRADIENT: _gradient,
    StrategyName.GRADIENT_WEIGHTS: _gradient_and_weights,
    StrategyName.BLACK_BOX: lambda given: BlackBox(seed=given.seed, batch=given.batch, **_evaluations(given)),
    StrategyName.SENSITIVITY: lambda given: Sensitivity(seed=given.seed, **_evaluations(given)),
}

_CRITERIA: Mapping[CriterionName, Callable[[Ingredients], Criterion]] = {
    CriterionName.MAGNITUDE: lambda given: importance.Magnitude(),
    CriterionName.ACTIVATION: _with_calibration(importance.Activation, CriterionName.ACTIVATION),
    CriterionName.TAYLOR: _with_loss(importance.Taylor, CriterionName.TAYLOR),
    CriterionName.FISHER: _with_loss(importance.Fisher, CriterionName.FISHER),
    CriterionName.RECONSTRUCTION: _with_calibration(importance.Reconstruction, CriterionName.RECONSTRUCTION),
    CriterionName.RANDOM: lambda given: importance.Random(seed=given.seed),
}

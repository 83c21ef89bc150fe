"""What ``secateur prune`` was asked, as data: a worker on the same search rebuilds everything from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

import secateur
from secateur.allocation import Search, Target
from secateur.api import PruningResult
from secateur.cli import metrics, targets
from secateur.cli.choices import CriterionName, Ingredients, StrategyName, criterion, strategy
from secateur.cli.names import data, function, model_and_inputs, reported
from secateur.cli.options import Blocks
from secateur.errors import StorageError
from secateur.recovery.refit import STEPS


@dataclass(frozen=True, kw_only=True)
class Job:
    """The options of ``secateur prune`` that its result depends on, as the user wrote them."""

    factory: str
    input_shape: Sequence[str] = ()
    run: str | None = None
    component: Sequence[str] = ()
    protect: Sequence[str] = ()
    granularity: str = Blocks.AUTO.value
    target: str | None = None
    of: str = "params"
    tolerance: float | None = None
    interface: Sequence[str] = ()
    cap: Sequence[str] = ()
    whole: Sequence[str] = ()
    round_to: int = 1
    minimum_width: int = 1
    maximize: str | None = None
    minimize: str | None = None
    constraint: Sequence[str] = ()
    calibration: str | None = None
    strategy: str = StrategyName.UNIFORM.value
    evaluations: int | None = None
    batch: int = 1
    refit_steps: int = STEPS
    seed: int = 0
    loss: str | None = None
    batches: str | None = None
    criterion: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether candidates are measured on the application; uniform coefficients are, for constraints alone."""
        has_objective = bool(self.maximize or self.minimize)
        return bool(self.constraint) or (has_objective and self.strategy != StrategyName.UNIFORM.value)

    def as_data(self) -> dict[str, Any]:
        """The job as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_data(cls, given: Mapping[str, Any]) -> Job:
        """The job that :meth:`as_data` described.

        Raises:
            StorageError: it describes none.
        """
        unknown = set(given) - {field.name for field in fields(cls)}
        if unknown or "factory" not in given:
            raise StorageError(f"the study holds no job of this version of `secateur prune`: {sorted(given)}")
        return cls(**given)

    def asked(self) -> Target:
        """The target.

        Raises:
            TargetError: a value outside its range.
        """
        return targets.target(
            self.target,
            self.tolerance,
            targets.components(self.component).targets,
            targets.fractions(self.interface, "--interface"),
            of=self.of,
            caps=targets.fractions(self.cap, "--cap"),
            protected=tuple(self.whole),
            round_to=self.round_to,
            minimum_width=self.minimum_width,
        )

    def prune(self, search: Search) -> PruningResult:
        """Make the model, and prune it.

        Raises:
            SecateurError: whatever :func:`secateur.prune` raises, and names that stand for nothing.
        """
        target = self.asked()
        torch.manual_seed(self.seed)  # a factory that draws its weights makes the same ones in every worker
        model, inputs, entry = model_and_inputs(self.factory, self.input_shape, self.run)
        calibration = None if self.calibration is None else data(self.calibration, self.factory)
        ingredients = self._ingredients(calibration)
        return secateur.prune(
            model,
            inputs,
            run=entry,
            components=targets.components(self.component).modules,
            protect=tuple(self.protect),
            granularity=Blocks(self.granularity).value,
            target=target,
            criterion=None if self.criterion is None else criterion(CriterionName(self.criterion), ingredients),
            strategy=strategy(StrategyName(self.strategy), ingredients),
            objective=metrics.objective(self.maximize, self.minimize, self.factory),
            constraints=metrics.constraints(self.constraint, self.factory),
            calibration=calibration,
            search=replace(search, refit_steps=self.refit_steps),
        )

    def _ingredients(self, calibration: Any) -> Ingredients:
        return Ingredients(
            seed=self.seed,
            evaluations=self.evaluations,
            batch=self.batch,
            loss=None if self.loss is None else reported(function(self.loss, self.factory), self.loss),
            batches=None if self.batches is None else data(self.batches, self.factory),
            calibration=calibration,
        )

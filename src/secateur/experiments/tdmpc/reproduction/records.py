"""Results of single runs: a pruned agent, and how it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An agent, as it was measured.

    Attributes:
        returns: of every episode with the planner, in the order of the seeds.
        policy: of every episode with the policy alone, on the same seeds.
        error: of its predictions on visits that pruning didn't see, in units of the dense ones' variance.
        drift: relative L2 distance of its latent states from the dense model's, open loop: at once, after one step,
            ..., over all starts.
        drift_high: the same of the starts that drift most: their 95th percentile.
    """

    returns: tuple[float, ...]
    policy: tuple[float, ...]
    error: float
    drift: tuple[float, ...]
    drift_high: tuple[float, ...]

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Measured:
        """What ``dataclasses.asdict`` was given, read back from JSON.

        Raises:
            TypeError: these aren't its fields.
        """
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**fields)


@dataclass(frozen=True)
class DistillationCost:
    """What a distillation took.

    Attributes:
        seconds: wall-clock time.
        steps: of the optimiser: how many there are in a time depends on the machine, and on what else runs on it.
        improved: whether the error fell; if not, the weights stayed as they were.
    """

    seconds: float
    steps: int
    improved: bool


@dataclass(frozen=True, kw_only=True)
class Record:
    """One pruned agent.

    Attributes:
        method: its name.
        target: the fraction asked for: of the parameters, or of the channels where single parts are pruned.
        refit: whether it was refitted (and candidates of a search scored after refit).
        sparsity: the fraction of the parameters that left.
        coefficients: group name to pruning coefficient.
        kept: group name to the number of channels that stay.
        evaluations: candidates that were measured.
        seconds: wall-clock time by phase.
        peak: bytes that pruning needed beyond what the process held before; None where that can't be measured.
        measured: what came out.
        distilled: the same after distillation; None if there was none.
        distillation: what it took; None if there was none, or a run of an earlier version didn't record it.
    """

    method: str
    target: float
    refit: bool
    sparsity: float
    coefficients: Mapping[str, float]
    kept: Mapping[str, int]
    evaluations: int
    seconds: Mapping[str, float]
    peak: int | None
    measured: Measured
    distilled: Measured | None
    distillation: DistillationCost | None = None

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Record:
        """What ``dataclasses.asdict`` was given, read back from JSON.

        Raises:
            KeyError: there is no measurement.
            TypeError: these aren't its fields.
        """
        distilled, distillation = data["distilled"], data.get("distillation")
        nested = {
            "measured": Measured.from_data(data["measured"]),
            "distilled": None if distilled is None else Measured.from_data(distilled),
            "distillation": None if distillation is None else DistillationCost(**distillation),
        }
        return cls(**{**data, **nested})

    def in_arm(self, arm: Arm) -> Measured | None:
        """What was measured without refit, with it, or after distillation; None if this run has no such arm."""
        if arm.refit != self.refit:
            return None
        return self.distilled if arm.distilled else self.measured


@dataclass(frozen=True)
class Arm:
    """What repairs a pruned model.

    Attributes:
        refit: least squares.
        distilled: and training against the dense model.
    """

    refit: bool
    distilled: bool


PLAIN, REFIT, DISTILLED = Arm(False, False), Arm(True, False), Arm(True, True)
ARMS = (PLAIN, REFIT, DISTILLED)

"""A reproduction as it might have come out, with numbers that are made up."""

from __future__ import annotations

import math

import numpy as np

from secateur.experiments.tdmpc.reproduction.analysis import AnalysisRecord, Phase
from secateur.experiments.tdmpc.reproduction.grouping import Grouping
from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.planning import ONE, PLANNED, Cost, PlanningRecord, TimedModel
from secateur.experiments.tdmpc.reproduction.records import DistillationCost, Measured, Record
from secateur.experiments.tdmpc.reproduction.reproduction import Reproduction
from secateur.experiments.tdmpc.reproduction.runs import PARTS
from secateur.experiments.tdmpc.reproduction.settings import MASKED, SPARSITIES, Settings
from secateur.latency import Latency

GROUPS = (
    "encoder.0", "encoder.2", "dynamics.0", "dynamics.2", "reward.0", "reward.2",
    "pi.0", "pi.2", "q1.0", "q1.3", "q2.0", "q2.3",
)  # fmt: skip
WIDTHS = {name: 50 if name == "encoder.2" else 256 for name in GROUPS}
DENSE, FULL = 864.0, 424_552


def returns(rng: np.random.Generator, quality: float, episodes: int) -> tuple[float, ...]:
    """Bimodal: an episode either works or fails."""
    works = rng.random(episodes) < quality
    return tuple(np.where(works, DENSE * quality + rng.normal(0, 8, episodes), 60 + 40 * rng.random(episodes)).tolist())


def measured(rng: np.random.Generator, quality: float, episodes: int = 10) -> Measured:
    steps, error = np.arange(21), 0.6 * (1 - quality) + 0.01
    drift = error * (1 + steps / 8)
    return Measured(
        returns=returns(rng, quality, episodes),
        policy=returns(rng, 0.96 * quality, episodes),
        error=error**2,
        drift=tuple(drift.tolist()),
        drift_high=tuple((2.2 * drift).tolist()),
    )


def quality(position: float, target: float, width: float) -> float:
    """Falls from 1 to 0 around a sparsity."""
    return 1 / (1 + math.exp((target - position) / width))


def record(rng: np.random.Generator, method: str, target: float, *, refit: bool, rank: int) -> Record:
    position = (0.85 + 0.03 * rank) if refit else 0.35 + 0.02 * rank
    chosen = METHODS[method]
    distilled = measured(rng, quality(position + 0.1, target, 0.03)) if refit and chosen.is_distilled else None
    coefficients = {name: min(0.99, target * (0.7 + 0.6 * rng.random())) for name in GROUPS}
    return Record(
        method=method,
        target=target,
        refit=refit,
        sparsity=target + 0.004,
        coefficients=coefficients,
        kept={name: max(1, round((1 - c) * WIDTHS[name])) for name, c in coefficients.items()},
        evaluations=40 if rank > 5 else 0,
        seconds={"score": 0.8, "allocate": 3.0 * rank, "surgery": 0.02, "verify": 0.1, "refit": 1.2, "judge": 30.0},
        peak=200_000_000,
        measured=measured(rng, quality(position, target, 0.05)),
        distilled=distilled,
        distillation=None if distilled is None else DistillationCost(30.2, 1200 + 10 * rank, rank != 3),
    )


def part(rng: np.random.Generator, name: str, level: float, *, refit: bool) -> Record:
    position = (1.1 if refit else 0.55) - 0.07 * PARTS.index(name)
    made = record(rng, "uniform", level, refit=refit, rank=0)
    found = measured(rng, quality(position, level, 0.08), episodes=5)
    return Record(**{**made.__dict__, "method": name, "sparsity": level / 5, "measured": found, "distilled": None})


def cost(fraction: float) -> Cost:
    def latency(seconds: float) -> Latency:
        return Latency(seconds * (0.1 + 0.9 * fraction), 0.05 * seconds * fraction, 30, 1)

    return Cost(
        weights=int(4 * FULL * fraction),
        latency={ONE: latency(2.5e-4), PLANNED: latency(0.04)},
        tensors={ONE: int(9_000 * fraction) + 500, PLANNED: int(2e6 * fraction) + 90_000},
    )


def planning(methods: tuple[str, ...], sparsities: tuple[float, ...]) -> PlanningRecord:
    timed = [TimedModel(method=m, target=t, cost=cost(1 - t)) for m in methods for t in sparsities]
    return PlanningRecord(dense=cost(1.0), pruned=tuple(timed))


def made_up(
    methods: tuple[str, ...] = tuple(METHODS),
    *,
    missing: tuple[str, ...] = (),
    sparsities: tuple[float, ...] = tuple(SPARSITIES["cartpole-swingup"]),
) -> Reproduction:
    """All parts of a reproduction on cartpole-swingup."""
    rng = np.random.default_rng(0)
    settings = Settings(sparsities=sparsities, methods=methods)
    there = [name for name in methods if name not in missing]
    records = [
        record(rng, name, target, refit=refit, rank=rank)
        for refit in (False, True)
        for target in sparsities
        for rank, name in enumerate(there)
    ]
    parts = [
        part(rng, name, level, refit=refit) for refit in (False, True) for name in PARTS for level in settings.levels
    ]
    phases = {"trace": Phase(0.3, 20_000_000), "scores": Phase(0.9, 150_000_000), "refit": Phase(1.4, None)}
    return Reproduction(
        task="cartpole-swingup",
        parameters=FULL,
        latent=50,
        horizon=5,
        settings=settings,
        missing=dict.fromkeys(missing, "torch_pruning"),
        dense=measured(rng, 1.0),
        records=tuple(records),
        unreachable=(),
        unseen_episodes=True,
        parts=tuple(parts),
        masked=tuple(record(rng, "ln-structured", level, refit=False, rank=0) for level in MASKED),
        groupings=(
            Grouping("component-aware: inside components", (256,) * 11, (0.19,) * 11, 1),
            Grouping("component-aware: interfaces", (50,), (0.22,), 5),
            Grouping("whole model: coupled groups merged", (2866,), (0.999,), 5),
        ),
        analysis=AnalysisRecord(phases, 3600),
        planning=planning(("uniform", "sensitivity"), sparsities),
    )

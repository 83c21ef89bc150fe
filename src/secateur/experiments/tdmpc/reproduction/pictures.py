"""The figures: return against sparsity, single episodes, parts, the policy alone, drift, coefficients and costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence

from secateur.experiments.tdmpc.reproduction.cost_tables import STAGES, seconds_of
from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.planning import ONE, PLANNED
from secateur.experiments.tdmpc.reproduction.records import PLAIN, REFIT, Arm, Measured, Record
from secateur.experiments.tdmpc.reproduction.reproduction import Reproduction
from secateur.experiments.tdmpc.reproduction.runs import PARTS
from secateur.experiments.tdmpc.reproduction.tables import arm_name, arms_of, percent
from secateur.report.figures import Curve, bars, heat_map
from secateur.report.panels import Level, Panel, panels, strips

_RETURN = "return of an episode"
_REMOVED = "parameters removed"

_LABELS = [method.label for method in METHODS.values()]
"""A method looks alike in every figure."""


def all_pictures(found: Reproduction) -> Iterator[tuple[str, bytes]]:
    """File name and PNG of every figure."""
    if found.records:
        yield from _of_methods(found, arms_of(found))
    if found.parts:
        yield "sensitivity.png", _sensitivity(found)
    if found.masked:
        yield "masked.png", _masked(found)
    if found.planning.pruned:
        yield "planning.png", _planning(found)
    yield "analysis.png", _analysis(found)


def _of_methods(found: Reproduction, arms: Sequence[Arm]) -> Iterator[tuple[str, bytes]]:
    yield "returns.png", _returns(found, arms)
    yield "worst.png", _worst(found, arms)
    for arm in arms:
        yield f"episodes-{_file(arm)}.png", _episodes(found, arm)
    yield "policy.png", _policy(found, arms[-1])
    for target in found.settings.sparsities:
        here = [record for record in found.records if record.target == target]
        if here:
            yield f"drift-{target:g}.png", _drift(found, target, arms)
        if any(record.refit for record in here):
            yield f"coefficients-{target:g}.png", _coefficients(found, target)
    if any(record.refit for record in found.records):
        yield "allocation.png", _allocation(found)


def _file(arm: Arm) -> str:
    return "distilled" if arm.distilled else "refit" if arm.refit else "plain"


def _returns(found: Reproduction, arms: Sequence[Arm]) -> bytes:
    return panels(
        [Panel(arm_name(found, arm), _curves(found, arm, lambda m: m.returns)) for arm in arms],
        x=_REMOVED,
        y=_RETURN,
        title=f"{found.task}: mean of {found.settings.episodes} episodes and its 95 % interval",
        levels={"dense": _dense(found)},
        x_scale="removed",
        bottom=0,
        order=_LABELS,
    )


def _worst(found: Reproduction, arms: Sequence[Arm]) -> bytes:
    def lines(arm: Arm) -> list[Curve]:
        return [
            Curve(METHODS[name].label, [r.target for r, _ in at], [min(m.returns) for _, m in at])
            for name, at in _found(found, arm)
        ]

    return panels(
        [Panel(arm_name(found, arm), lines(arm)) for arm in arms],
        x=_REMOVED,
        y="return of the worst episode",
        title=f"{found.task}: the worst of {found.settings.episodes} episodes",
        levels={"dense, worst": Level(min(found.dense.returns)), "half the dense mean": Level(found.threshold)},
        x_scale="removed",
        bottom=0,
        order=_LABELS,
    )


def _episodes(found: Reproduction, arm: Arm) -> bytes:
    targets = found.settings.sparsities
    series = {}
    for name in found.settings.methods:
        at = [found.of(name, target, arm) for target in targets]
        if any(at):
            series[METHODS[name].label] = [[] if each is None else list(each[1].returns) for each in at]
    return strips(
        [f"{percent(target)} removed" for target in targets],
        series,
        y=_RETURN,
        title=f"{found.task}, {arm_name(found, arm)}: every episode, and the mean",
        levels={"dense, mean": _dense(found), "half the dense mean": Level(found.threshold)},
        bottom=0,
        order=_LABELS,
    )


def _policy(found: Reproduction, arm: Arm) -> bytes:
    dense = found.score(found.dense.policy)
    levels = {
        "dense, planner": _dense(found),
        "dense, policy alone": Level(dense.mean, dense.low, dense.high),
    }
    return panels(
        [
            Panel("with the planner", _curves(found, arm, lambda m: m.returns)),
            Panel("the policy alone", _curves(found, arm, lambda m: m.policy)),
        ],
        x=_REMOVED,
        y=_RETURN,
        title=f"{found.task}, {arm_name(found, arm)}: mean of {found.settings.episodes} episodes and its 95 % interval",
        levels=levels,
        x_scale="removed",
        order=_LABELS,
    )


def _sensitivity(found: Reproduction) -> bytes:
    def lines(arm: Arm) -> list[Curve]:
        by_part = [(part, [r for r in found.parts if r.method == part and r.refit == arm.refit]) for part in PARTS]
        return [_curve(found, part, at, lambda r: r.measured.returns) for part, at in by_part if at]

    return panels(
        [Panel(arm_name(found, arm), lines(arm)) for arm in (PLAIN, REFIT)],
        x="channels removed, of one part alone",
        y=_RETURN,
        title=f"{found.task}: mean of {found.settings.sensitivity_episodes} episodes and its 95 % interval",
        levels={"dense": _dense(found)},
        x_scale="percent",
        bottom=0,
    )


def _masked(found: Reproduction) -> bytes:
    line = _curve(found, "PyTorch, ln_structured", found.masked, lambda r: r.measured.returns)
    return panels(
        [Panel("", [line])],
        x="rows masked in every hidden layer",
        y=_RETURN,
        title=f"{found.task}: nothing removed, nothing repaired",
        levels={"dense": _dense(found)},
        x_scale="percent",
        bottom=0,
    )


def _drift(found: Reproduction, target: float, arms: Sequence[Arm]) -> bytes:
    steps = list(range(len(found.dense.drift)))

    def lines(arm: Arm) -> list[Curve]:
        at = [(name, found.of(name, target, arm)) for name in found.settings.methods]
        drifts = [(name, each[1].drift) for name, each in at if each is not None]
        # What hasn't moved at all has no place on a logarithmic scale.
        return [Curve(METHODS[name].label, steps, [d or math.nan for d in drift]) for name, drift in drifts]

    own = Curve("dense, from what it encodes", steps[1:], found.dense.drift[1:])
    return panels(
        [Panel(arm_name(found, arm), lines(arm), [own]) for arm in arms],
        x="steps ahead, open loop",
        y="drift of latent states, relative L2",
        title=f"{found.task}, {percent(target)} removed: how far latent states move from the dense model's",
        marks={"the planner's horizon": found.horizon},
        logarithmic=True,
        order=_LABELS,
    )


def _coefficients(found: Reproduction, target: float) -> bytes:
    at = [(name, found.of(name, target, REFIT)) for name in found.settings.methods]
    records = {METHODS[name].label: each[0] for name, each in at if each is not None}
    groups = list(next(iter(records.values())).coefficients)
    return heat_map(
        list(records),
        groups,
        [[record.coefficients[group] for group in groups] for record in records.values()],
        value="pruning coefficient",
        title=f"{found.task}, {percent(target)} removed, with refit: coefficient of each group",
    )


def _planning(found: Reproduction) -> bytes:
    def line(name: str, what: str) -> Curve:
        timed = [each for each in found.planning.pruned if each.method == name]
        latency = [found.planning.dense.latency[what], *(each.cost.latency[what] for each in timed)]
        middle = [1e3 * each.median for each in latency]
        low, high = ([1e3 * (each.median + side * each.spread / 2) for each in latency] for side in (-1, 1))
        return Curve(METHODS[name].label, [0.0, *(each.target for each in timed)], middle, low, high)

    names = dict.fromkeys(each.method for each in found.planning.pruned)
    return panels(
        [Panel(what, [line(name, what) for name in names]) for what in (PLANNED, ONE)],
        x=_REMOVED,
        y="milliseconds",
        title=f"{found.task}: median time on one thread, and the distance between its quartiles",
        x_scale="removed",
        logarithmic=True,
        order=_LABELS,
    )


def _analysis(found: Reproduction) -> bytes:
    phases = found.analysis.phases
    title = f"{found.task}: cost of the analysis, {found.analysis.rows:,} rows of calibration data"
    series = {"seconds": [phase.seconds for phase in phases.values()]}
    return bars(list(phases), series, y="seconds", title=title)


def _allocation(found: Reproduction) -> bytes:
    by_method = {name: [r for r in found.records if r.refit and r.method == name] for name in found.settings.methods}
    there = {name: records for name, records in by_method.items() if records}
    series = {
        label: [statistics.mean(seconds_of(r, phases) for r in records) for records in there.values()]
        for label, phases in STAGES.items()
    }
    title = f"{found.task}, with refit: time of a pruning, mean over the sparsities"
    return bars([METHODS[name].label for name in there], series, y="seconds", title=title, logarithmic=True)


def _curves(found: Reproduction, arm: Arm, returns: Callable[[Measured], Sequence[float]]) -> list[Curve]:
    lines = []
    for name, at in _found(found, arm):
        scores = [found.score(returns(m)) for _, m in at]
        x, mean = [r.target for r, _ in at], [s.mean for s in scores]
        lines.append(Curve(METHODS[name].label, x, mean, [s.low for s in scores], [s.high for s in scores]))
    return lines


def _curve(
    found: Reproduction, label: str, records: Sequence[Record], returns: Callable[[Record], Sequence[float]]
) -> Curve:
    scores = [found.score(returns(r)) for r in records]
    x = [r.target for r in records]
    return Curve(label, x, [s.mean for s in scores], [s.low for s in scores], [s.high for s in scores])


def _found(found: Reproduction, arm: Arm) -> Iterator[tuple[str, list[tuple[Record, Measured]]]]:
    for name in found.settings.methods:
        each = [found.of(name, target, arm) for target in found.settings.sparsities]
        at = [pair for pair in each if pair is not None]
        if at:
            yield name, at


def _dense(found: Reproduction) -> Level:
    score = found.score(found.dense.returns)
    return Level(score.mean, score.low, score.high)

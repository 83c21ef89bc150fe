"""Tables of what agents return: by method and sparsity, by single part, and by the policy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from secateur.experiments.tdmpc.reproduction.cost_tables import (
    allocation_table,
    analysis_table,
    distillation_table,
    grouping_table,
    planning_table,
)
from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.records import ARMS, DISTILLED, PLAIN, REFIT, Arm, Measured, Record
from secateur.experiments.tdmpc.reproduction.reproduction import Reproduction
from secateur.experiments.tdmpc.reproduction.runs import PARTS
from secateur.experiments.unreachable import NOT_REACHABLE, reasons
from secateur.report.tables import Table


def arm_name(found: Reproduction, arm: Arm) -> str:
    """What tables and figures call an arm."""
    if arm == DISTILLED:
        return f"with refit and {found.settings.distill:g} s of distillation"
    return "with refit" if arm == REFIT else "without refit"


def arms_of(found: Reproduction) -> list[Arm]:
    """The arms in which something was reached."""
    return [arm for arm in ARMS if any(record.in_arm(arm) is not None for record in found.records)]


def _asked_arms(found: Reproduction) -> list[Arm]:
    """The arms that were run, whatever came of it."""
    arms = arms_of(found)
    missed = {each.refit for each in found.unreachable}
    return [arm for arm in ARMS if arm in arms or (arm.refit in missed and not arm.distilled)]


def percent(fraction: float) -> str:
    """A fraction in three digits."""
    return f"{100 * fraction:.3g} %"


def all_tables(found: Reproduction) -> list[Table]:
    """Every table, in the order of reading."""
    arms = _asked_arms(found)
    tables = [return_table(found, arm) for arm in arms]
    tables += [policy_table(found, arm) for arm in arms]
    tables += [sensitivity_table(found, arm) for arm in (PLAIN, REFIT)]
    tables += [masked_table(found), grouping_table(found), analysis_table(found), allocation_table(found)]
    tables += [distillation_table(found), planning_table(found)]
    tables += [drift_table(found, arm) for arm in arms]
    tables += [error_table(found, arm) for arm in arms]
    tables += [coefficients_table(found, target) for target in found.settings.sparsities]
    return [table for table in tables if table.rows]


def main_tables(found: Reproduction) -> list[Table]:
    """What is shown at the end: returns, the sensitivity with refit, and what planning costs."""
    tables = [return_table(found, arm) for arm in _asked_arms(found)]
    tables += [sensitivity_table(found, REFIT), planning_table(found)]
    return [table for table in tables if table.rows]


def return_table(found: Reproduction, arm: Arm) -> Table:
    """Return with the planner by method and sparsity."""
    how = f"{_how(found, found.settings.episodes)} What is removed is within 1 % of the column, or 2 % for peers."
    note = f"{how}{_masked_note(arm)}{_missing_note(found)}{_missed_note(found, arm)}{_steps_note(found, arm)}"
    dense = str(found.score(found.dense.returns))
    return _by_sparsity(
        found, f"return, {arm_name(found, arm)}", arm, lambda _, m: str(found.score(m.returns)), dense, note
    )


def policy_table(found: Reproduction, arm: Arm) -> Table:
    """Return of the policy alone, on the same seeds."""
    planner, policy = found.score(found.dense.returns), found.score(found.dense.policy)
    matters = "Planning matters here" if planner.low > policy.high else "Planning makes no clear difference here"
    note = f"{matters}: dense, {planner.mean:.0f} with the planner and {policy.mean:.0f} by the policy alone."
    title = f"return of the policy alone, {arm_name(found, arm)}"
    return _by_sparsity(found, title, arm, lambda _, m: str(found.score(m.policy)), str(policy), note)


def error_table(found: Reproduction, arm: Arm) -> Table:
    """Error of rewards, values and actions along rollouts."""
    where = "of an episode that pruning didn't see" if found.unseen_episodes else "of the same episodes, but others"
    note = (
        f"Mean squared error over the variance of the dense model's predictions, on visits {where}; mean of rewards, "
        "values and actions. This is what searches compare candidates by."
    )
    title = f"error of predictions, {arm_name(found, arm)}"
    return _by_sparsity(found, title, arm, lambda _, m: f"{m.error:.2g}", "0", note)


def drift_table(found: Reproduction, arm: Arm) -> Table:
    """How far latent states move from the dense model's at the horizon, and at the end of the open loop."""
    horizon, last = found.horizon, len(found.dense.drift) - 1

    def cell(measured: Measured) -> str:
        near, far = measured.drift[horizon], measured.drift[last]
        return f"{near:.3f} / {far:.3f} ({measured.drift_high[last]:.2f})"

    note = (
        f"Relative L2 over the channels that are kept, open loop, {horizon} and {last} steps ahead; in brackets the "
        f"95th percentile of the starts at {last} steps. The dense row is the dense model's own error: how far it is "
        "from the states that it encodes on the way."
    )
    title = f"latent drift, {arm_name(found, arm)}"
    return _by_sparsity(found, title, arm, lambda _, m: cell(m), cell(found.dense), note)


def sensitivity_table(found: Reproduction, arm: Arm) -> Table:
    """Return when a fraction of one part's channels leaves and all else stays."""
    rows = []
    for part in PARTS:
        records = [r for r in found.parts if r.method == part and r.refit == arm.refit]
        if records:
            cells = [f"{found.score(r.measured.returns)}" for r in records]
            rows.append([part, *cells, f"{records[-1].sparsity:.1%}"])
    levels = found.settings.levels
    columns = ["part", *map(percent, levels), f"of all, at {percent(levels[-1])}" if levels else ""]
    how = _how(found, found.settings.sensitivity_episodes)
    note = f"{how} Last column: what of all parameters the last level removes."
    return Table(f"return with one part alone pruned, {arm_name(found, arm)}", columns, rows, note)


def masked_table(found: Reproduction) -> Table:
    """PyTorch's masks, as in the papers' figure 4."""
    rows = [["PyTorch, ln_structured", *(str(found.score(r.measured.returns)) for r in found.masked)]]
    title = "return with a fraction of the rows of every hidden layer masked, nothing removed"
    columns = ["method", *(percent(r.target) for r in found.masked)]
    return Table(title, columns, rows if found.masked else [], _how(found, found.settings.episodes))


def coefficients_table(found: Reproduction, target: float) -> Table:
    """Pruning coefficient of every group, with refit."""
    found_here = [(name, found.of(name, target, REFIT)) for name in found.settings.methods]
    records = {name: each[0] for name, each in found_here if each is not None}
    groups = list(next(iter(records.values())).coefficients) if records else []
    rows = [[METHODS[name].label, *(f"{r.coefficients[g]:.2f}" for g in groups)] for name, r in records.items()]
    return Table(f"pruning coefficients at {percent(target)}, with refit", ["method", *groups], rows)


def _by_sparsity(
    found: Reproduction, title: str, arm: Arm, cell: Callable[[Record, Measured], str], dense: str, note: str
) -> Table:
    targets = found.settings.sparsities
    rows = [["dense", *(dense for _ in targets)]]
    for name in found.settings.methods:
        cells = [_cell(found, name, target, arm, cell) for target in targets]
        if any(cells):
            rows.append([METHODS[name].label, *cells])
    return Table(title, ["method", *map(percent, targets)], rows if len(rows) > 1 else [], note)


def _cell(found: Reproduction, name: str, target: float, arm: Arm, cell: Callable[[Record, Measured], str]) -> str:
    reached = found.of(name, target, arm)
    if reached is not None:
        return cell(*reached)
    return "" if found.missed(name, target, arm) is None else NOT_REACHABLE


def _missed_note(found: Reproduction, arm: Arm) -> str:
    asked = [(name, target) for name in found.settings.methods for target in found.settings.sparsities]
    missed = [
        (f"{METHODS[name].label} at {percent(target)}", found.missed(name, target, arm)) for name, target in asked
    ]
    return reasons((where, each) for where, each in missed if each is not None)


def _steps_note(found: Reproduction, arm: Arm) -> str:
    steps = [r.distillation.steps for r in found.records if r.distillation is not None]
    return f" {min(steps):,} to {max(steps):,} steps were made in that time." if arm == DISTILLED and steps else ""


def _how(found: Reproduction, episodes: int) -> str:
    return (
        f"Mean ± half the 95 % interval (Student's t) of {episodes} episodes; in brackets the worst, and how many "
        f"failed: returned less than {found.threshold:.0f}, half the dense mean."
    )


def _masked_note(arm: Arm) -> str:
    return " PyTorch's masks remove nothing; the column is what removing the masked rows would give." * (arm == PLAIN)


def _missing_note(found: Reproduction) -> str:
    left_out: Mapping[str, str] = found.missing
    names: Sequence[str] = [METHODS[name].label for name in left_out]
    return f" Not installed, and left out: {', '.join(names)} (pip install 'secateur[peers]')." if names else ""

"""Tables and figures of numbers that are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest

from secateur.experiments.tdmpc.reproduction.analysis import AnalysisRecord
from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.pictures import all_pictures
from secateur.experiments.tdmpc.reproduction.planning import PlanningRecord
from secateur.experiments.tdmpc.reproduction.records import ARMS, DISTILLED, PLAIN, REFIT, Arm, Record
from secateur.experiments.tdmpc.reproduction.reproduction import Reproduction
from secateur.experiments.tdmpc.reproduction.runs import PARTS
from secateur.experiments.tdmpc.reproduction.tables import all_tables, main_tables, policy_table, return_table
from secateur.experiments.unreachable import Unreachable
from secateur.report.tables import Table
from tests.experiments.tdmpc.reproduction.made_up import GROUPS, made_up

FOUND = made_up(sparsities=(0.5, 0.92))


def cells(table: Table, name: str) -> Sequence[str]:
    (row,) = [row for row in table.rows if row[0] == name]
    return row[1:]


def test_records_come_back_from_json_as_they_were() -> None:
    for record in FOUND.records:
        assert Record.from_data(json.loads(json.dumps(asdict(record)))) == record
    planning, analysis = FOUND.planning, FOUND.analysis
    assert PlanningRecord.from_data(json.loads(json.dumps(asdict(planning)))) == planning
    assert AnalysisRecord.from_data(json.loads(json.dumps(asdict(analysis)))) == analysis


def test_records_from_before_steps_were_counted_can_be_read() -> None:
    record, _ = FOUND.of("uniform", 0.5, DISTILLED) or pytest.fail("there is no such run")
    data = json.loads(json.dumps(asdict(record)))
    del data["distillation"]
    assert Record.from_data(data) == replace(record, distillation=None)
    found = Reproduction(**{**FOUND.__dict__, "records": (replace(record, distillation=None),)})
    table = next(table for table in all_tables(found) if table.title == "steps of distillation")
    assert list(cells(table, METHODS["uniform"].label)) == ["not recorded", ""]


def test_the_steps_of_distillation_stand_beside_the_seconds() -> None:
    table = next(table for table in all_tables(FOUND) if table.title == "steps of distillation")
    assert [row[0] for row in table.rows] == [m.label for m in METHODS.values() if m.is_distilled]
    assert list(cells(table, METHODS["uniform"].label)) == ["1,230 in 30.2 s, no gain"] * 2
    assert list(cells(table, METHODS["uniform-latent"].label)) == ["1,240 in 30.2 s"] * 2
    assert "by the clock" in table.note
    last = len(METHODS) - 1  # the made-up steps grow with a method's place
    assert f"1,230 to {1200 + 10 * last:,} steps were made in that time" in return_table(FOUND, DISTILLED).note
    assert "steps were made" not in return_table(FOUND, REFIT).note


def test_the_return_table_has_every_method_of_an_arm() -> None:
    labels = {name: method.label for name, method in METHODS.items()}
    for arm in ARMS:
        there = [label for name, label in labels.items() if arm != DISTILLED or METHODS[name].is_distilled]
        assert [row[0] for row in return_table(FOUND, arm).rows] == ["dense", *there]
    record, measured = FOUND.of("uniform", 0.92, REFIT) or pytest.fail("there is no such run")
    assert cells(return_table(FOUND, REFIT), labels["uniform"])[1] == str(FOUND.score(measured.returns))
    assert record.distilled is not None
    distilled = str(FOUND.score(record.distilled.returns))
    assert cells(return_table(FOUND, DISTILLED), labels["uniform"])[1] == distilled


def test_the_threshold_is_half_the_dense_mean() -> None:
    dense = replace(FOUND.dense, returns=(600.0, 800.0))
    found = Reproduction(**{**FOUND.__dict__, "dense": dense})
    assert found.threshold == 350.0
    assert found.score([349.0, 351.0]).failures == 1
    assert "returned less than 350" in return_table(found, PLAIN).note


@pytest.mark.parametrize(("policy", "words"), [(500.0, "Planning matters here"), (864.0, "makes no clear difference")])
def test_it_says_whether_planning_matters(policy: float, words: str) -> None:
    dense = replace(FOUND.dense, policy=tuple(policy + i for i in range(10)))
    assert words in policy_table(Reproduction(**{**FOUND.__dict__, "dense": dense}), REFIT).note


@pytest.mark.parametrize(
    ("known", "words"), [(True, "of an episode that pruning didn't see"), (False, "of the same episodes")]
)
def test_it_says_what_errors_are_measured_on(known: bool, words: str) -> None:
    found = Reproduction(**{**FOUND.__dict__, "unseen_episodes": known})
    (table,) = [table for table in all_tables(found) if table.title == "error of predictions, with refit"]
    assert words in table.note


def test_a_peer_that_is_not_installed_is_named() -> None:
    found = made_up(missing=("torch-pruning", "torch-pruning-global"), sparsities=(0.5,))
    table = return_table(found, PLAIN)
    assert "Torch-Pruning" not in [row[0] for row in table.rows]
    assert "Not installed, and left out: Torch-Pruning, Torch-Pruning, global (pip install" in table.note


def test_there_is_a_table_for_everything() -> None:
    tables = {table.title: table for table in all_tables(FOUND)}
    assert len(tables) == len(all_tables(FOUND))
    assert {table.title for table in main_tables(FOUND)} < set(tables)
    for arm in ("without refit", "with refit", "with refit and 30 s of distillation"):
        for what in ("return", "return of the policy alone", "latent drift", "error of predictions"):
            assert f"{what}, {arm}" in tables
    sensitivity = tables["return with one part alone pruned, with refit"]
    assert [row[0] for row in sensitivity.rows] == list(PARTS)
    assert list(sensitivity.columns) == ["part", "20 %", "40 %", "60 %", "80 %", "of all, at 80 %"]
    assert list(tables["pruning coefficients at 92 %, with refit"].columns) == ["method", *GROUPS]
    for table in tables.values():
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_costs_are_shown_with_their_units() -> None:
    tables = {table.title: table for table in all_tables(FOUND)}
    planning = tables["cost of planning"]
    dense, pruned = (cells(planning, name) for name in ("dense", "Uniform, latent kept, 92 %"))
    assert (dense[2], dense[4]) == ("1.00", "1.00")
    assert float(pruned[4]) == pytest.approx(1 / (0.1 + 0.9 * 0.08), abs=0.01)
    analysis = tables["cost of the analysis"]
    assert cells(analysis, "scores") == ["0.90", "150"]
    assert cells(analysis, "refit") == ["1.40", "not measured"]
    assert cells(analysis, "all") == ["2.60", ""]
    search = cells(tables["cost of the allocation"], "Sensitivity")
    found, _ = FOUND.of("sensitivity", 0.5, REFIT) or pytest.fail("there is no such run")
    seconds = found.seconds["score"] + found.seconds["allocate"]
    assert search == ["40", f"{seconds:.1f}", "1.3", "30.0", "200"]


def test_all_of_it_is_json() -> None:
    data = json.loads(json.dumps(FOUND.as_data()))
    assert len(data["records"]) == 2 * 2 * len(METHODS)
    assert data["settings"]["episodes"] == 10
    assert data["failed_below"] == FOUND.threshold


def test_figures_are_pictures() -> None:
    pictures = dict(all_pictures(made_up(("ln-structured", "uniform"), sparsities=(0.92,))))
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())
    assert set(pictures) == {
        "returns.png", "episodes-plain.png", "episodes-refit.png", "episodes-distilled.png", "worst.png",
        "sensitivity.png", "masked.png", "policy.png", "drift-0.92.png", "coefficients-0.92.png", "planning.png",
        "analysis.png", "allocation.png",
    }  # fmt: skip


def unreached(found: Reproduction, *names: str, targets: tuple[float, ...] = (0.92,)) -> Reproduction:
    """The same, but that some methods don't reach some sparsities."""
    lost = [r for r in found.records if r.method in names and r.target in targets]
    missed = [Unreachable(method=r.method, target=r.target, refit=r.refit, reason="too much") for r in lost]
    kept = tuple(r for r in found.records if r not in lost)
    return Reproduction(**{**found.__dict__, "records": kept, "unreachable": tuple(missed)})


@pytest.mark.parametrize("arm", ARMS)
def test_what_a_method_does_not_reach_is_said_with_the_reason(arm: Arm) -> None:
    found = unreached(FOUND, "uniform", "tpe")
    table = return_table(found, arm)
    for name in ("uniform", "tpe"):
        at_first, at_second = cells(table, METHODS[name].label)
        assert at_second == "not reachable"
        assert at_first == cells(return_table(FOUND, arm), METHODS[name].label)[0]
        assert f"{METHODS[name].label} at 92 %: too much" in table.note
    assert "not reachable" not in cells(table, METHODS["norm"].label)
    assert cells(policy_table(found, arm), METHODS["tpe"].label)[1] == "not reachable"


def test_a_method_without_distillation_has_no_row_among_the_distilled() -> None:
    labels = [row[0] for row in return_table(unreached(FOUND, "ln-structured"), DISTILLED).rows]
    assert METHODS["ln-structured"].label not in labels


def test_where_nothing_is_reached_there_are_tables_all_the_same() -> None:
    found = unreached(FOUND, *METHODS, targets=(0.5, 0.92))
    assert found.records == ()
    tables = {table.title: table for table in all_tables(found)}
    assert list(cells(tables["return, with refit"], METHODS["tpe"].label)) == ["not reachable"] * 2
    assert "pruning coefficients at 92 %, with refit" not in tables
    assert "returns.png" not in dict(all_pictures(found))


def test_figures_show_what_is_reached() -> None:
    found = unreached(made_up(("ln-structured", "uniform"), sparsities=(0.5, 0.92)), "uniform", "ln-structured")
    pictures = dict(all_pictures(found))
    assert {"returns.png", "coefficients-0.5.png", "drift-0.5.png"} < set(pictures)
    assert not {"coefficients-0.92.png", "drift-0.92.png"} & set(pictures)


def test_what_was_left_out_has_no_table() -> None:
    found = Reproduction(**{**FOUND.__dict__, "parts": (), "masked": ()})
    assert not any("one part alone" in table.title or "masked," in table.title for table in all_tables(found))

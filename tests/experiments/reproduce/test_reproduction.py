"""All of the reproduction on digits, with a model that is hardly trained and searches that are hardly searches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secateur.errors import InfeasibleError
from secateur.experiments.images import Images, load_digits
from secateur.experiments.reproduce import reproduction, runs
from secateur.experiments.reproduce.methods import FINE_TUNED, FINISHES, METHODS, SMALLEST
from secateur.experiments.reproduce.pictures import all_pictures
from secateur.experiments.reproduce.records import Record
from secateur.experiments.reproduce.reproduction import Reproduction, reproduce
from secateur.experiments.reproduce.settings import Settings, Split
from secateur.experiments.reproduce.tables import all_tables, main_tables
from secateur.experiments.unreachable import Unreachable

SETTINGS = Settings(seeds=1, sparsities=(0.6,), methods=tuple(METHODS), epochs=20, evaluations=18)


@pytest.fixture(scope="module")
def images() -> Images:
    return load_digits()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def found(images: Images, out: Path) -> Reproduction:
    return reproduce(images, SETTINGS, out)


def test_searches_see_neither_test_images_nor_those_of_the_calibration(images: Images) -> None:
    split = Split.of(images)
    calibration = sum(len(batch) for batch in split.calibration)
    assert split.calibration[0].data_ptr() == images.train.data_ptr()
    assert split.held_out.data_ptr() == images.train[-400:].data_ptr()
    assert len(split.held_out) == 400
    assert calibration + len(split.held_out) <= len(images.train)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_every_sparsity(found: Reproduction, method: str, refit: bool) -> None:
    for target in SETTINGS.sparsities:
        (record,) = found.of(method=method, refit=refit, target=target)
        assert record.sparsity == pytest.approx(target, abs=0.01 if not method.startswith("torch") else 0.02)
        assert 0 < record.psnr < found.dense[0] + 0.2
        assert (record.tuned is not None) == (refit and method in FINE_TUNED)
        assert set(record.coefficients) == {"encoder.0", "encoder.2", "encoder.4", "decoder.0", "decoder.2"}


def test_refit_repairs_what_pytorch_breaks(found: Reproduction) -> None:
    plain, refitted = (found.of(method="torch-random", refit=refit, target=0.6)[0] for refit in (False, True))
    assert refitted.psnr > plain.psnr + 1
    assert refitted.drift < plain.drift


def test_searches_beat_one_coefficient_for_all(found: Reproduction) -> None:
    def held_out(method: str) -> float:
        return found.of(method=method, refit=True, target=0.6)[0].held_out

    assert max(map(held_out, ("sensitivity", "tpe", "grid"))) >= held_out("uniform")


def test_the_smallest_models_keep_the_psnr(found: Reproduction, images: Images) -> None:
    smallest = [r for r in found.records if r.target is None]
    assert [r.method for r in smallest] == [name for name in METHODS if name in SMALLEST]
    dense = found.of(method="uniform", refit=True, target=0.6)[0].held_out
    for record in smallest:
        assert record.held_out > dense - SETTINGS.drop - 0.3
        assert record.sparsity > 0.3
    assert [(f.record.method, f.is_tuned) for f in found.smallest] == list(FINISHES)
    for finished in found.smallest:
        after = finished.record.tuned_held_out if finished.is_tuned else finished.record.held_out
        assert after is not None
        assert after > dense - SETTINGS.drop - 0.3
        assert finished.record.sparsity > 0.3
    refitted, tuned, _ = found.smallest
    assert tuned.record.sparsity >= refitted.record.sparsity


def test_nothing_is_run_twice(found: Reproduction, images: Images, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: object, **_settings: object) -> Record:
        raise AssertionError("this run is known")

    monkeypatch.setattr(reproduction, "run", never)
    assert reproduce(images, SETTINGS, out).records == found.records


def test_what_was_stopped_goes_on(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(seeds=1, sparsities=(0.3,), methods=("torch-l2", "uniform"), epochs=1, fine_tune=0)
    real, done = runs.run, 0

    def stops(*arguments: object, **more: object) -> Record:
        nonlocal done
        if done == 3:
            raise KeyboardInterrupt
        done += 1
        return real(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(reproduction, "run", stops)
    with pytest.raises(KeyboardInterrupt):
        reproduce(images, settings, tmp_path)
    done = 2
    assert len(reproduce(images, settings, tmp_path).records) == 4
    assert done == 3


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, found: Reproduction) -> list[Any]:
    """Runs take no time and reach any sparsity up to 0.7, but the smallest model of no seed; the runs that are made."""
    (some,) = found.of(method="uniform", refit=True, target=0.6)
    made: list[Any] = []

    def run(dense: runs.Dense, method: str, rho: float | None, settings: Settings, *, refit: bool, **_: Any) -> Record:
        made.append((dense.seed, method, rho, refit))
        if rho is None or rho > 0.7:
            raise InfeasibleError(f"{rho} can't be met")
        return replace(some, method=method, seed=dense.seed, refit=refit, target=rho, sparsity=rho, held_out=99.0)

    monkeypatch.setattr(reproduction, "run", run)
    return made


QUICK = Settings(seeds=2, sparsities=(0.5, 0.9), methods=("torch-l2", "sensitivity"), epochs=1, fine_tune=0)


def test_a_sparsity_that_a_method_cannot_reach_is_a_result_like_others(
    images: Images, tmp_path: Path, limited: list[Any]
) -> None:
    partly = reproduce(images, QUICK, tmp_path)
    assert {r.target for r in partly.records} == {0.5}
    assert {m.target for m in partly.unreachable} == {0.9, None}
    data = json.loads(json.dumps(partly.as_data()))["unreachable"]
    assert data[0] == {"method": "torch-l2", "target": 0.9, "refit": False, "reason": "0.9 can't be met", "seed": 0}
    tables = {table.title: table for table in all_tables(partly)}
    psnr = tables["PSNR, dB, with refit"]
    assert [row[2] for row in psnr.rows[1:]] == ["not reachable"] * 2
    assert psnr.note == "Not reachable: PyTorch, L2 at 90%: 0.9 can't be met; Sensitivity at 90%: 0.9 can't be met."
    assert not any(title.startswith("pruning coefficients at 90%") for title in tables)
    smallest = next(table for title, table in tables.items() if title.startswith("smallest model"))
    assert list(smallest.rows[0]) == ["Sensitivity", "not reachable", "", ""]
    assert {"psnr-with-refit.png", "coefficients-with-refit.png", "cost.png"} <= set(dict(all_pictures(partly)))
    before = len(limited)
    assert reproduce(images, QUICK, tmp_path).unreachable == partly.unreachable
    assert len(limited) == before  # that it can't be reached is kept, too


def test_the_smallest_model_is_looked_for_where_it_can_be_reached(
    images: Images, tmp_path: Path, limited: list[Any]
) -> None:
    for finished in reproduce(images, QUICK, tmp_path).smallest:
        assert 0.68 < finished.record.sparsity <= 0.7
    assert max(rho for _, _, rho, _ in limited if rho is not None) > 0.7


def test_where_nothing_is_reached_there_are_tables_all_the_same(
    images: Images, tmp_path: Path, limited: list[Any]
) -> None:
    none = reproduce(images, replace(QUICK, seeds=1, sparsities=(0.9,)), tmp_path)
    assert limited
    tables = {table.title: table for table in all_tables(none)}
    assert [row[1] for row in tables["PSNR, dB, without refit"].rows[1:]] == ["not reachable"] * 2
    assert dict(all_pictures(none)) == {}


def test_some_seeds_may_miss_what_others_reach(images: Images, tmp_path: Path, limited: list[Any]) -> None:
    partly = reproduce(images, QUICK, tmp_path)
    assert limited
    lost = partly.records[0]
    missed = Unreachable(method=lost.method, target=lost.target, refit=lost.refit, seed=lost.seed, reason="too much")
    found = replace(partly, records=partly.records[1:], unreachable=(*partly.unreachable, missed))
    (table,) = [table for table in all_tables(found) if table.title == "PSNR, dB, without refit"]
    row = next(row for row in table.rows if row[0] == METHODS[lost.method].label)
    assert row[1] == f"{lost.psnr:.2f}, 1 of 2 seeds"
    assert f"{METHODS[lost.method].label} at 50%: too much" in table.note


def test_tables_hold_every_method_at_every_sparsity(found: Reproduction) -> None:
    tables = {table.title: table for table in all_tables(found)}
    assert len(main_tables(found)) < len(tables)
    psnr = tables["PSNR, dB, with refit"]
    assert list(psnr.columns) == ["method", "60%"]
    assert [row[0] for row in psnr.rows] == ["dense", *(method.label for method in METHODS.values())]
    (record,) = found.of(method="uniform", refit=True, target=0.6)
    row = next(row for row in psnr.rows if row[0] == "Uniform")
    assert row[1] == f"{record.psnr:.2f}"
    assert any(title.startswith("pruning coefficients at 60%, without") for title in tables)
    assert any(title.startswith("latent drift") for title in tables)
    assert "| Uniform |" in psnr.as_markdown()
    assert "| --- | ---: |" in psnr.as_markdown()


def test_figures_are_pictures(found: Reproduction) -> None:
    pictures = dict(all_pictures(found))
    assert len(pictures) == 10
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())
    assert {"reconstructions-without-refit.png", "psnr-fine-tuned.png", "cost.png"} <= set(pictures)


def test_results_as_data(found: Reproduction) -> None:
    data = json.loads(json.dumps(found.as_data()))
    assert len(data["records"]) == 2 * len(METHODS) + len(SMALLEST)
    assert data["dataset"] == "digits"

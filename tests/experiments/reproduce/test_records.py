from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from secateur.errors import StorageError
from secateur.experiments.reproduce.records import Cache, Record

RECORD = Record(
    method="uniform", seed=0, refit=True, target=0.5, sparsity=0.501, psnr=20.0, held_out=20.5, tuned=21.0,
    tuned_held_out=21.5, drift=0.1, similarity=0.9, coefficients={"encoder.0": 0.25}, evaluations=3, seconds=1.5,
    drawn="00ff",
)  # fmt: skip


def never() -> Record:
    raise AssertionError("this run is known")


def test_a_run_is_made_once_and_read_back_equal(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "runs")
    assert cache.get("a", {"target": 0.5}, lambda: RECORD) == RECORD
    assert cache.get("a", {"target": 0.5}, never) == RECORD


def test_other_settings_are_never_mixed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.get("a", {"epochs": 1}, lambda: RECORD)
    other = replace(RECORD, psnr=5.0)
    assert cache.get("a", {"epochs": 2}, lambda: other) == other
    assert cache.get("a", {"epochs": 1}, never) == RECORD


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(AssertionError):
        cache.get("a", {}, never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", '{"record": {"method": "x"}}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    cache = Cache(tmp_path)
    cache.get("a", {}, lambda: RECORD)
    (file,) = tmp_path.iterdir()
    file.write_text(content, encoding="utf-8")
    with pytest.raises(StorageError, match=r"a-[0-9a-f]{10}\.json can't be read: .*; delete it to run again"):
        cache.get("a", {}, never)


def test_data_for_people_leaves_the_pixels_out() -> None:
    data = RECORD.as_data()
    assert "drawn" not in data
    assert data["coefficients"] == {"encoder.0": 0.25}

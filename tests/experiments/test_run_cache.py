from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from secateur.errors import StorageError
from secateur.experiments.run_cache import RunCache


@dataclass(frozen=True)
class Score:
    values: tuple[float, ...]
    seconds: float


SCORE = Score((1.5, 2.5), 0.25)


def read(data: Mapping[str, Any]) -> Score:
    return Score(**{**data, "values": tuple(data["values"])})


def never() -> Score:
    raise AssertionError("this run is known")


def test_a_run_is_made_once_and_read_back_equal(tmp_path: Path) -> None:
    cache = RunCache(tmp_path / "runs", read)
    assert cache.get("a", {"target": 0.5}, lambda: SCORE) == SCORE
    assert cache.get("a", {"target": 0.5}, never) == SCORE


def test_other_settings_are_never_mixed(tmp_path: Path) -> None:
    cache = RunCache(tmp_path, read)
    cache.get("a", {"epochs": 1}, lambda: SCORE)
    other = replace(SCORE, seconds=5.0)
    assert cache.get("a", {"epochs": 2}, lambda: other) == other
    assert cache.get("a", {"epochs": 1}, never) == SCORE


def test_the_order_of_settings_makes_no_difference(tmp_path: Path) -> None:
    cache = RunCache(tmp_path, read)
    cache.get("a", {"epochs": 1, "seed": 2}, lambda: SCORE)
    assert cache.get("a", {"seed": 2, "epochs": 1}, never) == SCORE


def test_files_of_earlier_versions_are_found_by_the_same_name(tmp_path: Path) -> None:
    RunCache(tmp_path, read).get("seed-0", {"target": 0.5, "refit": True}, lambda: SCORE)
    assert [file.name for file in tmp_path.iterdir()] == ["seed-0-5b28a35587.json"]


def test_a_run_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = RunCache(tmp_path, read)
    with pytest.raises(AssertionError):
        cache.get("a", {}, never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}", '{"record": {"seconds": 1}}', '{"record": {"values": [], "x": 1}}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    cache = RunCache(tmp_path, read)
    cache.get("a", {}, lambda: SCORE)
    (file,) = tmp_path.iterdir()
    file.write_text(content, encoding="utf-8")
    with pytest.raises(StorageError, match=r"a-[0-9a-f]{10}\.json can't be read: .*; delete it to run again"):
        cache.get("a", {}, never)

from __future__ import annotations

from pathlib import Path

from secateur.experiments.reproduce.records import Record
from secateur.experiments.run_cache import RunCache

RECORD = Record(
    method="uniform", seed=0, refit=True, target=0.5, sparsity=0.501, psnr=20.0, held_out=20.5, tuned=21.0,
    tuned_held_out=21.5, drift=0.1, similarity=0.9, coefficients={"encoder.0": 0.25}, evaluations=3, seconds=1.5,
    drawn="00ff",
)  # fmt: skip


def test_a_record_is_kept_whole(tmp_path: Path) -> None:
    def never() -> Record:
        raise AssertionError("this run is known")

    cache = RunCache(tmp_path, Record.from_data)
    cache.get("a", {}, lambda: RECORD)
    assert cache.get("a", {}, never) == RECORD


def test_data_for_people_leaves_the_pixels_out() -> None:
    data = RECORD.as_data()
    assert "drawn" not in data
    assert data["coefficients"] == {"encoder.0": 0.25}

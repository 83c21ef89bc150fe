from __future__ import annotations

from pathlib import Path

import pytest

from secateur.errors import StorageError
from secateur.report.files import write_whole


def test_writes_makes_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "result.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_whole(path, "text, not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/result\.json can't be written: (Not a directory|File exists)"):
        write_whole(tmp_path / "file" / "result.json", b"")


def test_others_may_read_what_the_umask_allows(tmp_path: Path) -> None:
    write_whole(tmp_path / "mine.txt", b"")
    (tmp_path / "plain.txt").touch()
    assert (tmp_path / "mine.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode

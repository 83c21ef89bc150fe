"""A PostgreSQL server for the tests that need a real one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A URL of a server of its own, reached through a Unix socket."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed; Debian has it as the package postgresql")
    # Short, because the path of a Unix socket can't be long; outside of pytest's own folders, which are private.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    owner = _owner(folder)
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "tester", "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        **owner,
    )
    options = ["-D", str(data), "-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
    with (folder / "log").open("w") as log:
        server: subprocess.Popen[bytes] = subprocess.Popen(
            [str(programs / "postgres"), *options], stdout=log, stderr=log, cwd=folder, **owner
        )
    try:
        _wait(server, folder)
        yield f"postgresql+psycopg://tester@/postgres?host={folder}"
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """The folder with initdb and postgres."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(found) if (folder / "postgres").exists()), None)


def _owner(folder: Path) -> dict[str, Any]:
    """The server refuses to run as root: the folder and the processes then belong to nobody."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _wait(server: subprocess.Popen[bytes], folder: Path) -> None:
    log = folder / "log"
    for _ in range(600):
        if "ready to accept connections" in log.read_text():
            return
        assert server.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())

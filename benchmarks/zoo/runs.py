"""Running cases, and what was found about them, on disk: a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .catalogue import FAMILIES
from .entry import Entry
from .libraries import MODULES, library_called
from .worker import file_of

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_JUDGES = ("case", "checks", "entry", "heads", "libraries", "matching", "measure", "structure")
"""The modules that decide what a case is and how it is judged, beside the library's and the family's own."""


class Results:
    """Records of cases, each for one version of its library and of the zoo."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._versions: dict[tuple[str, str], str] = {}

    def folder_of(self, entry: Entry, library: str) -> Path:
        """Where this entry's case is kept."""
        key = (library, entry.family)
        if key not in self._versions:
            self._versions[key] = f"{library_called(library).version()}-{_judged_by(library, entry.family)}"
        return self._folder / library / self._versions[key]

    def read(self, entry: Entry, library: str) -> dict[str, Any] | None:
        """The record of a case that has ended, if there is one."""
        file = file_of(self.folder_of(entry, library), entry.name)
        record: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        return record if record is not None and "fully_ok" in record else None


def run_missing(entries: list[Entry], library: str, results: Results, jobs: int) -> Iterator[dict[str, Any]]:
    """Run the cases that there is no record of, family by family; gives each record as it is made."""
    missing = [entry for entry in entries if results.read(entry, library) is None]
    batches = [[entry for entry in missing if entry.family == family] for family in FAMILIES]
    with ThreadPoolExecutor(jobs) as pool:
        for records in pool.map(lambda batch: list(_run(batch, library, results)), filter(None, batches)):
            yield from records


def _run(batch: list[Entry], library: str, results: Results) -> Iterator[dict[str, Any]]:
    """A family's cases in one worker; says a line for each."""
    folder = results.folder_of(batch[0], library)
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {entry.name: entry for entry in batch}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "benchmarks.zoo.worker", library, str(folder), *by_name]
    with (
        (folder / f"{batch[0].family}.log").open("w") as log,
        subprocess.Popen(
            command, cwd=_ROOT, env=os.environ | threads | quiet, stdout=subprocess.PIPE, stderr=log, text=True
        ) as worker,
    ):
        assert worker.stdout is not None
        for line in worker.stdout:
            entry = by_name.get(line.strip())
            record = entry and results.read(entry, library)
            if record:
                print(_line(record), flush=True)
                yield record
    if worker.returncode:
        print(f"the worker of {batch[0].family} ended with status {worker.returncode}; see {log.name}", flush=True)


def _line(record: dict[str, Any]) -> str:
    failed = [f"{name}: {check['text']}" for name, check in record["checks"].items() if check["passed"] is False]
    figures = f"{record['seconds']:6.2f} s {record['removed']:6.1%}" if "removed" in record else " " * 15
    verdict = "ok" if record["fully_ok"] else "; ".join(failed)
    return f"{record['library']:13} {record['model']:44} {figures}  {verdict}"[:220]


def _judged_by(library: str, family: str) -> str:
    source = hashlib.sha256()
    for file in (*(_HERE / f"{name}.py" for name in (*_JUDGES, MODULES[library])), _HERE / "models" / f"{family}.py"):
        source.update(file.read_bytes())
    return source.hexdigest()[:8]

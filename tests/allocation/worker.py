"""A search that can be run in a process of its own, to be killed there: ``python -m tests.allocation.worker ...``.

Every line of the log is a process id, ``ready``, ``begin`` or ``end``, and the candidate's parameters per layer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import secateur
from secateur.allocation import AllocationResult, BlackBox, Search, Sparsity, allocate, study_ledger
from tests.handmade import Chain

ROOT = Path(__file__).parent.parent.parent
EVALUATIONS = 16


@dataclass(frozen=True)
class Logged:
    """How well a model keeps its outputs, with a log of what was measured.

    Attributes:
        inputs: shape (rows, features).
        targets: the dense model's outputs for them.
        log: the file.
        seconds: that measuring takes.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    log: Path
    seconds: float

    def __call__(self, model: nn.Module) -> float:
        self._write("begin", model)
        time.sleep(self.seconds)
        with torch.no_grad():
            value = -float((model(self.inputs) - self.targets).square().mean())
        self._write("end", model)
        return value

    def _write(self, event: str, model: nn.Module) -> None:
        write(self.log, event, ",".join(str(p.numel()) for p in model.parameters()))


def search(
    log: Path, storage: str | Path | None, *, seconds: float = 0.0, batch: int = 1, jobs: int = 1, grace: int = 60
) -> AllocationResult:
    """The same search each time."""
    torch.manual_seed(0)
    model, inputs = Chain([12, 24, 20, 16, 12]), torch.randn(64, 12)
    graph = secateur.trace(model, inputs)
    with torch.no_grad():
        objective = Logged(inputs, model(inputs), log, seconds)
    return allocate(
        graph,
        secateur.importance.Magnitude()(graph, model),
        Sparsity(0.5, tolerance=0.02),
        strategy=BlackBox(evaluations=EVALUATIONS, batch=batch),
        model=model,
        objective=objective,
        search=Search(storage=storage, jobs=jobs, grace=grace),
    )


def summary(result: AllocationResult) -> dict[str, object]:
    """What two runs of a search must agree on."""
    assert result.best is not None
    return {
        "kept": dict(result.kept),
        "objective": result.best.objective,
        "history": [[list(e.kept.values()), e.objective] for e in result.history],
    }


class Process:
    """A search in a process of its own."""

    def __init__(self, log: Path, storage: str | Path, **options: float | bool) -> None:
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.allocation.worker", str(log), str(storage), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, event: str, count: int) -> None:
        """Until this process has logged so many events."""
        for _ in range(1200):
            if sum(line.startswith(f"{self.process.pid} {event}") for line in lines(self.log)) >= count:
                return
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.05)
        raise AssertionError(f"no {count} events {event!r} after a minute")

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is tidied up."""
        self.process.kill()
        self.process.communicate()

    def summary(self) -> dict[str, object]:
        """What it found, once it has ended."""
        out, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        found: dict[str, object] = json.loads(out)
        return found


def write(log: Path, event: str, what: str) -> None:
    """One line; in append mode it is never torn, even when several processes write."""
    with log.open("a") as file:
        file.write(f"{os.getpid()} {event} {what}\n")


def begin_together(log: Path, processes: int) -> None:
    """Wait until so many processes are here."""
    write(log, "ready", "-")
    while sum(line.split()[1] == "ready" for line in lines(log)) < processes:
        time.sleep(0.01)


def lines(log: Path) -> list[str]:
    """The whole lines of a log."""
    return log.read_text().splitlines() if log.exists() else []


def ended(log: Path) -> Counter[str]:
    """How often each candidate was measured to the end."""
    return Counter(line.split()[2] for line in lines(log) if line.split()[1] == "end")


def workers(log: Path) -> set[str]:
    """The processes that measured a candidate to the end."""
    return {line.split()[0] for line in lines(log) if line.split()[1] == "end"}


def main() -> None:
    """Search, and print the summary."""
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("storage")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--grace", type=int, default=60)
    parser.add_argument("--together", type=int, default=1, help="processes that begin at the same time")
    parser.add_argument("--blind", default="False", help="as if it were on another machine than the others")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.blind == "True":
        study_ledger.has_ended = lambda process: False  # type: ignore[attr-defined]
    begin_together(given.log, given.together)
    result = search(given.log, given.storage, seconds=given.seconds, batch=given.batch, grace=given.grace)
    print(json.dumps(summary(result)))


if __name__ == "__main__":
    main()

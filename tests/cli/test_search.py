from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.outcome import CommandLine, assert_one_line

STUDY = ("--storage", "s.db", "--study", "a")
PRUNE = (
    "prune", "shop:trained", "--calibration", "inputs", "--maximize", "quality", "--strategy", "black-box",
    "--evaluations", "8", *STUDY,
)  # fmt: skip


def calls() -> int:
    """How often the metric has been called."""
    return len(Path("calls").read_text(encoding="utf-8"))


def coefficients(folder: str) -> dict[str, float]:
    found: dict[str, float] = json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))["coefficients"]
    return found


@pytest.fixture
def interrupted(secateur: CommandLine) -> CommandLine:
    """The command line, after a search of eight candidates was interrupted while it measured the fourth."""
    Path("stop").write_text("4", encoding="utf-8")
    assert secateur(*PRUNE).status == 130
    Path("stop").unlink()
    assert calls() == 5  # the dense model first
    return secateur


def test_a_worker_completes_an_interrupted_search(interrupted: CommandLine) -> None:
    outcome = interrupted("search", "worker", *STUDY)
    assert outcome.status == 0, outcome.err
    assert "study a is complete: 8 candidates, best -0." in outcome.out
    assert "8/8" in outcome.err
    # Three were known, five are measured, and the dense and the finished model.
    assert calls() == 5 + 5 + 2
    assert interrupted(*PRUNE).status == 0
    assert calls() == 12 + 2
    assert interrupted(*PRUNE[:-4], "--out", "alone").status == 0
    assert coefficients("pruned") == coefficients("alone")


def test_workers_in_other_processes_share_the_work(interrupted: CommandLine) -> None:
    words = [sys.executable, "-m", "secateur", "search", "worker", *STUDY]
    workers = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
        assert "study a is complete: 8 candidates" in out
    assert calls() == 5 + 5 + 2 * 2


def test_status_lists_searches(interrupted: CommandLine) -> None:
    assert interrupted(*PRUNE[:-1], "b").status == 0
    outcome = interrupted("search", "status", "--storage", "s.db", "--json", "status.json")
    assert outcome.status == 0, outcome.err
    lines = {line.split()[0]: line for line in outcome.out.splitlines() if line[:1] in ("a", "b")}
    assert lines["a"].split()[1] == "3"
    assert lines["b"].split()[1] == "8"
    data = json.loads(Path("status.json").read_text(encoding="utf-8"))
    assert [study["name"] for study in data] == ["a", "b"]
    assert data[1]["best"] == pytest.approx(max(e["objective"] for e in json.loads(
        Path("pruned/result.json").read_text(encoding="utf-8"))["history"]))  # fmt: skip
    one = interrupted("search", "status", "--storage", "s.db", "--study", "a")
    assert "b " not in one.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["worker", "--storage", "s.db"], ["--study"]),
        (["worker", *STUDY], ["s.db"]),
        (["worker", "--storage", "nowhere://x", "--study", "a"], ["nowhere"]),
        (["status"], ["--storage"]),
        (["status", *STUDY], ["s.db"]),
        (["stop"], ["No such command 'stop'"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(secateur: CommandLine, arguments: list[str], words: list[str]) -> None:
    assert_one_line(secateur("search", *arguments), 2, *words)


def test_a_worker_says_when_the_factory_is_not_here(interrupted: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("elsewhere").mkdir()
    here = Path.cwd()
    monkeypatch.chdir("elsewhere")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry) != here])
    sys.modules.pop("shop")
    outcome = interrupted("search", "worker", "--storage", str(here / "s.db"), "--study", "a")
    assert_one_line(outcome, 2, "shop can't be imported")


def test_help_teaches(secateur: CommandLine) -> None:
    for words in ((), ("--help",)):
        outcome = secateur("search", *words)
        assert outcome.status == 0
        assert "worker" in outcome.out
        assert outcome.err == ""
    outcome = secateur("search", "worker", "--help")
    assert outcome.out.count("secateur search worker ") >= 2


def test_an_unknown_study_is_named(interrupted: CommandLine) -> None:
    for command in ("worker", "status"):
        assert_one_line(
            interrupted("search", command, "--storage", "s.db", "--study", "c"), 2, "no search is called 'c'"
        )

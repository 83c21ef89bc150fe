"""One run of the command line, and what every wrong one must look like."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Outcome(NamedTuple):
    """What a run left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


class CommandLine(Protocol):
    """Runs ``secateur`` with these arguments."""

    def __call__(self, *arguments: str) -> Outcome: ...


def assert_one_line(outcome: Outcome, status: int, *words: str) -> None:
    """One clear line on stderr, and nothing but it."""
    assert outcome.status == status
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("secateur: error: ")
    for word in words:
        assert word in outcome.err

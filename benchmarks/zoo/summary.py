"""What all records say together."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

from .case import CHECKS
from .catalogue import FAMILIES
from .worker import UNFINISHED

Record = dict[str, Any]


def summary(records: dict[str, list[Record]]) -> dict[str, Any]:
    """Shares, medians and extremes of every library, and both held against each other."""
    both = _both_pruned(records)
    return {
        "libraries": {name: _of_library(found) for name, found in records.items()},
        "families": {
            name: {family: _share([r for r in found if r["family"] == family]) for family in FAMILIES}
            for name, found in records.items()
        },
        "ratio": _ratio(both),
        "ratio_where_ok": _ratio([pair for pair in both if all(r["fully_ok"] for r in pair)]),
        "missing_rules": Counter(rule for r in records.get("secateur", []) for rule in set(r.get("missing_rules", ()))),
    }


def failures(record: Record) -> list[str]:
    """The checks that a record's model didn't pass."""
    return [name for name, check in record["checks"].items() if check["passed"] is False]


def over_forward(record: Record) -> float | None:
    """Peak memory over that of a plain forward pass, MiB."""
    if "peak" not in record or "forward" not in record:
        return None
    return float(record["peak"] - record["forward"]["peak"])


def _share(found: list[Record]) -> tuple[int, int]:
    return sum(r["fully_ok"] for r in found), len(found)


def _of_library(found: list[Record]) -> dict[str, Any]:
    runs = [r for r in found if r["checks"].get("runs", {}).get("passed")]
    seconds = [r["seconds"] for r in runs]
    memory = [over for r in runs if (over := over_forward(r)) is not None]
    return {
        "models": len(found),
        "fully_ok": sum(r["fully_ok"] for r in found),
        "runs": len(runs),
        "runs_patched": len(runs) + sum(bool(r.get("runs_patched")) for r in found),
        "passed": {name: _answers(found, name) for name in CHECKS},
        "median_seconds": statistics.median(seconds) if seconds else None,
        "most_seconds": max(seconds, default=None),
        "median_memory": statistics.median(memory) if memory else None,
        "most_memory": max(memory, default=None),
        "median_removed": statistics.median(r["removed"] for r in runs) if runs else None,
        "unfinished": [r["model"] for r in found if _ending(r).startswith(UNFINISHED)],
        "out_of_memory": sum("MemoryError" in _ending(r) or "allocate memory" in _ending(r) for r in found),
    }


def _ending(record: Record) -> str:
    return str(record["checks"].get("runs", {}).get("text", ""))


def _answers(found: list[Record], name: str) -> dict[str, int]:
    """How many passed, failed, and how many of those that got so far the question didn't apply to."""
    answers = [r["checks"][name]["passed"] for r in found if name in r["checks"]]
    return {"passed": answers.count(True), "failed": answers.count(False), "not applicable": answers.count(None)}


def _both_pruned(records: dict[str, list[Record]]) -> list[tuple[Record, Record]]:
    """The models that both libraries pruned and that still run."""
    ours, theirs = ({r["model"]: r for r in records.get(n, [])} for n in ("secateur", "torch-pruning"))
    pairs = [(ours[model], theirs[model]) for model in ours if model in theirs]
    return [pair for pair in pairs if all(r["checks"].get("runs", {}).get("passed") for r in pair)]


def _ratio(both: list[tuple[Record, Record]]) -> dict[str, Any]:
    """Seconds of Secateur over Torch-Pruning's, over the models that both ran."""
    if not both:
        return {"models": 0}
    ours, theirs = ([pair[i]["seconds"] for pair in both] for i in (0, 1))
    return {
        "models": len(both),
        "of_medians": statistics.median(ours) / statistics.median(theirs),
        "median_of_ratios": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
    }

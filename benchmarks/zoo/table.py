"""The summary as text for the terminal and as a page for the documentation."""

from __future__ import annotations

from typing import Any

from .case import CHECKS
from .summary import Record, failures, over_forward


def as_text(found: dict[str, Any], records: dict[str, list[Record]]) -> str:
    """A few lines per library, and every model of Secateur's that isn't fully OK, with its cause."""
    lines = [line for name in records for line in _library_lines(name, found["libraries"][name])]
    ratio = found["ratio"]
    if ratio["models"]:
        lines.append(
            f"seconds, Secateur over Torch-Pruning: {ratio['of_medians']:.2f} of the medians, "
            f"{ratio['median_of_ratios']:.2f} in the median, over the {ratio['models']} models that both ran"
        )
    if "secateur" in records:
        rules = ", ".join(f"{rule} ({count})" for rule, count in found["missing_rules"].most_common())
        lines += [f"operators without a rule: {rules or 'none'}", ""]
        lines += [f"{r['model']}: {cause(r)}" for r in records["secateur"] if not r["fully_ok"]]
    return "\n".join(lines)


def cause(record: Record) -> str:
    """Why a case isn't fully OK: what failed, and if too little was removed, the reason that most axes gave."""
    parts = [f"{name}: {record['checks'][name]['text']}" for name in failures(record)]
    if "enough" in failures(record) and record.get("reasons"):
        parts.append("; ".join(f"{reason} ({count})" for reason, count in record["reasons"][:2]))
    return "; ".join(parts) or "not all checks were reached"


def as_markdown(found: dict[str, Any], records: dict[str, list[Record]]) -> str:
    """The page: how to run it, the summary, each model, and Secateur's failures."""
    parts = [_INTRODUCTION, _summary_table(found), _family_table(found), _ratio_line(found)]
    if "secateur" in records:
        parts += [_failures(records["secateur"]), _rules(found)]
    return "\n\n".join([*parts, _models_table(records)]) + "\n"


_INTRODUCTION = """# The zoo

Other people's models, built from configs with random weights at reduced sizes, pruned to half their channels by
Secateur and by [Torch-Pruning](https://github.com/VainF/Torch-Pruning). Secateur is given the model and its inputs;
Torch-Pruning is also given the head counts, the output layers to ignore and the pieces of fused layers, as in its own
examples. Each case runs in a process of its own, on one thread, for at most 120 s and in at most 10 GiB of address
space.

    sh benchmarks/zoo/setup.sh zoo-venv
    zoo-venv/bin/python -m benchmarks.zoo --table docs/zoo.md

Every case answers these questions; a case is fully OK if no answer is no:

- runs: it was pruned, and a forward pass of the smaller model works;
- shapes: its outputs have the dense model's shapes and are finite;
- equal: it equals the dense model with the removed channels masked, where nothing mixes them (float64);
- ties: parameters that were one still are;
- heads: every attention head is a part of one dense head, the same for queries and keys;
- training: a backward pass reaches the same parameters, and an optimiser step changes them;
- again: the smaller model can be pruned once more;
- saved: saved and loaded again, it gives the same outputs;
- enough: at least a quarter of the parameters is gone, half of what half the channels stand for;
- told: if not, a warning says so.

"Seconds" are those of trace, scores, plan and apply, or of the peer's building and pruning, without imports: by the
clock, the least of five runs (one, if it takes longer than 3 s); both change the model in place. "Memory" is the first
run's peak over that of a plain forward pass."""


def _library_lines(name: str, of: dict[str, Any]) -> list[str]:
    lines = [f"{name}: {of['fully_ok']} of {of['models']} fully OK, {of['runs']} run"]
    if of["runs_patched"] > of["runs"]:
        lines[0] += f" ({of['runs_patched']} after correcting attributes by hand)"
    if of["runs"]:
        lines.append(
            f"  median {of['median_seconds']:.2f} s, at most {of['most_seconds']:.1f} s; memory over a forward pass: "
            f"median {of['median_memory']:.0f} MiB, at most {of['most_memory']:.0f} MiB; "
            f"median {of['median_removed']:.0%} removed"
        )
    failed = ", ".join(f"{check} {counts['failed']}" for check, counts in of["passed"].items() if counts["failed"])
    return [*lines, f"  failed: {failed or 'nothing'}"]


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _table(header: list[str], rows: list[list[object]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join([_row(*header), _row(*rule), *(_row(*row) for row in rows)])


def _figure(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def _summary_table(found: dict[str, Any]) -> str:
    of = found["libraries"]
    rows: list[list[object]] = [
        ["models", *(o["models"] for o in of.values())],
        ["fully OK", *(f"{o['fully_ok']} ({o['fully_ok'] / max(o['models'], 1):.1%})" for o in of.values())],
        ["run", *(o["runs"] for o in of.values())],
        ["run after correcting attributes by hand", *(o["runs_patched"] for o in of.values())],
        *(
            [f"{check}: no", *(o["passed"][check]["failed"] for o in of.values())]
            for check in CHECKS
            if check != "runs"
        ),
        ["not finished in 120 s", *(len(o["unfinished"]) for o in of.values())],
        ["out of memory", *(o["out_of_memory"] for o in of.values())],
        ["seconds, median", *(_figure(o["median_seconds"], "{:.2f}") for o in of.values())],
        ["seconds, most", *(_figure(o["most_seconds"], "{:.1f}") for o in of.values())],
        ["memory, median, MiB", *(_figure(o["median_memory"], "{:.0f}") for o in of.values())],
        ["memory, most, MiB", *(_figure(o["most_memory"], "{:.0f}") for o in of.values())],
        ["parameters removed, median", *(_figure(o["median_removed"], "{:.0%}") for o in of.values())],
    ]
    return "## Summary\n\n" + _table(["", *of], rows)


def _family_table(found: dict[str, Any]) -> str:
    families = found["families"]
    names = list(next(iter(families.values())))
    rows: list[list[object]] = [
        [name, *(f"{ok} of {count}" for ok, count in (of[name] for of in families.values()))] for name in names
    ]
    return "Fully OK by family:\n\n" + _table(["family", *families], rows)


def _ratio_line(found: dict[str, Any]) -> str:
    ratio = found["ratio"]
    right = found["ratio_where_ok"]
    if not right["models"]:
        return ""
    return (
        f"Over the {ratio['models']} models that both ran, Secateur's median time is {ratio['of_medians']:.2f} of "
        f"Torch-Pruning's; model by model the ratio is {ratio['median_of_ratios']:.2f} in the median. Over the "
        f"{right['models']} for which both are fully OK, {right['of_medians']:.2f} and "
        f"{right['median_of_ratios']:.2f}. "
        "(A model that it leaves whole, as it does some, takes it no time.)"
    )


def _failures(records: list[Record]) -> str:
    rows: list[list[object]] = [[r["model"], cause(r)[:400].replace("|", "\\|")] for r in records if not r["fully_ok"]]
    return "## Where Secateur isn't fully OK\n\n" + (_table(["model", "cause"], rows) if rows else "Nowhere.")


def _rules(found: dict[str, Any]) -> str:
    rows: list[list[object]] = [[f"`{rule}`", count] for rule, count in found["missing_rules"].most_common()]
    heading = "## Operators without a rule, and how many models met them\n\n"
    return heading + (_table(["operator", "models"], rows) if rows else "None.")


def _models_table(records: dict[str, list[Record]]) -> str:
    by_model: dict[str, dict[str, Record]] = {}
    for name, found in records.items():
        for record in found:
            by_model.setdefault(record["model"], {})[name] = record
    rows: list[list[object]] = [
        [model, *(cell for name in records for cell in _cells(of.get(name)))] for model, of in sorted(by_model.items())
    ]
    header = [column for name in records for column in (name, "removed", "seconds", "memory")]
    return "## Models\n\n" + _table(["model", *header], rows)


def _cells(record: Record | None) -> list[object]:
    if record is None:
        return ["-"] * 4
    verdict = "ok" if record["fully_ok"] else "no: " + ", ".join(failures(record))
    memory = over_forward(record)
    return [
        verdict,
        _figure(record.get("removed"), "{:.0%}"),
        _figure(record.get("seconds"), "{:.2f}"),
        _figure(memory, "{:.0f}"),
    ]

"""``python -m benchmarks.zoo``: run what there is no result of yet, and say what all results show."""

from __future__ import annotations

import argparse
import fnmatch
import json
from pathlib import Path

from .catalogue import entries
from .libraries import MODULES
from .runs import Results, run_missing
from .summary import summary
from .table import as_markdown, as_text


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description="Half the channels of every model.")
    parser.add_argument("--only", metavar="GLOB", default="*", help="models by name, such as 'timm/*'")
    parser.add_argument("--library", choices=MODULES, default=None, help="one of the contestants; both by default")
    parser.add_argument("--jobs", type=int, default=1, help="families at the same time; times are for one")
    parser.add_argument("--results", type=Path, default=Path("zoo-results"), help="where every case's record is kept")
    parser.add_argument("--json", type=Path, default=None, help="write the summary and all records")
    parser.add_argument("--table", type=Path, default=None, help="write the table for the documentation")
    parser.add_argument("--report-only", action="store_true", help="run nothing; say what the results so far show")
    given = parser.parse_args()
    chosen = [entry for entry in entries() if fnmatch.fnmatch(entry.name, given.only)]
    names = [given.library] if given.library else list(MODULES)
    results = Results(given.results)
    for name in () if given.report_only else names:
        for _ in run_missing(chosen, name, results, given.jobs):
            pass
    records = {name: [r for entry in chosen if (r := results.read(entry, name))] for name in names}
    found = summary(records)
    print(as_text(found, records))
    if given.json is not None:
        given.json.write_text(json.dumps({"summary": found, "records": records}, indent=1) + "\n")
    if given.table is not None:
        given.table.write_text(as_markdown(found, records))


main()

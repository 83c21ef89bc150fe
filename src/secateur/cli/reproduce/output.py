"""What every reproduction leaves: a page of tables, all results as JSON, and figures; and the main tables on stdout."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import typer

from secateur.cli.options import write_json
from secateur.graph.describe import to_text
from secateur.report.files import write_whole
from secateur.report.tables import Table


class Found(Protocol):
    """What a reproduction found."""

    @property
    def title(self) -> str:
        """What its tables are of."""
        ...

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        ...


def write_and_show(
    found: Found,
    out: Path,
    *,
    tables: Iterable[Table],
    shown: Iterable[Table],
    pictures: Iterable[tuple[str, bytes]],
) -> None:
    """Write all of it into a folder, and print what is to be shown.

    Args:
        found: what was found.
        out: the folder.
        tables: for the page.
        shown: for the terminal.
        pictures: file name and PNG of every figure.

    Raises:
        StorageError: a file can't be written.
    """
    for name, png in pictures:
        write_whole(out / name, png)
    page = "\n".join([f"# {found.title}", "", *(table.as_markdown() for table in tables)])
    write_whole(out / "results.md", page.encode())
    write_json(out / "results.json", found.as_data())
    print(f"{found.title}\n")
    print(to_text([table.as_rich() for table in shown]))
    print(f"\nall tables: {out / 'results.md'}\nall results: {out / 'results.json'}\nfigures: {out}/*.png")


def check_fractions(option: str, fractions: Sequence[float] | None) -> None:
    """Check what an option was given, in the words of the command line.

    Raises:
        BadParameter: a value doesn't lie between 0 and 1.
    """
    for fraction in fractions or ():
        if not 0 < fraction < 1:
            raise typer.BadParameter(f"{option} must lie between 0 and 1; it is {fraction}")


def check_finite(option: str, value: float, what: str) -> None:
    """Check what an option was given, in the words of the command line.

    Raises:
        BadParameter: the value is NaN or infinite.
    """
    if not math.isfinite(value):
        raise typer.BadParameter(f"{option} must be a finite number of {what}; it is {value}")


def check_methods(known: Iterable[str], asked: Sequence[str] | None, usual: Iterable[str]) -> tuple[str, ...]:
    """The methods that were asked for, in the order of the tables; the usual ones if none was named.

    Raises:
        BadParameter: one is unknown.
    """
    names, chosen = tuple(known), tuple(usual) if asked is None else tuple(asked)
    for name in chosen:
        if name not in names:
            raise typer.BadParameter(f"--method {name!r} is none of {', '.join(names)}")
    return tuple(name for name in names if name in chosen)

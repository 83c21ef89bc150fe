"""Options that several commands share, and how they write their results as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from secateur.report.files import write_whole

Factory: TypeAlias = Annotated[str, typer.Argument(metavar="MODULE:FACTORY", help="What makes the model.")]
InputShape: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="SHAPE", help='Shape of an input, "1,784", or "1,16:int" for token ids; once per input.'),
]
Run: TypeAlias = Annotated[
    str | None, typer.Option(metavar="MODULE:FUNCTION", help="Takes the model and exercises it; in place of inputs.")
]
Json: TypeAlias = Annotated[
    Path | None, typer.Option("--json", metavar="PATH", dir_okay=False, help="Write the result as JSON as well.")
]


def write_json(path: Path | None, data: object) -> None:
    """Write ``data`` to ``path``, if there is one.

    Raises:
        StorageError: it can't be written.
    """
    if path is not None:
        write_whole(path, (json.dumps(data, indent=2) + "\n").encode())

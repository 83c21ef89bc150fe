"""Options that several commands share, and how they write their results as JSON."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from tempfile import NamedTemporaryFile
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


class Blocks(str, Enum):
    """What leaves of an axis that is split into blocks."""

    AUTO = "auto"
    WIDTH = "width"
    HEADS = "heads"


GRANULARITY_HELP = "What leaves of attention heads and the like: some width of each, or whole ones."


def check_writable(path: Path) -> None:
    """Check that a file can be written at ``path``, before the hours of work that it is to hold the result of.

    Nothing is left there: a nameless file is made and removed in the folder, or where the folder will be made.

    Raises:
        BadParameter: it can't.
    """
    try:
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; name a file")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        with NamedTemporaryFile(dir=folder, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be written: {error.strerror or error}") from error


def _writable(path: Path | None) -> Path | None:
    if path is not None:
        check_writable(path)
    return path


Json: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="PATH", dir_okay=False, callback=_writable, help="Write the result as JSON as well."
    ),
]


def write_json(path: Path | None, data: object) -> None:
    """Write ``data`` to ``path``, if there is one.

    Raises:
        StorageError: it can't be written.
    """
    if path is not None:
        write_whole(path, (json.dumps(data, indent=2) + "\n").encode())

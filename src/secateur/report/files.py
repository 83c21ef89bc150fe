"""Result files, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from secateur.errors import StorageError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it never stands half-written: to a neighbour first, which then takes its name.

    The folder is made if it isn't there. A file that stood there before is replaced, or left as it was on failure.

    Raises:
        StorageError: the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(partial).chmod(0o666 & ~_umask())
            Path(partial).replace(path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} can't be written: {error.strerror or error}") from error


def _umask() -> int:
    """What new files don't allow; a temporary file is its owner's alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

"""The folder that keeps the results of single runs, so that a run that is asked for again isn't made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from secateur.errors import StorageError
from secateur.report.files import write_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RecordT = TypeVar("RecordT", bound="DataclassInstance")

OnStep = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is done, and out of how much."""


@dataclass(frozen=True)
class RunCache(Generic[RecordT]):
    """A folder of records, one file for each combination of settings; others are never taken for it.

    Attributes:
        folder: made with the first record.
        read: makes a record of what ``dataclasses.asdict`` gave for it and JSON has kept; raises ``ValueError``,
            ``KeyError`` or ``TypeError`` where it is none.
    """

    folder: Path
    read: Callable[[Mapping[str, Any]], RecordT]

    def get(self, name: str, settings: Mapping[str, Any], make: Callable[[], RecordT]) -> RecordT:
        """The record of a run with these settings: read if it is there, made and written if not.

        Args:
            name: what the file's name begins with.
            settings: all that the result depends on, as JSON can hold it.
            make: runs.

        Raises:
            StorageError: a file can't be read or written.
        """
        file = self.file(name, settings)
        if file.exists():
            return self._read(file)
        record = make()
        data = {"settings": settings, "record": asdict(record)}
        write_whole(file, (json.dumps(data, indent=1) + "\n").encode())
        return record

    def file(self, name: str, settings: Mapping[str, Any]) -> Path:
        """Where the record of a run with these settings is, or will be."""
        text = json.dumps(settings, sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"

    def _read(self, file: Path) -> RecordT:
        try:
            return self.read(json.loads(file.read_text(encoding="utf-8"))["record"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{file} can't be read: {error}; delete it to run again") from error

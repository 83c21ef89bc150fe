"""The database behind a search: its address, opening it, and its failures as one clear error."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from secateur.allocation.quiet import quiet
from secateur.errors import StorageError

_ATTEMPTS = 8
"""To open a database; several workers that make its tables at once get into each other's way."""

_PAUSE = 0.25
"""Seconds between two attempts."""

_LOCKED_SECONDS = 60
"""How long a write to an SQLite file waits for those of other processes."""


def database_url(storage: str | Path) -> str:
    """An SQLAlchemy URL; a path stands for an SQLite file."""
    if isinstance(storage, str) and "://" in storage:
        return storage
    path = Path(storage).expanduser().absolute()
    return sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()


def shown(url: str) -> str:
    """The URL without what may be secret in it."""
    try:
        return sqlalchemy.make_url(url).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return f"{url.partition('://')[0]}://..."


@contextmanager
def failures_reported(url: str) -> Iterator[None]:
    """Turn failures of the database into a ``StorageError`` that names it."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise StorageError(
            f"the search's storage {shown(url)} failed: {_reason(error)}; what was stored before is "
            "safe: run the search again to go on from there"
        ) from error


def open_database(url: str, *, heartbeat: int, grace: int) -> RDBStorage:
    """Open an Optuna storage and make its tables if they aren't there.

    Args:
        url: of SQLAlchemy.
        heartbeat: seconds between two signs of life of a running trial.
        grace: seconds without one after which a running trial counts as abandoned.

    Raises:
        StorageError: the database can't be reached, or isn't one.
    """
    options = _engine_options(url)
    _check_connection(url, options)
    for attempt in range(_ATTEMPTS):
        try:
            return _opened(url, options, heartbeat, grace)
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            if attempt == _ATTEMPTS - 1:
                raise StorageError(f"the storage {shown(url)} can't be used for a search: {_reason(error)}") from error
            time.sleep(_PAUSE)
    raise AssertionError("unreachable")


def close_database(storage: RDBStorage) -> None:
    """Close the connections that this thread, or none, uses."""
    storage.remove_session()
    storage.engine.dispose()


def _opened(url: str, options: dict[str, Any], heartbeat: int, grace: int) -> RDBStorage:
    # Optuna takes the URL for a template.
    template = url.replace("{", "{{").replace("}", "}}")
    with quiet():
        return RDBStorage(template, engine_kwargs=options, heartbeat_interval=heartbeat, grace_period=grace)


@contextmanager
def existing_database(url: str) -> Iterator[RDBStorage]:
    """An Optuna storage to look into; closed at the end. A database of something else stays as it is.

    Raises:
        StorageError: the database isn't there, can't be reached, isn't one, or holds no search.
    """
    with suppress(ArgumentError, ValueError):
        parsed = sqlalchemy.make_url(url)
        if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
            raise StorageError(f"the storage {shown(url)} isn't there: no search has been made in it")
    _check_connection(url, _engine_options(url), table="studies")
    storage = open_database(url, heartbeat=1, grace=1)
    try:
        with failures_reported(url):
            yield storage
    finally:
        close_database(storage)


class _SqliteConnection(sqlite3.Connection):
    """A write-ahead log, so that readers don't wait for writers; safe when a process is killed at any time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def _engine_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": _LOCKED_SECONDS, "factory": _SqliteConnection}}
    return {"pool_pre_ping": True}


def _check_connection(url: str, options: dict[str, Any], *, table: str | None = None) -> None:
    """Check that the database can be reached, and that it has a table, if one is named."""
    try:
        engine = sqlalchemy.create_engine(url, **options)
        try:
            with engine.connect() as connection:
                is_there = table is None or sqlalchemy.inspect(connection).has_table(table)
        finally:
            engine.dispose()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise StorageError(
            f"{shown(url)} is no storage: {_reason(error)}; give a path, or a URL such as postgresql://user@host/database"
        ) from error
    except ModuleNotFoundError as error:
        raise StorageError(f"the storage {shown(url)} needs the Python package {error.name!r}; install it") from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise StorageError(f"the storage {shown(url)} can't be reached: {_reason(error)}") from error
    if not is_there:
        raise StorageError(f"the storage {shown(url)} holds no search: none has been made in it")


def _reason(error: Exception) -> str:
    """The first line of what the database itself says."""
    cause: BaseException = error
    while isinstance(cause, StorageInternalError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, DBAPIError) and cause.orig is not None:
        cause = cause.orig
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__

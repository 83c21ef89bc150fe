"""Optional dependencies: a missing one is one clear error that names the extra to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from secateur.errors import SecateurError


@contextmanager
def needs(*packages: str, extra: str) -> Iterator[None]:
    """Import optional packages inside; a missing one is an error that says how to install it.

    Args:
        packages: names that are imported, such as ``"optuna"``.
        extra: the extra of Secateur that brings them.

    Raises:
        SecateurError: one of them isn't installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in packages:
            raise
        raise SecateurError(f"this needs {error.name}: pip install 'secateur[{extra}]'") from error

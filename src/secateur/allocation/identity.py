"""Which metric it is, as far as can be told without running it: two of one name are not the same."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.allocation.objective import metric_name
from secateur.plan import named_tensors

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    np.generic,
    Enum,
    PurePath,
    slice,
    torch.dtype,
    torch.device,
)
"""Told apart by what they are shown as."""


def identity(metric: Any) -> str:
    """A metric's name, and where its code is; of Secateur's own, and of a ``partial``, a digest of what it is given.

    Nothing is known of what a user's function refers to, or of what a user's object holds: their code may be anything.
    """
    own = f"{metric_name(metric)}: {_qualified_name(metric)}"
    return f"{own} {digest(parts(metric))}" if _is_transparent(metric) else own


def digest(pieces: Iterable[bytes]) -> str:
    """A short hash."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()[:16]


def content(tensor: torch.Tensor) -> bytes:
    """A tensor's values, in order."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def parts(value: Any) -> Iterator[bytes]:
    """What tells a value from others, piece by piece; each container says how much it holds."""
    if isinstance(value, _PLAIN):
        yield f"{value!r};".encode()
    elif isinstance(value, np.ndarray):
        yield from parts(torch.from_numpy(value) if value.dtype.kind in "biufc" else value.tolist())
    elif isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)};".encode()
        yield content(value)
    elif isinstance(value, nn.Module):
        yield from _tagged(_qualified_name(value), named_tensors(value))
    elif _is_transparent(value):
        yield from _tagged(_qualified_name(value), _settings(value))
    elif isinstance(value, (Mapping, Set, Sequence)):
        yield from _container(value)
    else:
        yield f"{_qualified_name(value)};".encode()


def _container(value: Mapping[Any, Any] | Set[Any] | Sequence[Any]) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        yield from _tagged("mapping", {repr(key): item for key, item in value.items()})
        return
    kind, items = ("set", sorted(value, key=repr)) if isinstance(value, Set) else ("list", value)
    yield f"{kind} of {len(items)};".encode()
    for item in items:
        yield from parts(item)


def _tagged(tag: str, named: Mapping[str, Any]) -> Iterator[bytes]:
    yield f"{tag} of {len(named)};".encode()
    for name, item in named.items():
        yield f"{name}=".encode()
        yield from parts(item)


def _is_transparent(value: Any) -> bool:
    """Whether what it is given is all it depends on: a ``partial``, or a dataclass of Secateur, or a child of one."""
    if isinstance(value, partial):
        return True
    if isinstance(value, type) or not is_dataclass(value):
        return False
    return any(base.__module__.partition(".")[0] == "secateur" for base in inspect.getmro(type(value)))


def _settings(value: Any) -> dict[str, Any]:
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    return {field.name: getattr(value, field.name) for field in fields(value) if field.init}


def _qualified_name(value: Any) -> str:
    """Of a function, a ``partial``'s too, or of an object's class."""
    if isinstance(value, partial):
        return _qualified_name(value.func)
    named = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
    return f"{named.__module__}.{named.__qualname__}"

"""What is known of tensors, by their identity, for as long as they live."""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import ref

import torch

Value = TypeVar("Value")


class ByTensor(Generic[Value]):
    """Values by tensor object; an entry goes when its tensor does.

    Torch's own ``WeakTensorKeyDictionary`` does the same with a Python object per look-up, which is what most of the
    time of following a small operator went into.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[ref[torch.Tensor], Value]] = {}

    def __setitem__(self, tensor: torch.Tensor, value: Value) -> None:
        key = id(tensor)
        known = self._entries.get(key)
        if known is not None:
            self._entries[key] = (known[0], value)
            return
        entries = self._entries
        # The identity can't be another tensor's before the entry is gone: the callback runs while this one is freed.
        self._entries[key] = (ref(tensor, lambda _: entries.pop(key, None)), value)

    def get(self, tensor: torch.Tensor) -> Value | None:
        """The tensor's value, None if it has none."""
        entry = self._entries.get(id(tensor))
        return None if entry is None else entry[1]

"""Sizes with provenance: what the code reads from shapes, and which sizes it gives to operators.

After surgery a forward pass can still hold yesterday's sizes, ``x.view(b, n, 4, 16)`` or ``h[:, :16]``. While
tracing, ``tensor.shape`` gives integers that remember which labels they count, so that a size which follows the model
is told from one that doesn't. A size that can't follow pins what it measures; one that follows ties the counts of
what it measures and where it came from. A module of torch.nn keeps its own sizes in attributes, which surgery
changes. The integers that the user's own modules keep are traced as well (``attribute_sizes``).
"""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode

from secateur.graph.handlers import HANDLERS
from secateur.graph.torch_calls import Called, note_numbers
from secateur.graph.tracer import Tracer


class SizeMode(TorchFunctionMode):
    """Watches the torch functions that the user's code calls, for the sizes that they read or are given."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __exit__(self, *details: Any) -> None:
        self.tracer.is_over = True
        super().__exit__(*details)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in HANDLERS:
            arguments, handler = HANDLERS[func]
            named = dict(zip(arguments, args, strict=False)) | kwargs
            return handler(Called(self.tracer, func, args, kwargs, named, args[len(arguments) :]))
        note_numbers(func, (*args, *kwargs.values()))
        return func(*args, **kwargs)

"""The base of the modes that watch eager operators."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class EagerDispatchMode(TorchDispatchMode):
    """A dispatch mode that is never compiled.

    Torch guards a mode's ``__torch_dispatch__`` against its compiler by default, and the guard imports the compiler:
    seconds, at the first operator.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

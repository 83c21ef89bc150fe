"""Which of torch's kernels run while a model is traced: those that hide no structure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def plain_kernels() -> Iterator[None]:
    """No gradients, and none of the paths that hide structure: cuDNN, fast attention, compiled code."""
    cudnn = torch.backends.cudnn.enabled
    fastpath = torch.backends.mha.get_fastpath_enabled()
    # Only what has been compiled can run so; asking otherwise imports the compiler, which takes seconds.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with torch.no_grad(), eager:
        torch.backends.cudnn.enabled = False
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.cudnn.enabled = cudnn
            torch.backends.mha.set_fastpath_enabled(fastpath)


@contextmanager
def without_mkldnn() -> Iterator[None]:
    """No mkldnn, to which a recurrent layer is a single operator; convolutions are transparent, and faster, with it."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)

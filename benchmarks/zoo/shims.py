"""torchvision without its compiled operators: there is no CPU build beside torch's own CPU build."""

from __future__ import annotations

import torch

_OPERATORS = ("nms", "qnms")
"""The operators that torchvision registers fake kernels for while it is imported."""

_libraries: list[torch.library.Library] = []  # an operator lives as long as the library that defined it


def declare_torchvision_operators() -> None:
    """Declare what ``import torchvision`` expects to exist; no model of the zoo calls any of it. Repeatable."""
    if _libraries:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)

"""How each module type contracts its weight with its input, as one matrix product per conv group.

A layout turns the input of a module into rows of features and its weight into a matrix, such that output rows are
``features @ matrix.T + bias``, exactly. A convolution's features are its input patches. A transposed convolution is a
plain one over the input with ``stride - 1`` zeros put between its values, with the kernel flipped. A feature's index is
``channel * taps + tap``; with ``groups > 1`` every conv group has features and outputs of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

BLOCK_ELEMENTS = 2**22
"""Feature values held at a time (32 MB in float64), so that memory doesn't grow with the number of rows."""


class Layout(ABC):
    """The matrix form of one module type; stateless."""

    axis: int
    """The weight's consumer axis."""

    @abstractmethod
    def channel_dim(self, module: Any) -> int:
        """The dimension of inputs and outputs that counts channels, from the end."""

    @abstractmethod
    def conv_groups(self, module: Any) -> int:
        """Number of conv groups G; 1 where there are none."""

    @abstractmethod
    def features(self, module: Any, inputs: Tensor, outputs: Tensor) -> Iterator[Tensor]:
        """Blocks (G, rows, features) of float64 features of one call, in the order of the outputs' ``rows``."""

    @abstractmethod
    def matrix(self, module: Any, weight: Tensor) -> Tensor:
        """The weight as a matrix per conv group, shape (G, outputs per conv group, features)."""

    @abstractmethod
    def weight(self, module: Any, matrix: Tensor) -> Tensor:
        """Inverse of ``matrix``, in the shape of ``module.weight``."""

    @abstractmethod
    def channels_of(self, module: Any) -> NDArray[np.int64]:
        """Shape (length of the consumer axis, n): the input channels which each index of the consumer axis reads."""

    @abstractmethod
    def kept_outputs(self, module: Any, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The output channels that stay when ``kept[axis]`` stays of every axis of the weight."""

    def rows(self, module: Any, values: Tensor) -> Tensor:
        """Inputs or outputs of one call, shape (rows, channels)."""
        dim = self.channel_dim(module)
        return values.movedim(dim, -1).reshape(-1, values.shape[dim])

    def features_of(self, module: Any) -> NDArray[np.int64]:
        """Shape (length of the consumer axis, n): the features each index owns, counted through all conv groups."""
        channels = self.channels_of(module)
        taps = prod(module.weight.shape[2:])
        features: NDArray[np.int64] = channels[..., None] * taps + np.arange(taps)
        return features.reshape(len(channels), -1)


class LinearLayout(Layout):
    """``nn.Linear``: features are the last dimension."""

    axis = 1

    def channel_dim(self, module: nn.Linear) -> int:
        """The last."""
        return -1

    def conv_groups(self, module: nn.Linear) -> int:
        """One."""
        return 1

    def features(self, module: nn.Linear, inputs: Tensor, outputs: Tensor) -> Iterator[Tensor]:
        """The input's rows."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        for block in rows.split(max(1, BLOCK_ELEMENTS // inputs.shape[-1])):
            yield as_float64(block)[None]

    def matrix(self, module: nn.Linear, weight: Tensor) -> Tensor:
        """The weight itself."""
        return weight[None]

    def weight(self, module: nn.Linear, matrix: Tensor) -> Tensor:
        """The matrix itself."""
        return matrix[0]

    def channels_of(self, module: nn.Linear) -> NDArray[np.int64]:
        """Index i reads channel i."""
        return np.arange(module.weight.shape[1])[:, None]

    def kept_outputs(self, module: nn.Linear, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The weight's rows."""
        return kept[0]


class _SpatialLayout(Layout):
    def channel_dim(self, module: Any) -> int:
        return -1 - len(module.kernel_size)

    def conv_groups(self, module: Any) -> int:
        return int(module.groups)


class ConvLayout(_SpatialLayout):
    """``nn.Conv1d`` to ``nn.Conv3d``: features are input patches, after padding."""

    axis = 1

    def features(self, module: Any, inputs: Tensor, outputs: Tensor) -> Iterator[Tensor]:
        """Patches at the kernel's stride and dilation."""
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        padded = functional.pad(_batched(inputs, len(module.kernel_size)), _padding(module), mode=mode)
        yield from _patches(padded, module.kernel_size, module.stride, module.dilation, module.groups)

    def matrix(self, module: Any, weight: Tensor) -> Tensor:
        """Output channels split into conv groups; channel and taps flattened."""
        return weight.reshape(module.groups, weight.shape[0] // module.groups, -1)

    def weight(self, module: Any, matrix: Tensor) -> Tensor:
        """Back to (outputs, channels per conv group, taps...)."""
        return matrix.reshape(module.weight.shape)

    def channels_of(self, module: Any) -> NDArray[np.int64]:
        """Index i reads channel i of every conv group."""
        per_group = module.weight.shape[1]
        channels: NDArray[np.int64] = np.arange(per_group)[:, None] + per_group * np.arange(module.groups)
        return channels

    def kept_outputs(self, module: Any, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The weight's rows."""
        return kept[0]


class TransposedLayout(_SpatialLayout):
    """``nn.ConvTranspose1d`` to ``nn.ConvTranspose3d``: features are patches of the zero-stuffed input."""

    axis = 0

    def features(self, module: Any, inputs: Tensor, outputs: Tensor) -> Iterator[Tensor]:
        """Patches of the fractionally strided input; the output's size says how far it is padded at the end."""
        spatial = len(module.kernel_size)
        stuffed = _zero_stuffed(_batched(inputs, spatial), module.stride)
        padding: list[int] = []
        for dim in reversed(range(spatial)):
            reach = module.dilation[dim] * (module.kernel_size[dim] - 1)
            before = reach - module.padding[dim]
            after = outputs.shape[dim - spatial] + reach - stuffed.shape[dim - spatial] - before
            padding += [before, after]
        padded = functional.pad(stuffed, padding)
        yield from _patches(padded, module.kernel_size, (1,) * spatial, module.dilation, module.groups)

    def matrix(self, module: Any, weight: Tensor) -> Tensor:
        """Taps flipped; input channels split into conv groups."""
        flipped = weight.flip(tuple(range(2, weight.ndim))).flatten(2)
        return flipped.reshape(module.groups, -1, *flipped.shape[1:]).transpose(1, 2).flatten(2)

    def weight(self, module: Any, matrix: Tensor) -> Tensor:
        """Back to (inputs, outputs per conv group, taps...)."""
        shape: torch.Size = module.weight.shape
        conv_groups, outputs, _ = matrix.shape
        per_group = matrix.reshape(conv_groups, outputs, shape[0] // conv_groups, -1).transpose(1, 2)
        return per_group.reshape(shape).flip(tuple(range(2, len(shape))))

    def channels_of(self, module: Any) -> NDArray[np.int64]:
        """Index i reads channel i."""
        return np.arange(module.weight.shape[0])[:, None]

    def kept_outputs(self, module: Any, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The kept outputs of every conv group that still has inputs."""
        conv_groups = np.unique(kept[0] // (module.weight.shape[0] // module.groups))
        outputs: NDArray[np.int64] = conv_groups[:, None] * module.weight.shape[1] + kept[1]
        return outputs.reshape(-1)


_CONV, _TRANSPOSED = ConvLayout(), TransposedLayout()
_LAYOUTS: dict[Callable[..., Any], Layout] = {
    nn.Linear.forward: LinearLayout(),
    nn.Conv1d.forward: _CONV,
    nn.Conv2d.forward: _CONV,
    nn.Conv3d.forward: _CONV,
    nn.ConvTranspose1d.forward: _TRANSPOSED,
    nn.ConvTranspose2d.forward: _TRANSPOSED,
    nn.ConvTranspose3d.forward: _TRANSPOSED,
}


def layout_of(module: nn.Module) -> Layout | None:
    """The layout of a module; None if its ``forward`` isn't that of a known type (a subclass may compute anything)."""
    return _LAYOUTS.get(type(module).forward)


def as_float64(values: Tensor) -> Tensor:
    """The values in float64, on their own device, or on the CPU where the device has no float64."""
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)


def _batched(inputs: Tensor, spatial: int) -> Tensor:
    return inputs[None] if inputs.ndim == spatial + 1 else inputs


def _padding(module: Any) -> list[int]:
    """The convolution's padding as ``torch.nn.functional.pad`` takes it: last dimension first."""
    pairs: list[tuple[int, int]] = []
    for dim, (size, dilation) in enumerate(zip(module.kernel_size, module.dilation, strict=True)):
        if module.padding == "same":
            total = dilation * (size - 1)
            pairs.append((total // 2, total - total // 2))
        else:
            width = 0 if module.padding == "valid" else module.padding[dim]
            pairs.append((width, width))
    return [width for pair in reversed(pairs) for width in pair]


def _zero_stuffed(inputs: Tensor, stride: tuple[int, ...]) -> Tensor:
    sizes = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], stride, strict=True)]
    stuffed = inputs.new_zeros((*inputs.shape[:2], *sizes))
    strided = stuffed
    for dim, step in enumerate(stride, start=2):
        strided = strided[(slice(None),) * dim + (slice(None, None, step),)]
    strided.copy_(inputs)
    return stuffed


def _patches(
    inputs: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Iterator[Tensor]:
    """Blocks (G, rows, channels per conv group * taps) of patches of (N, C, *spatial), row-major in (N, *positions)."""
    spatial = len(kernel)
    windows = inputs
    for dim, (size, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        windows = windows.unfold(dim, apart * (size - 1) + 1, step)[..., ::apart]
    windows = windows.unflatten(1, (groups, -1))
    positions, taps = range(3, 3 + spatial), range(3 + spatial, 3 + 2 * spatial)
    windows = windows.permute(1, 0, *positions, 2, *taps)
    row_elements = inputs.shape[1] * prod(kernel)
    slice_rows = prod(windows.shape[3 : 2 + spatial])
    slices = max(1, BLOCK_ELEMENTS // (row_elements * max(1, slice_rows)))
    samples = max(1, slices // max(1, windows.shape[2]))
    for batch in windows.split(samples, dim=1):
        for block in batch.split(slices, dim=2):
            rows = prod(block.shape[1 : 2 + spatial])
            yield as_float64(block.reshape(groups, rows, -1))

"""First and second moments of what modules read, accumulated in float64 while the calibration data runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from secateur.calibration.consumers import Reader
from secateur.calibration.runs import Calibration, evaluating
from secateur.errors import CalibrationError, SecateurWarning

_STILL = 1e-12
"""Variance of a feature, relative to its mean square, up to which it is what rounding leaves of a constant."""

OnCall: TypeAlias = Callable[[Reader, nn.Module, Tensor, Tensor], Tensor | None]


@contextmanager
def watch(model: nn.Module, readers: Sequence[Reader], on_call: OnCall) -> Iterator[None]:
    """Call ``on_call(reader, module, inputs, outputs)`` after every call of a reader's module, inside only.

    A tensor that it returns takes the place of the module's output.
    """
    with ExitStack() as stack:
        for reader in readers:
            module = model.get_submodule(reader.module)
            # First of the forward hooks: the user's own may change the output, which is then not the product any more.
            handle = module.register_forward_hook(_hook(reader, on_call), prepend=True, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _hook(reader: Reader, on_call: OnCall) -> Callable[..., Tensor | None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> Tensor | None:
        return on_call(reader, module, args[0] if args else kwargs["input"], output)

    return hook


class InputMoments:
    """Sums over all rows of a module's features h: the number of rows, h and h h^T, per conv group.

    Attributes:
        rows: number of rows so far.
        total: shape (G, features), float64; the product of the features with a column of ones.
        gram: shape (G, features, features), float64; the Gram matrix.
    """

    def __init__(self, like: Tensor) -> None:
        """Zeros for features like those of ``like``, shape (G, rows, features)."""
        conv_groups, _, features = like.shape
        self.rows = 0
        self.total = like.new_zeros(conv_groups, features)
        self.gram = like.new_zeros(conv_groups, features, features)

    def add(self, block: Tensor) -> None:
        """Add a block of rows, shape (G, rows, features)."""
        self.rows += block.shape[1]
        self.total += block.sum(dim=1)
        self.gram.baddbmm_(block.mT, block)

    def solved_gram(self, *, centred: bool) -> Tensor:
        """The Gram matrix a least-squares fit solves: with a bias, that of the features less their mean.

        The difference of two large sums can't show a variance below ``_STILL`` of the mean square: such a feature's row
        and column are zero, and not what rounding leaves, which may be negative.
        """
        if not centred:
            return self.gram.clone()
        gram = self.gram - self.total[:, :, None] * (self.total[:, None, :] / self.rows)
        still = gram.diagonal(dim1=1, dim2=2) <= _STILL * self.gram.diagonal(dim1=1, dim2=2)
        return gram.masked_fill_(still[:, :, None] | still[:, None, :], 0)


def collect_moments(model: nn.Module, readers: Sequence[Reader], calibration: Calibration) -> dict[str, InputMoments]:
    """Moments of what each reader's module reads, by parameter name, over all its calls in one run of the data.

    Memory: one Gram matrix per reader, and ``layouts.BLOCK_ELEMENTS`` features at a time.

    Raises:
        CalibrationError: the run fails, or a module reads values that aren't finite.
    """
    moments: dict[str, InputMoments] = {}

    def add(reader: Reader, module: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        for block in reader.layout.features(module, inputs, outputs):
            if reader.parameter not in moments:
                moments[reader.parameter] = InputMoments(block)
            moments[reader.parameter].add(block)

    with evaluating(model), watch(model, readers, add):
        calibration.run(model)
    for reader in readers:
        check_finite(reader, moments[reader.parameter].gram)
    return moments


def check_finite(reader: Reader, *sums: Tensor) -> None:
    """Raise unless all sums are finite; one infinite or NaN activation makes a sum infinite or NaN for good.

    Raises:
        CalibrationError: naming the module.
    """
    if not all(bool(torch.isfinite(values).all()) for values in sums):
        raise CalibrationError(
            f"{reader.module!r} reads or makes values that aren't finite (NaN or infinite) on the calibration data"
        )


def warn_few_rows(short: Mapping[str, tuple[int, int]]) -> None:
    """One warning for all modules with fewer rows than features; ``short`` maps names to (rows, features)."""
    if short:
        listing = ", ".join(f"{name} ({rows} rows, {features} inputs)" for name, (rows, features) in short.items())
        warnings.warn(
            f"fewer calibration rows than kept inputs, so that the ridge decides what the data can't: {listing}",
            SecateurWarning,
            stacklevel=3,
        )


def damping(gram: Tensor, ridge: float) -> Tensor:
    """``ridge`` times the mean diagonal of each Gram matrix, shape (G,), for grams (G, features, features).

    Where all features are zero the data asks for nothing: any positive value keeps the weights as they are.
    """
    scale = gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    return torch.where(scale > 0, ridge * scale, 1.0)

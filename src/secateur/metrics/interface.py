"""How far the activations between components move: relative distance, and similarity whatever the widths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from secateur.calibration import CalibrationData, Reader, as_calibration, evaluating, run_in_lockstep, watch
from secateur.calibration.layouts import LinearLayout, as_float64, layout_of
from secateur.calibration.lockstep import Output
from secateur.errors import ObjectiveError
from secateur.plan import PruningPlan

_BLOCK_ROWS = 4096
"""Rows held in float64 at a time."""


class _Outputs(LinearLayout):
    """Rows of any module's output: every index but that of the channels."""

    def __init__(self, channel_dim: int) -> None:
        self._channel_dim = channel_dim

    def channel_dim(self, module: nn.Module) -> int:
        """As given, whatever the module."""
        return self._channel_dim

    def rows(self, module: nn.Module, values: Any) -> Tensor:
        """The output as a matrix, shape (rows, channels)."""
        if not isinstance(values, Tensor):
            raise ObjectiveError(
                f"a {type(module).__name__} returns a {type(values).__name__}, whose activations can't be compared; "
                "name a module that returns one tensor"
            )
        return super().rows(module, values)


@dataclass(frozen=True, eq=False)
class _Interface:
    """Pairs of a module's outputs in the dense and in another model, on the same data.

    Attributes:
        dense: the dense model; untouched.
        module: dotted path of the module whose outputs are compared, such as ``"encoder"``; "" is the model itself.
        calibration: an iterable of inputs like ``example_inputs``, or a function that takes a model and exercises it,
            with the same calls and rows whichever model it is given, or an iterable of such functions.
        channel_dim: the outputs' dimension that counts channels; by default the last, or that of a convolution.

    Raises:
        CalibrationError: the calibration data is no such thing.
        ObjectiveError: the dense model has no such module.
    """

    dense: nn.Module
    module: str
    calibration: CalibrationData
    channel_dim: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "calibration", as_calibration(self.calibration).source)
        if self.module not in dict(self.dense.named_modules()):
            raise ObjectiveError(f"the dense model has no module {self.module!r}; give a dotted path such as 'encoder'")

    def _compare(self, model: nn.Module, on_rows: Callable[[Tensor, Tensor], None]) -> None:
        """Hand over rows (n, channels), float64, of the dense model's outputs and of the other's, block by block.

        Raises:
            ObjectiveError: the data never reaches the module.
            CalibrationError: the models make different calls or rows, or one of them fails.
        """
        calls = 0
        reader = Reader(f"{self.module}.output", self.module, _Outputs(self._dim()))

        def on_pair(dense: Output, other: Output) -> None:
            nonlocal calls
            calls += 1
            rows = (as_float64(reader.layout.rows(o.module, o.outputs)) for o in (dense, other))
            for pair in zip(*(r.split(_BLOCK_ROWS) for r in rows), strict=True):
                on_rows(*pair)

        def on_call(reader: Reader, module: nn.Module, _inputs: Tensor, outputs: Tensor) -> None:
            on_pair(Output(reader, module, outputs), Output(reader, module, outputs))

        data = as_calibration(self.calibration)
        if model is self.dense:  # one object can't run twice at once
            with evaluating(model), watch(model, [reader], on_call):
                data.run(model)
        else:
            run_in_lockstep(self.dense, model, [reader], data, on_pair)
        if calls == 0:
            raise ObjectiveError(f"the calibration data never reaches {self.module!r}; give data that exercises it")

    def _dim(self) -> int:
        if self.channel_dim is not None:
            return self.channel_dim
        module = self.dense.get_submodule(self.module)
        layout = layout_of(module)
        return -1 if layout is None else layout.channel_dim(module)


@dataclass(frozen=True, eq=False)
class LatentDrift(_Interface):
    """Relative L2 distance of an interface's activations from the dense model's; lower is better.

    ``sqrt(sum ||z' - z_K||^2 / sum ||z_K||^2)`` over all rows, where z are the dense model's activations, K the
    channels that are kept, and z' what the smaller model computes for them. 0 where nothing moves; 1 where all is lost.

    Memory: that of one call of the module.

    Attributes:
        group: name of the channel group that the outputs' channels are; needed where they are pruned, if it isn't
            ``module``.
        count_removed: count removed channels as moved to zero, instead of leaving them out: z for z_K, z' zero there.
    """

    group: str | None = None
    count_removed: bool = False

    name: ClassVar[str] = "latent drift"

    def __call__(self, model: nn.Module) -> float:
        """The drift of a model none of whose interface channels were removed."""
        return self.measure(model, None)

    def measure(self, model: nn.Module, plan: PruningPlan | None) -> float:
        """The drift of a model that this plan made.

        Raises:
            ObjectiveError: the channels of the two models can't be matched, the data never reaches the module, or the
                dense model's activations are all zero.
            CalibrationError: the models make different calls or rows, or one of them fails.
        """
        moved = total = 0.0

        def on_rows(dense: Tensor, small: Tensor) -> None:
            nonlocal moved, total
            kept = self._kept(dense.shape[1], small.shape[1], plan).to(dense.device)
            stayed = dense.index_select(1, kept)
            moved += float((small.to(dense.device) - stayed).square().sum())
            total += float(stayed.square().sum())
            if self.count_removed:
                lost = float(dense.square().sum() - stayed.square().sum())
                moved, total = moved + lost, total + lost

        self._compare(model, on_rows)
        if total == 0:
            raise ObjectiveError(
                f"the activations of {self.module!r} are all zero in the dense model; nothing can drift"
            )
        return math.sqrt(max(moved, 0.0) / total)

    def _kept(self, dense: int, small: int, plan: PruningPlan | None) -> Tensor:
        """Which of the dense model's channels the other has, ascending."""
        if dense == small:
            return torch.arange(dense)
        name = self.module if self.group is None else self.group
        if plan is None or name not in plan.groups:
            known = "" if plan is None else f"; those of that size are {', '.join(map(repr, _of_size(plan, dense)))}"
            raise ObjectiveError(
                f"{self.module!r} has {dense} channels in the dense model and {small} in the smaller one: give group=, "
                f"the channel group they are{known}"
            )
        kept = plan.groups[name]
        if plan.sizes[name] != dense or len(kept) != small:
            raise ObjectiveError(
                f"group {name!r} has {plan.sizes[name]} channels and keeps {len(kept)}, but {self.module!r} has "
                f"{dense} in the dense model and {small} in the smaller one; name another group, or channel_dim"
            )
        return torch.from_numpy(kept.copy())


def _of_size(plan: PruningPlan, size: int) -> list[str]:
    return [name for name, length in plan.sizes.items() if length == size]


@dataclass(frozen=True, eq=False)
class Similarity(_Interface):
    """Linear centred kernel alignment of an interface's activations with the dense model's; higher is better.

    ``||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)`` with the columns of X and Y centred: 1 where one is the other rotated
    and scaled, near 0 where they have nothing to do with each other (and many rows: with fewer rows than channels
    anything is similar). Works for different widths, so that it says how much of the representation survives.

    Memory: three matrices of channels by channels, and that of one call of the module; whatever the number of rows.

    Source: Kornblith et al., "Similarity of neural network representations revisited" (arXiv 1905.00414), section 3.
    """

    name: ClassVar[str] = "similarity"

    def __call__(self, model: nn.Module) -> float:
        """The similarity, in [0, 1].

        Raises:
            ObjectiveError: the data never reaches the module, or one model's activations don't vary.
            CalibrationError: the models make different calls or rows, or one of them fails.
        """
        sums: list[_CrossMoments] = []

        def on_rows(dense: Tensor, small: Tensor) -> None:
            if not sums:
                sums.append(_CrossMoments(dense, small))
            sums[0].add(dense, small.to(dense.device))

        self._compare(model, on_rows)
        cross, dense, small = (float(c.norm()) for c in sums[0].centred())
        if dense == 0 or small == 0:
            which = "dense" if dense == 0 else "smaller"
            raise ObjectiveError(
                f"the activations of {self.module!r} don't vary in the {which} model; nothing compares"
            )
        return cross**2 / (dense * small)


class _CrossMoments:
    """Sums over rows of two sets of columns: of both, of their Gram matrices and of their products.

    The first row is subtracted from all, so that a large mean costs no digits.
    """

    def __init__(self, dense: Tensor, small: Tensor) -> None:
        self._origins = dense[0].clone(), small[0].clone().to(dense.device)
        self._rows = 0
        p, q = dense.shape[1], small.shape[1]
        self._sum = dense.new_zeros(p + q)
        self._products = [dense.new_zeros(q, p), dense.new_zeros(p, p), dense.new_zeros(q, q)]

    def add(self, dense: Tensor, small: Tensor) -> None:
        x, y = dense - self._origins[0], small - self._origins[1]
        self._rows += len(x)
        self._sum += torch.cat([x.sum(dim=0), y.sum(dim=0)])
        for total, (a, b) in zip(self._products, ((y, x), (x, x), (y, y)), strict=True):
            total.addmm_(a.mT, b)

    def centred(self) -> list[Tensor]:
        """Y^T X, X^T X and Y^T Y with centred columns."""
        x, y = self._sum.split([self._products[1].shape[0], self._products[2].shape[0]])
        return [
            total - torch.outer(a, b) / self._rows
            for total, (a, b) in zip(self._products, ((y, x), (x, x), (y, y)), strict=True)
        ]

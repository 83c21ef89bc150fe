"""Least squares of one consumer against the dense model's outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from secateur.calibration import Call, InputMoments, Output, Reader, check_finite, damping
from secateur.calibration.following import Following
from secateur.calibration.layouts import as_float64
from secateur.errors import CalibrationError
from secateur.recovery.after_activation import Rows, step_after


@dataclass(frozen=True, eq=False)
class Past:
    """How a consumer is fitted past the function that follows it.

    Attributes:
        function: that function.
        steps: of L-BFGS, at most.
        bytes: of rows that may be held in memory.
    """

    function: Following
    steps: int
    bytes: int


@dataclass(frozen=True)
class RefittedConsumer:
    """One refitted consumer.

    Attributes:
        parameter: dotted name of the weight.
        rows: calibration rows.
        features: inputs per row (channels times taps, per conv group).
        error_before: squared error of the module's outputs against the dense model's, in units of the dense outputs'
            variance, with the weight as surgery left it; upstream is already refitted.
        error_after: the same with the ridge solution.
        following: name of the element-wise function past which the solution was improved; empty if it wasn't.
        following_before: squared error after that function, in units of the variance there, with the ridge solution.
        following_after: the same with the improved one.
    """

    parameter: str
    rows: int
    features: int
    error_before: float
    error_after: float
    following: str = ""
    following_before: float = 0.0
    following_after: float = 0.0

    def __str__(self) -> str:
        text = f"{self.parameter}: relative error {self.error_before:.3g} -> {self.error_after:.3g} ({self.rows} rows)"
        if not self.following:
            return text
        return f"{text}; after {self.following} {self.following_before:.3g} -> {self.following_after:.3g}"


class Fit:
    """Least squares of one consumer: moments of its inputs h' and of the dense outputs y, and their solution.

    All sums are per conv group: cross h' y^T (G, features, outputs), outputs y (G, outputs), squares y^2 (G, outputs).
    """

    def __init__(self, reader: Reader, module: Any, outputs: Tensor, past: Past | None = None) -> None:
        """A fit without rows.

        Args:
            reader: the consumer.
            module: the smaller model's module that owns it; ``solve`` writes into it.
            outputs: the dense module's output channels that the smaller one still has.
            past: the function that follows, and what to do about it; None to solve the linear problem alone.
        """
        self.reader = reader
        self._module = module
        self._outputs = outputs
        self._past = past
        self._moments: InputMoments | None = None
        if past is not None:
            dtype = torch.float64 if module.weight.dtype == torch.float64 else torch.float32
            self._held = Rows(past.bytes, dtype)

    @property
    def moments(self) -> InputMoments:
        """Moments of the inputs.

        Raises:
            CalibrationError: the module was never called.
        """
        if self._moments is None:
            raise CalibrationError(f"calibration no longer reaches {self.reader.module!r}; it must repeat its calls")
        return self._moments

    def add(self, dense: Output, pruned: Call) -> None:
        """Add the rows of one call of the dense and the smaller model."""
        layout, module = self.reader.layout, self._module
        targets = layout.rows(dense.module, dense.outputs)
        conv_groups, start = layout.conv_groups(module), 0
        for block in layout.features(module, pruned.inputs, pruned.outputs):
            rows = targets[start : start + block.shape[1]].to(block.device)
            start += len(rows)
            chosen = as_float64(rows[:, self._outputs.to(block.device)])
            per_group = chosen.unflatten(1, (conv_groups, -1)).movedim(1, 0)
            self._add_block(block, per_group)
            if self._past is not None:
                self._held.add(block, per_group)

    def _add_block(self, block: Tensor, targets: Tensor) -> None:
        if self._moments is None:
            self._moments = InputMoments(block)
            self._cross = block.new_zeros(*block.shape[::2], targets.shape[2])
            self._sums = block.new_zeros(targets.shape[::2])
            self._squares = block.new_zeros(targets.shape[::2])
        self._moments.add(block)
        self._cross.baddbmm_(block.mT, targets)
        self._sums += targets.sum(dim=1)
        self._squares += targets.square().sum(dim=1)

    def solve(self, ridge: float) -> RefittedConsumer:
        """Write the solution into the smaller model's module."""
        moments, module = self.moments, self._module
        check_finite(self.reader, moments.gram, self._cross, self._squares)
        has_bias = module.bias is not None
        gram, cross = moments.solved_gram(centred=has_bias), self._cross.clone()
        if has_bias:
            cross -= moments.total[:, :, None] * (self._sums[:, None, :] / moments.rows)
            # What never varies explains nothing: what is left of its products is rounding, too.
            cross.masked_fill_(gram.diagonal(dim1=1, dim2=2)[:, :, None] == 0, 0)
        old = self.reader.layout.matrix(module, module.weight.detach()).to(gram)
        factor = self._factor(gram, ridge)
        new = old + torch.cholesky_solve(cross - gram @ old.mT, factor).mT
        before = self._error(old, self._bias_now(gram))
        # The best bias makes the mean residual zero; without one the moments weren't centred either.
        bias = (self._sums - (new @ moments.total[:, :, None])[..., 0]) / moments.rows if has_bias else None
        self._write(new, bias)
        solved = RefittedConsumer(self.reader.parameter, moments.rows, gram.shape[-1], before, self._error(new, bias))
        return solved if self._past is None else self._step_past(self._past, solved, factor, new, bias)

    def _step_past(
        self, past: Past, solved: RefittedConsumer, factor: Tensor, matrix: Tensor, bias: Tensor | None
    ) -> RefittedConsumer:
        """Improve the ridge solution past the function that follows, and write it if it is better."""
        rows = self.moments.rows
        mean = torch.zeros_like(self.moments.total) if bias is None else self.moments.total / rows
        stepped = step_after(past.function, self._held, factor / rows**0.5, mean, matrix, bias, past.steps)
        if stepped is None:
            return solved
        self._write(stepped.matrix, stepped.bias)
        return replace(
            solved,
            following=past.function.name,
            following_before=stepped.error_before,
            following_after=stepped.error_after,
        )

    def _factor(self, gram: Tensor, ridge: float) -> Tensor:
        """Lower Cholesky factor of gram + lambda."""
        damped = gram.clone()
        damped.diagonal(dim1=1, dim2=2).add_(damping(gram, ridge)[:, None])
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(damped)
        if bool(failed.any()):
            raise CalibrationError(
                f"the inputs of {self.reader.module!r} are linearly dependent on the calibration data, so that ridge="
                f"{ridge:g} is too small for a solution; use a larger ridge, such as {max(1e-4, 10 * ridge):g}, or "
                "more rows"
            )
        return factor

    def _bias_now(self, like: Tensor) -> Tensor | None:
        if self._module.bias is None:
            return None
        bias: Tensor = self._module.bias.detach().to(like)
        return bias.reshape(self._sums.shape)

    def _error(self, matrix: Tensor, bias: Tensor | None) -> float:
        """Squared error of matrix and bias, in units of the dense outputs' variance (of their mean square if zero)."""
        moments = self.moments
        offset = torch.zeros_like(self._sums) if bias is None else bias
        predicted = (matrix @ moments.total[:, :, None])[..., 0]
        error = self._squares - 2 * (matrix.mT * self._cross).sum(dim=1) + ((matrix @ moments.gram) * matrix).sum(dim=2)
        error += 2 * offset * (predicted - self._sums) + moments.rows * offset.square()
        variance = (self._squares - self._sums.square() / moments.rows).sum()
        scale = variance if variance > 1e-12 * self._squares.sum() else self._squares.sum()
        # The sums cancel where the fit is exact: what rounding leaves may be just below zero.
        return float(error.sum().clamp(min=0) / scale) if scale > 0 else float(error.sum().clamp(min=0))

    def _write(self, matrix: Tensor, bias: Tensor | None) -> None:
        with torch.no_grad():
            self._module.weight.copy_(self.reader.layout.weight(self._module, matrix))
            if bias is not None:
                self._module.bias.copy_(bias.reshape(-1))

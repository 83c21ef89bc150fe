"""Refit: closed-form least-squares repair of the pruned consumers.

For a consumer with dense weight W, bias b and inputs h, of which the smaller model computes h'_K, in the smaller model

    W', b' = argmin sum over rows || W h + b - (W' h'_K + b') ||^2 + lambda || W' - W_K ||^2

with W_K the weight after surgery. Consumers are solved in trace order, each with the inputs that the already refitted
ones upstream give it. Consumers that don't feed each other share a pass over the data.

A deep chain would need a pass per layer, and so time quadratic in depth. Beyond a number of passes, consecutive layers
share one: in it, the outputs of those that aren't refitted yet are replaced by the dense model's. On a residual network
of 25 stages, trained on digits, with 40 % of its parameters gone, the squared error of the outputs, in units of their
variance, was 0.007 with all 25 passes, 0.008 with 8, 0.009 with 4, 0.028 with one, and 1.3 without refit.

In a loop, such as a rollout of a dynamics model, a consumer's inputs depend on its own earlier outputs. There the
outputs of what isn't refitted yet are replaced likewise while the sums are taken. On three small latent
models with half of the channels gone, the error after eight steps was below 1 % of what it was without that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.calibration import (
    Calibration,
    CalibrationData,
    Call,
    InputMoments,
    Reader,
    Skipped,
    as_calibration,
    check_finite,
    damping,
    run_in_lockstep,
    survey,
    warn_few_rows,
)
from secateur.calibration.layouts import as_float64
from secateur.errors import CalibrationError, PlanError, SecateurWarning
from secateur.plan import PruningPlan, named_tensors


@dataclass(frozen=True)
class RefittedConsumer:
    """One refitted consumer.

    Attributes:
        parameter: dotted name of the weight.
        rows: calibration rows.
        features: inputs per row (channels times taps, per conv group).
        error_before: squared error of the module's outputs against the dense model's, in units of the dense outputs'
            variance, with the weight as surgery left it; upstream is already refitted.
        error_after: the same with the new weight.
    """

    parameter: str
    rows: int
    features: int
    error_before: float
    error_after: float


@dataclass(frozen=True)
class RefitReport:
    """What a refit did.

    Attributes:
        refitted: the refitted consumers, in order.
        skipped: pruned consumers left as surgery left them, with reasons.
        passes: paired runs over the calibration data; one more run found the consumers.
    """

    refitted: tuple[RefittedConsumer, ...]
    skipped: tuple[Skipped, ...]
    passes: int

    def __str__(self) -> str:
        lines = [f"{len(self.refitted)} consumers refitted in {self.passes} passes, {len(self.skipped)} skipped"]
        lines += [
            f"  {c.parameter}: relative error {c.error_before:.3g} -> {c.error_after:.3g} ({c.rows} rows)"
            for c in self.refitted
        ]
        return "\n".join(lines + [f"  skipped {s}" for s in self.skipped])


def refit(
    small: nn.Module,
    model: nn.Module,
    plan: PruningPlan,
    calibration: CalibrationData,
    *,
    ridge: float = 1e-4,
    passes: int = 16,
) -> nn.Module:
    """Repair ``small``'s pruned consumers by least squares against ``model``; see :func:`refit_consumers`.

    Args:
        small: the smaller model that ``apply(model, plan)`` made; its weights are changed in place.
        model: the dense model; untouched.
        plan: the plan that made ``small``.
        calibration: an iterable of inputs like ``example_inputs``, or a function that takes a model and exercises it,
            with the same calls and rows whichever model it is given.
        ridge: pull towards the weights after surgery, in units of the Gram matrix's mean diagonal; at least 0.
        passes: paired runs over the calibration data, at most. As many as the longest chain of consumers has are best;
            fewer keep the time linear in depth.

    Returns:
        ``small`` itself.

    Warns:
        SecateurWarning: some pruned consumers can't be refitted, or there are fewer rows than inputs.

    Raises:
        CalibrationError: as in :func:`refit_consumers`.
        PlanError: as in :func:`refit_consumers`.
    """
    report = refit_consumers(small, model, plan, calibration, ridge=ridge, passes=passes)
    if report.skipped:
        listing = "; ".join(map(str, report.skipped))
        warnings.warn(f"consumers that refit leaves as surgery left them: {listing}", SecateurWarning, stacklevel=2)
    return small


def refit_consumers(
    small: nn.Module,
    model: nn.Module,
    plan: PruningPlan,
    calibration: CalibrationData,
    *,
    ridge: float = 1e-4,
    passes: int = 16,
    on_step: Callable[[str, int, int], None] | None = None,
) -> RefitReport:
    """Refit in place, as :func:`refit` does, and say what was done.

    Both models run in evaluation mode and without gradients; modes and the global random state are put back. Memory:
    the Gram matrices of the consumers in one pass, whatever the number of rows. Weights and biases keep their dtype,
    device and ``requires_grad``; a module without a bias gets none.

    Args:
        small: the smaller model; changed in place.
        model: the dense model; untouched.
        plan: the plan that made ``small``.
        calibration: as in :func:`refit`.
        ridge: as in :func:`refit`.
        passes: as in :func:`refit`.
        on_step: called after each consumer with its parameter name, the consumers done and their total.

    Raises:
        CalibrationError: calibration is empty, fails, never reaches a pruned consumer, makes different calls on the two
            models, or gives values that aren't finite; ridge is negative, or too small for the data; passes below 1.
        PlanError: ``small`` or ``model`` isn't of the plan's shapes.
    """
    if not ridge >= 0:
        raise CalibrationError(f"ridge must be at least 0, not {ridge!r}")
    if not passes >= 1:
        raise CalibrationError(f"passes must be at least 1, not {passes!r}")
    _check_models(small, model, plan)
    data = as_calibration(calibration)
    found = survey(model, plan.consumers, data)
    stages = _shared(found.stages(), passes)
    refitted: list[RefittedConsumer] = []
    for index, stage in enumerate(stages):
        feeding = {name for reader in stage for name in found.upstream[reader.parameter]}
        pending = [reader for later in stages[index:] for reader in later if reader.parameter in feeding]
        for fit in _accumulated(small, model, plan, stage, pending, data):
            refitted.append(fit.solve(ridge))
            if on_step is not None:
                on_step(fit.reader.parameter, len(refitted), len(found.readers))
    warn_few_rows({c.parameter: (c.rows, c.features) for c in refitted if c.rows < c.features})
    return RefitReport(tuple(refitted), found.skipped, len(stages))


def _shared(stages: Sequence[Sequence[Reader]], passes: int) -> list[tuple[Reader, ...]]:
    """Stages, with neighbours put together so that there are at most ``passes``."""
    parts = np.array_split(np.arange(len(stages)), min(passes, len(stages)))
    return [tuple(reader for index in part for reader in stages[index]) for part in parts]


def _check_models(small: nn.Module, model: nn.Module, plan: PruningPlan) -> None:
    if small is model:
        raise PlanError("refit needs the dense model beside the smaller one; apply the plan without inplace=True")
    plan.check_fits(model)
    tensors = named_tensors(small)
    for name in plan.shapes:
        got = tuple(tensors[name].shape) if name in tensors else "missing"
        if got != plan.kept_shape(name):
            expected = plan.kept_shape(name)
            raise PlanError(f"the smaller model wasn't made with this plan: {name} should be {expected}, but is {got}")


def _accumulated(
    small: nn.Module,
    model: nn.Module,
    plan: PruningPlan,
    stage: Sequence[Reader],
    pending: Sequence[Reader],
    data: Calibration,
) -> list[_Fit]:
    """One paired run: the sums for the readers of a stage.

    ``pending`` readers feed the stage through a loop and aren't refitted yet: they hand on the dense model's outputs,
    as they nearly will once they are, and not what surgery has made of them.
    """
    fits = {r.parameter: _Fit(r, small, _kept_outputs(r, model, plan)) for r in stage}
    replaced = {r.parameter: _kept_outputs(r, model, plan) for r in pending}

    def on_pair(dense: Call, pruned: Call) -> Tensor | None:
        reader = dense.reader
        if reader.parameter in fits:
            fits[reader.parameter].add(dense, pruned)
        if reader.parameter not in replaced:
            return None
        chosen = replaced[reader.parameter].to(dense.outputs.device)
        return dense.outputs.index_select(reader.layout.channel_dim(dense.module), chosen).to(pruned.outputs)

    readers = {r.parameter: r for r in (*stage, *pending)}
    run_in_lockstep(model, small, list(readers.values()), data, on_pair)
    return list(fits.values())


class _Fit:
    """Least squares of one consumer: moments of its inputs h' and of the dense outputs y, and their solution.

    All sums are per conv group: cross h' y^T (G, features, outputs), outputs y (G, outputs), squares y^2 (G, outputs).
    """

    def __init__(self, reader: Reader, small: nn.Module, outputs: Tensor) -> None:
        self.reader = reader
        self._module: Any = small.get_submodule(reader.module)
        self._outputs = outputs
        self._moments: InputMoments | None = None

    @property
    def moments(self) -> InputMoments:
        """Moments of the inputs.

        Raises:
            CalibrationError: the module was never called.
        """
        if self._moments is None:
            raise CalibrationError(f"calibration no longer reaches {self.reader.module!r}; it must repeat its calls")
        return self._moments

    def add(self, dense: Call, pruned: Call) -> None:
        """Add the rows of one call of the dense and the smaller model."""
        layout, module = self.reader.layout, self._module
        targets = layout.rows(dense.module, dense.outputs)
        conv_groups, start = layout.conv_groups(module), 0
        for block in layout.features(module, pruned.inputs, pruned.outputs):
            rows = targets[start : start + block.shape[1]].to(block.device)
            start += len(rows)
            chosen = as_float64(rows[:, self._outputs.to(block.device)])
            self._add_block(block, chosen.unflatten(1, (conv_groups, -1)).movedim(1, 0))

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
        old = self.reader.layout.matrix(module, module.weight.detach()).to(gram)
        new = old + self._step(gram, cross - gram @ old.mT, ridge).mT
        before = self._error(old, self._bias_now(gram))
        # The best bias makes the mean residual zero; without one the moments weren't centred either.
        bias = (self._sums - (new @ moments.total[:, :, None])[..., 0]) / moments.rows if has_bias else None
        self._write(new, bias)
        after = self._error(new, bias)
        return RefittedConsumer(self.reader.parameter, moments.rows, gram.shape[-1], before, after)

    def _step(self, gram: Tensor, gradient: Tensor, ridge: float) -> Tensor:
        """(gram + lambda)^-1 gradient, shape (G, features, outputs); changes ``gram``'s diagonal."""
        damped = gram.clone()
        damped.diagonal(dim1=1, dim2=2).add_(damping(gram, ridge)[:, None])
        factor, failed = torch.linalg.cholesky_ex(damped)
        if bool(failed.any()):
            raise CalibrationError(
                f"the inputs of {self.reader.module!r} are linearly dependent on the calibration data, so that ridge="
                f"{ridge:g} is too small for a solution; use a larger ridge, such as 1e-4, or more rows"
            )
        return torch.cholesky_solve(gradient, factor)

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


def _kept_outputs(reader: Reader, model: nn.Module, plan: PruningPlan) -> Tensor:
    """The dense module's output channels that the smaller one still has, in order."""
    dense = model.get_submodule(reader.module)
    shape = plan.shapes[reader.parameter]
    kept = [np.asarray(plan.kept.get((reader.parameter, axis), np.arange(size))) for axis, size in enumerate(shape)]
    return torch.tensor(reader.layout.kept_outputs(dense, kept))

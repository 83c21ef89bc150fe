"""What a smaller model is taught: to make of every minibatch what the dense model makes, in units of its variance."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.calibration.layouts import as_float64
from secateur.calibration.runs import Run, failures_named, left_alone
from secateur.errors import CalibrationError
from secateur.graph.components import ComponentMap
from secateur.plan import PruningPlan
from secateur.recovery.channels import Channels, traced_channels
from secateur.recovery.observer import Look, Observer

HELD_BYTES = 2**29
"""The most that is kept of what the dense model makes; the rest is made anew whenever it is needed."""

_SAME_CALLS = "calibration must make the same calls with the same data whichever model it is given"

_Aims = dict[str, Tensor]
"""Target to all that the dense model makes for it in a minibatch, without removed channels, flat."""


class Lesson:
    """The dense model's targets on all minibatches, and how far the smaller model is from them.

    A target is what one module of a component makes, or a run returns, in all its calls and all minibatches: one tensor
    of it, where there are several. Every minibatch has random numbers of its own, the same for both models whenever it
    is run. Runs leave buffers and other attributes of the models as they were.

    Args:
        dense: watches the dense model.
        small: watches the smaller model.
        runs: one per minibatch.
        components: of the dense model.
        plan: what made the smaller model; None if that isn't known.
        seed: of the random numbers.

    Attributes:
        left_out: target or component to the reason why it isn't compared; complete once ``errors`` has been called.
    """

    def __init__(
        self,
        dense: Observer,
        small: Observer,
        runs: Sequence[Run],
        components: ComponentMap,
        plan: PruningPlan | None,
        seed: int,
    ) -> None:
        self._dense, self._small, self._runs, self._components, self._plan = dense, small, runs, components, plan
        self._seeds = np.random.SeedSequence(seed).generate_state(len(runs))
        self._channels: dict[tuple[str, int], Channels] = {}
        self._shapes: list[list[tuple[str, tuple[int, ...]]]] = []
        self._held: dict[int, _Aims] = {}
        self.left_out: dict[str, str] = {}
        self._variance = self._surveyed()

    def loss(self, index: int) -> Tensor:
        """Mean over the targets of their errors on one minibatch, with a gradient.

        Raises:
            CalibrationError: nothing of the minibatch can be compared, or what the smaller model makes has no gradient;
                or as in ``errors``.
        """
        with torch.enable_grad():
            errors = [e.mean() / self._variance[name] for name, e in self._squared_errors(index).items()]
            if not errors:
                raise CalibrationError(
                    f"nothing of minibatch {index}, counted from 0, can be compared; leave it out of the calibration"
                )
            loss = torch.stack([e.to(errors[0].device) for e in errors]).mean()
        if not loss.requires_grad:
            raise CalibrationError(
                "what the smaller model makes has no gradient: the calibration function must not run it under"
                " torch.no_grad or torch.inference_mode, nor detach what it returns"
            )
        return loss

    def errors(self) -> dict[str, float]:
        """Target to the mean squared error over all minibatches, in units of the dense model's variance.

        Raises:
            CalibrationError: the two models make different calls, a run fails, or nothing can be compared.
        """
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        with torch.no_grad():
            for index in range(len(self._runs)):
                for name, squares in self._squared_errors(index).items():
                    totals[name] += float(as_float64(squares).sum())
                    counts[name] += squares.numel()
        compared = [name for name in totals if name not in self.left_out]
        if not compared:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items())
            raise CalibrationError(f"the two models have nothing that can be compared ({reasons or 'no outputs'})")
        return {name: totals[name] / counts[name] / self._variance[name] for name in compared}

    # --- the dense model --------------------------------------------------------------------------------------------

    def _surveyed(self) -> dict[str, float]:
        """One run over the data: learn the channels of every target, and the variances; and keep what fits."""
        spreads: dict[str, _Spread] = defaultdict(_Spread)
        held = 0
        for index in range(len(self._runs)):
            made = self._made_by_dense(index)
            self._shapes.append([(name, tuple(tensor.shape)) for name, tensor in made])
            for name, tensor in made:
                spreads[name].add(self._channels[name, tensor.dim()].rows(tensor))
            aims = _flat(made)
            held += sum(tensor.nbytes for tensor in aims.values())
            if held <= HELD_BYTES:
                self._held[index] = aims
        for index, name in enumerate(self._components.names):
            if index not in self._dense.reached and self._components.owner.get("") != index:
                self.left_out[name] = "the calibration data calls none of its modules"
        return {name: spread.variance(name) for name, spread in spreads.items()}

    def _made_by_dense(self, index: int) -> list[tuple[str, Tensor]]:
        """What the dense model makes of a minibatch, as far as the smaller model has its channels."""
        with torch.no_grad():
            made = self._run(self._dense, index, _copied, "the dense model")
        if any((name, tensor.dim()) not in self._channels for name, tensor in made):
            self._learn_channels(index)
        return [(name, self._channels[name, tensor.dim()].kept(tensor)) for name, tensor in made]

    def _learn_channels(self, index: int) -> None:
        self._seed(index)
        traced = traced_channels(self._dense, self._runs[index], self._components, self._plan)
        for name, dims, channels in traced:
            known = self._channels.setdefault((name, dims), channels)
            if channels.unpaired or not known.same(channels):
                self.left_out[name] = channels.unpaired or "its channels are other ones in other calls"

    def _aims(self, index: int) -> _Aims:
        if index in self._held:
            return self._held[index]
        made = self._made_by_dense(index)
        if [(name, tuple(tensor.shape)) for name, tensor in made] != self._shapes[index]:
            raise CalibrationError(f"two runs of the dense model on the same data differ; {_SAME_CALLS}")
        return _flat(made)

    # --- the smaller model ------------------------------------------------------------------------------------------

    def _squared_errors(self, index: int) -> _Aims:
        """Target to the squared differences between the two models' tensors, flat."""
        made = self._run(self._small, index, Tensor.clone, "the smaller model")
        self._check_calls([(name, tuple(tensor.shape)) for name, tensor in made], self._shapes[index])
        found = _flat([(name, tensor) for name, tensor in made if name not in self.left_out])
        aims = self._aims(index)
        return {name: _precise(tensor - aims[name].to(tensor)).square() for name, tensor in found.items()}

    def _check_calls(
        self, small: Sequence[tuple[str, tuple[int, ...]]], dense: Sequence[tuple[str, tuple[int, ...]]]
    ) -> None:
        """Check that both models made the same; a target that is narrower for an unknown reason is left out."""
        for (made, shape), (expected, aim) in zip(small, dense, strict=False):
            if made != expected:
                raise CalibrationError(
                    f"the dense model makes {expected!r} where the smaller makes {made!r}; {_SAME_CALLS}"
                )
            if shape != aim and made not in self.left_out:
                self._explain(made, shape, aim)
        if len(small) != len(dense):
            which, longer = ("smaller", small) if len(small) > len(dense) else ("dense", dense)
            extra = longer[min(len(small), len(dense))][0]
            raise CalibrationError(f"the {which} model makes {extra!r} more often than the other; {_SAME_CALLS}")

    def _explain(self, name: str, small: tuple[int, ...], dense: tuple[int, ...]) -> None:
        channels = self._channels[name, len(dense)].dims
        rows = [tuple(n for d, n in enumerate(shape) if d not in channels) for shape in (small, dense)]
        if self._plan is not None or len(small) != len(dense) or rows[0] != rows[1]:
            raise CalibrationError(
                f"{name!r} has shape {small} in the smaller model, where the dense model's channels that it should"
                f" have make {dense}; {_SAME_CALLS}"
            )
        self.left_out[name] = f"shape {small} for {dense} in the dense model; give plan=, which says what was kept"

    # --- both -------------------------------------------------------------------------------------------------------

    def _run(self, observer: Observer, index: int, look: Look, which: str) -> list[tuple[str, Any]]:
        self._seed(index)
        with left_alone(observer.model), failures_named(which):
            return observer.observe(self._runs[index], look)

    def _seed(self, index: int) -> None:
        seed = int(self._seeds[index])
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)


class _Spread:
    """Sums over everything that the dense model makes for one target."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = defaultdict(int)
        self._totals: dict[int, Tensor] = {}
        self._squares = 0.0

    def add(self, rows: Tensor) -> None:
        """Add a block, shape (rows, channels)."""
        rows = as_float64(rows)
        width = rows.shape[1]
        self._rows[width] += len(rows)
        self._totals[width] = self._totals.get(width, 0) + rows.sum(dim=0)
        self._squares += float(rows.square().sum())

    def variance(self, name: str) -> float:
        """Mean over the channels of their variances; the mean square where nothing varies, 1 where all is zero.

        Raises:
            CalibrationError: the dense model made values that aren't finite.
        """
        if not np.isfinite(self._squares):
            raise CalibrationError(
                f"the dense model's {name!r} isn't finite (NaN or infinite) on the calibration data, or too large"
            )
        means = sum(float(total.square().sum()) / self._rows[width] for width, total in self._totals.items())
        deviations = self._squares - means
        scale = deviations if deviations > 1e-12 * self._squares else self._squares
        return scale / sum(rows * width for width, rows in self._rows.items()) if scale > 0 else 1.0


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _precise(tensor: Tensor) -> Tensor:
    """In float32 at least: squares leave the range of shorter types."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _flat(made: Sequence[tuple[str, Tensor]]) -> _Aims:
    """All tensors of each name, one after the other."""
    by_name: Mapping[str, list[Tensor]] = defaultdict(list)
    for name, tensor in made:
        by_name[name].append(tensor.reshape(-1))
    return {name: torch.cat(tensors) for name, tensors in by_name.items()}

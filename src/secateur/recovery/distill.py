"""Distillation: a short training of the smaller model against the dense one, on calibration data alone.

Every minibatch is run on both models. The loss is the mean over all targets (what each component's modules make, call
by call, and what the run returns) of

    mean over elements of (made by the smaller model - made by the dense one)^2 / variance of what the dense one makes

of the channels that are kept. The variance is taken over all of the data, about each channel's mean, and is the mean
over the channels. The smaller model's runs use what it has made itself: a rollout of a dynamics model trains it to stay
near the dense model's latents over several steps.

Refit first: it is exact for the linear part, and needs no steps. Distillation after it moves all weights together,
through the nonlinearities and loops that refit can't see past.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from secateur.calibration import CalibrationData, evaluating
from secateur.errors import CalibrationError, warn
from secateur.graph.components import ComponentSpec, component_map
from secateur.graph.storage import storage_address
from secateur.plan import PruningPlan
from secateur.recovery.both_models import check_pruned, check_two
from secateur.recovery.lesson import Lesson
from secateur.recovery.minibatches import minibatches
from secateur.recovery.observer import Observer
from secateur.recovery.training import OnProgress, Training, fractions_of, fractions_until, shuffled_passes

LEARNING_RATE = 1e-3
"""Of Adam, at the start.

On a TD-MPC agent with 95 % of its parameters removed, in units of the outputs' variance on unseen data: 0.0015 after
refit; 0.00055 after 200 steps at this rate, 0.00058 at 3e-4, nothing gained at 3e-3; 0.00031 after 1,000 steps. With
75 % removed refit leaves 0.0001: 400 steps at 3e-4 halve it, and at this rate gain nothing.
"""


@dataclass(frozen=True)
class DistillReport:
    """What a distillation did.

    Attributes:
        before: target to the mean squared error over all of the data at the start, in units of the variance of what the
            dense model makes.
        after: the same of the model as it is returned.
        left_out: what isn't compared, with reasons: targets whose channels can't be paired, components never called.
        steps: of the optimiser.
        minibatches: how many there are.
        seconds: wall-clock time of everything.
        improved: whether training has lowered the mean error; if not, the weights are those at the start.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    left_out: Mapping[str, str]
    steps: int
    minibatches: int
    seconds: float
    improved: bool

    @property
    def error_before(self) -> float:
        """Mean over the targets, at the start."""
        return _mean(self.before)

    @property
    def error_after(self) -> float:
        """Mean over the targets, at the end."""
        return _mean(self.after)

    def __str__(self) -> str:
        epochs = self.steps / self.minibatches
        lines = [
            f"{self.steps} steps ({epochs:.3g} passes) in {self.seconds:.1f} s: relative error {self.error_before:.3g}"
            f" -> {self.error_after:.3g}{'' if self.improved else ', not lowered: weights left as they were'}"
        ]
        lines += [f"  {name}: {error:.3g} -> {self.after[name]:.3g}" for name, error in self.before.items()]
        return "\n".join(lines + [f"  left out {name}: {reason}" for name, reason in self.left_out.items()])


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """A short training, as :func:`distill` makes it; ``run`` says what was done.

    Attributes:
        seconds: as in :func:`distill`.
        steps: as in :func:`distill`.
        plan: as in :func:`distill`.
        components: as in :func:`distill`.
        learning_rate: as in :func:`distill`.
        batch: as in :func:`distill`.
        seed: as in :func:`distill`.
        on_progress: as in :func:`distill`.

    Raises:
        CalibrationError: neither or both of seconds and steps are given, or a number isn't positive.
    """

    seconds: float | None = None
    steps: int | None = None
    plan: PruningPlan | None = None
    components: Mapping[str, ComponentSpec] | None = None
    learning_rate: float = LEARNING_RATE
    batch: int | None = None
    seed: int = 0
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            given = "both" if self.steps is not None else "neither"
            raise CalibrationError(f"give either seconds= or steps=, how long to distil; {given} given")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise CalibrationError(f"seconds must be positive, not {self.seconds!r}")
        if not 0 < self.learning_rate < math.inf:
            raise CalibrationError(f"learning_rate must be positive, not {self.learning_rate!r}")
        for name, value in (("steps", self.steps), ("batch", self.batch)):
            if value is not None and (type(value) is not int or value < 1):
                raise CalibrationError(f"{name} must be a whole number, at least 1, not {value!r}")

    def run(self, small: nn.Module, model: nn.Module, calibration: CalibrationData) -> DistillReport:
        """Distil in place, without the warnings that :func:`distill` gives, and say what was done.

        Both models run in evaluation mode: no dropout, and batch norms keep their statistics. Only weights of ``small``
        that require a gradient change; modes, buffers and the global random state are put back. When it fails or is
        interrupted, ``small`` is as it was. The weights are those of the last step, if their error over all of the data
        is lower than at the start, else those of the start.

        Memory: Adam's two moments per weight, one minibatch's activations, and up to ``lesson.HELD_BYTES`` of what the
        dense model makes; what is more is made anew in every pass. One run is traced, to see which dimensions count
        channels.

        Args:
            small: as in :func:`distill`.
            model: as in :func:`distill`.
            calibration: as in :func:`distill`.

        Raises:
            CalibrationError: calibration is empty, fails, makes different calls on the two models or values that aren't
                finite; nothing can be compared, or nothing trained; the two models share trained weights; the gradient
                is no longer finite.
            PlanError: the two models are one, or aren't of the plan's shapes.
            TraceError: ``components`` names what isn't there, or a run can't be traced.
        """
        started = time.perf_counter()
        if self.plan is None:
            check_two(small, model, "distill")
        else:
            check_pruned(small, model, self.plan, "distill")
        training = Training(_trained_weights(small, model), self.learning_rate)
        runs = minibatches(calibration, self.batch, self.seed)
        owners = component_map(model, self.components)
        with torch.inference_mode(False), evaluating(model, small), training.undone_on_failure():
            with Observer(model, owners) as dense, Observer(small, owners) as pupil:
                lesson = Lesson(dense, pupil, runs, owners, self.plan, self.seed)
                measuring = time.perf_counter()
                before = lesson.errors()
                # The errors are measured once more at the end.
                fractions = self._fractions(started - (time.perf_counter() - measuring))
                order = shuffled_passes(len(runs), self.seed)
                done = training.run(lesson.loss, order, fractions, self.on_progress)
                after = lesson.errors()
            improved = _mean(after) < _mean(before)
            if not improved:
                training.undo()
        elapsed = time.perf_counter() - started
        return DistillReport(before, after if improved else before, lesson.left_out, done, len(runs), elapsed, improved)

    def _fractions(self, started: float) -> Iterator[float]:
        """How much of the training is done, before every step; of one that began then, if it is by the clock."""
        if self.steps is not None:
            return fractions_of(self.steps)
        assert self.seconds is not None
        return fractions_until(started + self.seconds)


def distill(
    small: nn.Module,
    model: nn.Module,
    calibration: CalibrationData,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    plan: PruningPlan | None = None,
    components: Mapping[str, ComponentSpec] | None = None,
    learning_rate: float = LEARNING_RATE,
    batch: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> nn.Module:
    """Train ``small`` for a short time to make what ``model`` makes on recorded data; see :class:`Distillation`.

    Args:
        small: the smaller model, best after a refit; its weights are changed in place.
        model: the dense model; untouched.
        calibration: an iterable of inputs like ``example_inputs``; or of functions, each of which takes a model,
            exercises it on one minibatch and returns what counts; or a single such function. All make the same calls
            with the same data whichever model they are given. The items are kept in memory.
        seconds: how long, by the wall clock, all preparations and the final measurement included; at least one step is
            made.
        steps: instead, how many steps. Then the same seed gives the same weights, on one machine.
        plan: what made ``small``: says which channels a narrower output still has. Without it, outputs of another width
            than the dense model's are left out.
        components: as in :func:`secateur.trace`; each direct child with parameters if not given.
        learning_rate: of Adam at the start; it falls to zero on a cosine.
        batch: rows of a minibatch, where calibration is of inputs: their tensors are shuffled and cut along the first
            dimension. If not given, each item is one minibatch.
        seed: of the order of the minibatches, and of the random numbers that runs draw.
        on_progress: called after every step with the fraction that is done, and the loss on the step's minibatch.

    Returns:
        ``small`` itself.

    Warns:
        SecateurWarning: something can't be compared, or the error wasn't lowered.

    Raises:
        CalibrationError: as for :class:`Distillation`, and its ``run``.
        PlanError: as for :meth:`Distillation.run`.
        TraceError: as for :meth:`Distillation.run`.
    """
    distillation = Distillation(
        seconds=seconds,
        steps=steps,
        plan=plan,
        components=components,
        learning_rate=learning_rate,
        batch=batch,
        seed=seed,
        on_progress=on_progress,
    )
    report = distillation.run(small, model, calibration)
    if report.left_out:
        listing = "; ".join(f"{name}: {reason}" for name, reason in report.left_out.items())
        warn(f"what distillation doesn't compare: {listing}")
    if not report.improved and report.error_before > 0:
        warn(
            f"distillation has not lowered the error ({report.error_before:.3g}) in {report.steps} steps, so that the"
            " weights were left as they were; give it more time, or a smaller learning_rate"
        )
    return small


def _trained_weights(small: nn.Module, model: nn.Module) -> list[nn.Parameter]:
    """The smaller model's weights that require a gradient, none of them the dense model's own."""
    weights = {name: weight for name, weight in small.named_parameters() if weight.requires_grad}
    if not weights:
        raise CalibrationError(
            "none of the smaller model's weights requires a gradient, so that there is nothing to train"
        )
    dense = {storage_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    shared = [name for name, weight in weights.items() if storage_address(weight) in dense]
    if shared:
        raise CalibrationError(
            f"the two models share {', '.join(shared)}, which training would change in the dense one, too; give a"
            " copy, or freeze it with requires_grad_(False)"
        )
    return list(weights.values())


def _mean(errors: Mapping[str, float]) -> float:
    return sum(errors.values()) / len(errors)

"""``secateur.prune``: trace, score, allocate, plan, surgery, proof and repair in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from secateur import io
from secateur.allocation import Sparsity, Strategy, Uniform, allocate
from secateur.allocation.objective import Objective, evaluate
from secateur.calibration import CalibrationData, as_calibration
from secateur.errors import TargetError
from secateur.graph.describe import to_text
from secateur.graph.entry_point import EntryPoint
from secateur.graph.graph import DependencyGraph
from secateur.graph.trace import trace
from secateur.importance import Criterion, Magnitude, Reconstruction
from secateur.plan import PruningPlan, plan
from secateur.recovery import refit
from secateur.report.comparison import Stage, comparison
from secateur.surgery import apply
from secateur.verify import VerificationReport, verify


@dataclass(frozen=True, eq=False)
class PruningResult:
    """What :func:`prune` made.

    Attributes:
        model: the smaller model, of the same class, trainable.
        plan: which channels were kept.
        graph: of the original model.
        before: the original's parameters, MACs and objective.
        after: the smaller model's, refitted if there was calibration data.
        report: the proof that the surgery was right.
    """

    model: nn.Module
    plan: PruningPlan
    graph: DependencyGraph
    before: Stage
    after: Stage
    report: VerificationReport

    def save(self, path: str | Path) -> None:
        """Write the smaller model and its plan into a folder; :func:`secateur.load` reads it back.

        Raises:
            StorageError: the folder can't be written.
        """
        io.save(self.model, self.plan, path)

    def __str__(self) -> str:
        return to_text([comparison([self.before, self.after])])


def prune(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    run: EntryPoint | None = None,
    components: Mapping[str, Any] | None = None,
    protect: Sequence[Any] = (),
    target: float | Sparsity = 0.5,
    of: str = "params",
    tolerance: float = 0.01,
    criterion: Criterion | None = None,
    strategy: Strategy | None = None,
    objective: Objective | None = None,
    calibration: CalibrationData | None = None,
) -> PruningResult:
    """Make a smaller model of the same class; the given one is left as it is.

    With a model and its inputs alone: channels are ranked by the L2 norm of their weights, every group loses the same
    fraction, and nothing is repaired. With calibration data they are ranked by what their loss would cost after the
    repair (criterion :class:`secateur.importance.Reconstruction`), and the consumers are refitted.

    Args:
        model: what to prune.
        example_inputs: a tensor, a tuple (positional) or a mapping (keywords) of inputs for ``model(...)``.
        run: instead of them, a function that takes the model, exercises it and returns the outputs whose sizes stay.
        components: name to a module, a module's dotted name, or a list of these; each direct child if not given.
        protect: modules, or dotted names of modules or parameters, whose output axes stay.
        target: fraction to remove, in (0, 1), or a :class:`secateur.Sparsity`, which says the next two itself.
        of: what the fraction is of: ``"params"`` or ``"macs"``.
        tolerance: how far from the target the result may be, as a fraction.
        criterion: scores the channels.
        strategy: finds the coefficients; :class:`secateur.Uniform` if not given.
        objective: takes a model and returns the application's metric, which is reported before and after.
        calibration: inputs like ``example_inputs``, or a function that takes the model and exercises it with the same
            data whichever model it is given.

    Returns:
        The smaller model with its plan, the graph, both sizes and the proof.

    Raises:
        TraceError: the model can't be traced: no parameters, a failing run, unknown names.
        TargetError: the target is malformed or can't be met; the message names the nearest that can.
        ScoreError: the criterion's scores are not finite.
        CalibrationError: the calibration data never reaches a consumer.
        VerificationError: the smaller model is not the original with channels removed.
    """
    sparsity = _sparsity(target, of, tolerance)
    graph = trace(model, example_inputs, run=run, components=components, protect=protect)
    # A one-shot iterator is read once, here: the criterion and the refit both run it.
    data = None if calibration is None else as_calibration(calibration).source
    scores = (criterion or _default_criterion(data))(graph, model)
    allocation = allocate(graph, scores, sparsity, strategy=strategy or Uniform())
    pruning = plan(graph, scores, allocation.coefficients)
    small = apply(model, pruning)
    report = verify(model, small, pruning)
    if data is not None:
        small = refit(small, model, pruning, data)
    kept = {name: len(channels) for name, channels in pruning.groups.items()}
    before = Stage("before", graph.cost(), _value(objective, model))
    after = Stage("after", graph.cost(kept), _value(objective, small))
    return PruningResult(small, pruning, graph, before, after, report)


def _sparsity(target: float | Sparsity, of: str, tolerance: float) -> Sparsity:
    if not isinstance(target, Sparsity):
        return Sparsity(target, tolerance=tolerance, of=of)
    for name, given, default in (("of", of, "params"), ("tolerance", tolerance, 0.01)):
        if given not in (default, getattr(target, name)):
            raise TargetError(f"{name}={given!r} contradicts the target, {target}; give it in the Sparsity alone")
    return target


def _default_criterion(calibration: CalibrationData | None) -> Criterion:
    return Magnitude() if calibration is None else Reconstruction(calibration)


def _value(objective: Objective | None, model: nn.Module) -> float | None:
    return None if objective is None else evaluate(objective, model)

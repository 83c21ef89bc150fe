"""Losses, for entry points that return one."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph import algebra
from secateur.graph.algebra import Operand
from secateur.graph.labels import Factors
from secateur.graph.rules.base import OpCall, names, rule

ELEMENTWISE = names("""
binary_cross_entropy binary_cross_entropy_with_logits huber_loss mse_loss smooth_l1_loss soft_margin_loss
""")

_NOT_REDUCED = 0
"""The value of an operator's ``reduction`` that gives one loss per element."""


@rule(*ELEMENTWISE)
def elementwise(call: OpCall) -> Sequence[Factors]:
    """Predictions and targets meet index by index."""
    given = call.tensors()
    labels = call.aligned(given, max(t.dim() for t in given))
    return [_reduced(call, labels)]


@rule("nll_loss_forward", "nll_loss2d_forward", "multi_margin_loss", "multilabel_margin_loss_forward")
def classes(call: OpCall) -> Sequence[Factors]:
    """Targets name classes by their number: these must stay."""
    scores, target = call["self"], call["target"]
    at = 1 if scores.dim() > 1 else 0
    what = "a class that targets name by its number"
    weight = call.arguments.get("weight")
    call.fix_all([] if weight is None else [weight], what)
    shape = [n for d, n in enumerate(scores.shape) if d != at]
    kept = algebra.renumber_without(call.fix_dims(call.factors("self"), [at], what), [at], scores.dim())
    named = call.factors("target")
    if target.dim() == scores.dim():
        named = algebra.renumber_without(call.fix_dims(named, [at], what), [at], scores.dim())
    operands = [Operand(factors, tuple(shape)) for factors in (kept, named)]
    labels = _reduced(call, algebra.align(call.facts, operands, call.site))
    return [labels, *[() for _ in call.outputs[1:]]]


def _reduced(call: OpCall, labels: Factors) -> Factors:
    if call["reduction"] == _NOT_REDUCED:
        return labels
    call.mix(labels, f"{call.name} over channels")
    return ()


@rule("_ctc_loss", "_cudnn_ctc_loss")
def ctc_loss(call: OpCall) -> Sequence[Factors]:
    """Every alignment of a sequence of classes with a target: everything must stay."""
    call.fix_all(call.tensors(), "aligned with target sequences")
    return [() for _ in call.outputs]

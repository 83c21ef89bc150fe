"""What is asked of every pruned model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from .entry import Entry
from .structure import built, outputs_of, parameter_count, shapes, ties


@dataclass(frozen=True)
class Check:
    """An answer: True, False, or None where the question doesn't apply; and why."""

    passed: bool | None
    text: str = ""


def check_shapes(dense: list[torch.Tensor], small: list[torch.Tensor]) -> Check:
    """Whether the outputs have the dense model's shapes, and are finite where its are."""
    before, after = shapes(dense), shapes(small)
    if before != after:
        return Check(False, f"{after} instead of {before}"[:300])
    for old, new in zip(dense, small, strict=True):
        if new.is_floating_point() and bool(old.isfinite().all()) and not bool(new.isfinite().all()):
            return Check(False, "an output is no longer finite")
    return Check(True)


def check_ties(dense: nn.Module, small: nn.Module) -> Check:
    """Whether names that were one parameter still are."""
    before = ties(dense)
    if not before:
        return Check(None, "no tied parameters")
    broken = before - ties(small)
    return Check(not broken, "; ".join(" = ".join(sorted(group)) for group in broken) or f"{len(before)} ties")


def check_training(entry: Entry, small: nn.Module, inputs: object) -> Check:
    """Whether a backward pass reaches the parameters that it reaches in the dense model, and a step changes them."""
    dense = built(entry)
    with torch.no_grad():
        outputs_of(entry, dense, inputs)  # as the smaller model has been called: some keep what they computed
    try:
        expected = _backward(entry, dense, inputs)
    except RuntimeError as error:
        return Check(None, f"the dense model has no backward pass either: {error}"[:200])
    if not expected:
        return Check(None, "nothing of the dense model gets a gradient")
    reached = _backward(entry, small, inputs)
    if reached != expected:
        lost = sorted(expected ^ reached)
        return Check(False, f"gradients differ in {len(lost)} parameters, {lost[0]} among them")
    parameters = dict(small.named_parameters())
    if not all(bool(parameters[name].grad.isfinite().all()) for name in reached):  # type: ignore[union-attr]
        return Check(False, "a gradient is not finite")
    before = {name: parameters[name].detach().clone() for name in reached}
    torch.optim.Adam(small.parameters(), lr=1e-3).step()
    small.zero_grad()
    if all(torch.equal(before[name], parameters[name]) for name in reached):
        return Check(False, "an optimiser step changes nothing")
    return Check(True, f"{len(reached)} parameters")


def check_enough(entry: Entry, dense: nn.Module, removed: int, share: float, inputs: object) -> Check:
    """Whether ``share`` of the parameters is gone, or of those that the run reaches, where it leaves some aside."""
    count = parameter_count(dense)
    text = f"{removed / count:.1%} of the parameters removed"
    if removed >= share * count:
        return Check(True, text)
    reached = _backward(entry, dense, inputs)
    sizes = {name: parameter.numel() for name, parameter in dense.named_parameters() if parameter.requires_grad}
    used = count - sum(size for name, size in sizes.items() if name not in reached) if reached else count
    if used < count:
        text += f", {removed / used:.1%} of those that the run reaches"
    return Check(removed >= share * used, text)


def _backward(entry: Entry, model: nn.Module, inputs: object) -> set[str]:
    """Names of the parameters that a sum over the outputs gives a gradient."""
    model.zero_grad()
    with torch.enable_grad():
        losses = [o.float().square().mean() for o in outputs_of(entry, model, inputs) if o.requires_grad]
        if losses:
            torch.stack(losses).sum().backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def check_again(entry: Entry, once: int, twice: nn.Module, dense: list[torch.Tensor], inputs: object) -> Check:
    """Whether a model of ``once`` parameters, pruned once more, runs and is smaller still."""
    with torch.no_grad():
        found = check_shapes(dense, outputs_of(entry, twice, inputs))
    after = parameter_count(twice)
    if found.passed and after >= once:
        return Check(False, f"it stays at {once:,} parameters")
    return Check(found.passed, found.text or f"{once:,} to {after:,} parameters")

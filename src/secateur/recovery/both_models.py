"""What a repair needs of the two models that it is given: the smaller one, and the dense one beside it."""

from __future__ import annotations

from torch import nn

from secateur.errors import PlanError
from secateur.plan import PruningPlan, named_tensors


def check_two(small: nn.Module, model: nn.Module, repair: str) -> None:
    """Check that the two models are two; ``repair`` is the name of what needs them.

    Raises:
        PlanError: they are one.
    """
    if small is model:
        raise PlanError(f"{repair} needs the dense model beside the smaller one; apply the plan without inplace=True")


def check_pruned(small: nn.Module, model: nn.Module, plan: PruningPlan, repair: str) -> None:
    """Check that ``plan`` made ``small`` of ``model``, as far as shapes tell.

    Raises:
        PlanError: they are one model, or one of them isn't of the plan's shapes.
    """
    check_two(small, model, repair)
    plan.check_fits(model)
    tensors = named_tensors(small)
    for name in plan.shapes:
        got = tuple(tensors[name].shape) if name in tensors else "missing"
        if got != plan.kept_shape(name):
            expected = plan.kept_shape(name)
            raise PlanError(f"the smaller model wasn't made with this plan: {name} should be {expected}, but is {got}")

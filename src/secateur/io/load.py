"""Read a smaller model back: the factory builds the dense one, the plan gives the shapes, the file the values."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from secateur.errors import PlanError, StorageError
from secateur.graph.walk import named_modules
from secateur.io.layout import FORMAT, PLAN, TENSORS, TIED, stored_tensors
from secateur.plan import PruningPlan, named_tensors
from secateur.surgery import apply

Model = TypeVar("Model", bound=nn.Module)

_SHOWN_DIFFERENCES = 3


def load(path: str | os.PathLike[str], factory: Callable[[], Model]) -> Model:
    """The smaller model that :func:`secateur.io.save` wrote.

    Args:
        path: the folder.
        factory: builds a new dense model, with any values; called without arguments. What it returns is shrunk.

    Returns:
        The factory's model, made smaller, with the stored values in the stored dtypes, on the factory's devices.

    Raises:
        StorageError: a file is missing, truncated, or wasn't written by Secateur; the message names it.
        PlanError: the factory's model isn't the one that the plan was made for.
    """
    folder = Path(path)
    plan = _read_plan(folder / PLAN)
    tensors, tied = _read_tensors(folder / TENSORS)
    if isinstance(factory, nn.Module):
        raise PlanError("load needs a function that builds the dense model, not a model: load(path, lambda: Model())")
    model = factory()
    if not isinstance(model, nn.Module):
        raise PlanError(f"the factory must return the dense model; it returned {type(model).__name__}")
    if any(tensor.is_meta for tensor in named_tensors(model).values()):
        raise PlanError("the factory's model is on the meta device, which holds no values; build it on a real one")
    _register_as_runs_do(model, plan, tensors)
    _take_shapes_of_runs(model, plan, tensors)
    small = apply(model, _without_what_runs_make(plan, model, tensors, tied), inplace=True)
    _check(folder / TENSORS, small, tensors, tied)
    _put_in(small, tensors, tied)
    return small


def _read_plan(file: Path) -> PruningPlan:
    try:
        return PruningPlan.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, PlanError) as error:
        raise StorageError(f"{file} can't be read: {error}") from error


def _read_tensors(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            tied = _tied_in(file, opened.metadata() or {})
            return {name: opened.get_tensor(name) for name in opened.keys()}, tied  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{file} can't be read: {error}") from error


def _tied_in(file: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    if metadata.get("format") != FORMAT:
        raise StorageError(f"{file} was not written by Secateur: its metadata have no format {FORMAT!r}")
    try:
        tied = json.loads(metadata.get(TIED, ""))
    except json.JSONDecodeError as error:
        raise StorageError(f"{file} can't be read: its list of tied tensors is damaged ({error})") from error
    if not isinstance(tied, dict) or not all(isinstance(first, str) for first in tied.values()):
        raise StorageError(f"{file} can't be read: its list of tied tensors is damaged")
    return tied


def _take_shapes_of_runs(model: nn.Module, plan: PruningPlan, tensors: Mapping[str, torch.Tensor]) -> None:
    """Buffers that a model makes anew when it runs (a table for the size of its inputs) have the shapes of its runs.

    A plan touches none of them; a new model, which hasn't run, has others.
    """
    for name, buffer in model.named_buffers():
        shape = plan.shapes.get(name)
        stored = tensors.get(name)
        if stored is None or stored.shape != shape or buffer.shape == shape or plan.shrunk_axes(name):
            continue
        buffer.data = buffer.new_empty(stored.shape)


def _register_as_runs_do(model: nn.Module, plan: PruningPlan, tensors: Mapping[str, torch.Tensor]) -> None:
    """Buffers that are empty until a model has run are there for the stored values, with the shapes of its runs."""
    device = next((parameter.device for parameter in model.parameters()), None)
    for path, module in named_modules(model, all_names=True):
        for own, buffer in module._buffers.items():
            name = f"{path}.{own}".lstrip(".")
            if buffer is None and name in tensors and name in plan.shapes:
                module._buffers[own] = torch.empty(plan.shapes[name], dtype=tensors[name].dtype, device=device)


def _without_what_runs_make(
    plan: PruningPlan, model: nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]
) -> PruningPlan:
    """The plan without the buffers that aren't stored and that a new model, which hasn't run, doesn't have yet."""
    known = {*named_tensors(model), *tensors, *tied, *plan.tied, *plan.tied.values()}
    made = plan.shapes.keys() - known
    if not made:
        return plan
    return dataclasses.replace(
        plan,
        shapes={name: shape for name, shape in plan.shapes.items() if name not in made},
        kept={key: indices for key, indices in plan.kept.items() if key[0] not in made},
        scale={key: factors for key, factors in plan.scale.items() if key[0] not in made},
    )


def _check(file: Path, model: nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]) -> None:
    differences = list(_differences(model, tensors, tied))
    if differences:
        more = f"; and {len(differences) - _SHOWN_DIFFERENCES} more" if len(differences) > _SHOWN_DIFFERENCES else ""
        raise StorageError(f"{file} doesn't fit its plan: {'; '.join(differences[:_SHOWN_DIFFERENCES])}{more}")


def _differences(model: nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]) -> Iterator[str]:
    expected, expected_ties = stored_tensors(model)
    for name, tensor in expected.items():
        found = tensors.get(tied.get(name, name))
        if found is None:
            yield f"{name} is missing"
        elif found.shape != tensor.shape:
            yield f"{name} has shape {tuple(found.shape)}, the plan leaves {tuple(tensor.shape)}"
    known = {*expected, *expected_ties}
    yield from (f"{name} is unknown" for name in (*tensors, *tied) if name not in known)
    for name, first in expected_ties.items():
        if tied.get(name) != first:
            yield f"{name} and {first} are tied in the factory's model, not in the file"


def _put_in(model: nn.Module, tensors: Mapping[str, torch.Tensor], tied: Mapping[str, str]) -> None:
    by_name = named_tensors(model)
    with torch.inference_mode(False), torch.no_grad():
        for name, values in tensors.items():
            target = by_name[name]
            # Assigning .data keeps the object, and so its ties and whatever else refers to it, but not its dtype.
            target.data = values.to(target.device, copy=True)  # the file's own are a window into it
        for name, first in tied.items():
            by_name[name].data = by_name[first].data

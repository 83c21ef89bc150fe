"""Write a smaller model and its plan into a folder, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file
from torch import nn

from secateur.errors import PlanError, StorageError
from secateur.io.layout import FORMAT, PLAN, TENSORS, TIED, foreign_files, stored_tensors
from secateur.plan import PruningPlan, named_tensors


def save(model: nn.Module, plan: PruningPlan, path: str | os.PathLike[str]) -> None:
    """Write ``model.safetensors`` (parameters and persistent buffers) and ``plan.json`` into the folder ``path``.

    The folder appears whole or not at all; one that :func:`save` wrote before is replaced. Tied tensors are written
    once. Neither the model's class nor its training mode or ``requires_grad`` are stored: ``load`` takes them from the
    factory.

    Args:
        model: the smaller model.
        plan: the plan it was made with.
        path: a folder that doesn't exist, is empty, or holds an earlier save.

    Raises:
        PlanError: the model doesn't have the shapes that the plan leaves.
        StorageError: the folder holds other files or can't be written, or the model has state that is no tensor, or of
            a type that safetensors doesn't have.
    """
    _check_is_smaller_model(model, plan)
    folder = Path(path).resolve()
    _check_replaceable(folder)
    _check_storable(model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        whole = _beside(folder)
        try:
            _write(model, plan, whole)
            _put(whole, folder)
        finally:
            shutil.rmtree(whole, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder} can't be written: {error}") from error


def _check_is_smaller_model(model: nn.Module, plan: PruningPlan) -> None:
    tensors = named_tensors(model)
    for name in [*plan.shapes, *plan.tied]:
        shape = tuple(tensors[name].shape) if name in tensors else None
        if shape != plan.kept_shape(name):
            what = "is missing" if shape is None else f"has shape {shape}"
            raise PlanError(
                f"the model to save was not made with this plan: {name} {what}; the plan leaves {plan.kept_shape(name)}"
            )


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; give the name of a folder")
    others = foreign_files(folder)
    if others:
        raise StorageError(f"{folder} holds other files ({others[0]}, ...); choose another folder, or empty this one")


def _check_storable(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise StorageError(
                f"{type(module).__name__} at {path or 'the top'!r} has extra state of its own, and only parameters and "
                "buffers can be stored without pickle; register it as a buffer"
            )
    tensors, _ = stored_tensors(model)
    for dtype in {tensor.dtype for tensor in tensors.values()}:
        if not _has(dtype):
            name = next(name for name, tensor in tensors.items() if tensor.dtype == dtype)
            raise StorageError(f"{name} is of {dtype}, which safetensors files can't hold; convert it first")


def _has(dtype: torch.dtype) -> bool:
    """Whether safetensors has a type."""
    try:
        to_bytes({"": torch.empty(0, dtype=dtype)})
    except KeyError:  # it looks its types up
        return False
    return True


def _write(model: nn.Module, plan: PruningPlan, folder: Path) -> None:
    tensors, tied = stored_tensors(model)
    save_file(
        {name: _plain(tensor) for name, tensor in tensors.items()},
        folder / TENSORS,
        metadata={"format": FORMAT, TIED: json.dumps(tied)},
    )
    (folder / PLAN).write_text(plan.to_json(), encoding="utf-8")
    # safetensors makes files that only their owner can read.
    (folder / TENSORS).chmod((folder / PLAN).stat().st_mode)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """The values in memory of their own, in order; without a copy where they are so already."""
    values = tensor.detach().contiguous()
    shares = values.untyped_storage().nbytes() != values.numel() * values.element_size()
    return values.clone() if shares else values


def _put(whole: Path, folder: Path) -> None:
    """Move the finished files into their place; the folder itself stays, if there is one, and may be in use."""
    if not folder.exists():
        whole.rename(folder)
        return
    attic = _beside(folder)
    try:
        for name in (TENSORS, PLAN):
            if (folder / name).exists():
                os.replace(folder / name, attic / name)
            os.replace(whole / name, folder / name)
    except OSError:
        for earlier in attic.iterdir():
            os.replace(earlier, folder / earlier.name)
        raise
    finally:
        shutil.rmtree(attic)


def _beside(folder: Path) -> Path:
    """A new hidden folder on the same disk, so that renaming is one step."""
    made = folder.parent / f".{folder.name}-{uuid4().hex[:8]}"
    made.mkdir()
    return made

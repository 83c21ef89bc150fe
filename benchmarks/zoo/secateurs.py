"""Secateur: the model and its inputs, and nothing else."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateur

from .checks import Check
from .entry import Entry
from .libraries import COEFFICIENT, Pruned
from .structure import built, called, in_double, outputs_of


class _Secateur:
    name = "secateur"

    def version(self) -> str:
        source = hashlib.sha256()
        for file in sorted(Path(secateur.__file__).parent.rglob("*.py")):
            source.update(file.read_bytes())
        return f"{secateur.__version__}-{source.hexdigest()[:8]}"

    def prune(self, entry: Entry, model: nn.Module, inputs: Any) -> Pruned:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            graph = secateur.trace(model, **_entry_point(entry, inputs))
            scores = secateur.importance.Magnitude()(graph, model)
            plan = secateur.plan(graph, scores, COEFFICIENT)
            small = secateur.apply(model, plan, inplace=True)  # as the peer does
        reasons = Counter(_without_place(reason) for item in graph.unprunable for reason in item.reasons)
        told = [str(w.message) for w in caught if issubclass(w.category, secateur.SecateurWarning)]
        return Pruned(small, plan, reasons.most_common(), list(graph.missing_rules), told)

    def equality(self, entry: Entry, pruned: Pruned, inputs: Any) -> Check:
        plan: secateur.PruningPlan = pruned.inside
        if plan.is_empty:
            return Check(None, "nothing was removed")
        model, inputs = _doubled(entry, inputs)
        try:
            report = secateur.verify(model, secateur.apply(model, plan), plan, **_entry_point(entry, inputs))
        except secateur.VerificationError as error:
            return Check(False, str(error))
        text = f"{len(report.exact)} groups exact, {len(report.mixing)} mixing, {report.largest_difference:.1e}"
        return Check(True if report.exact else None, text)

    def unscaled(self, pruned: Pruned, name: str, parameter: torch.Tensor) -> torch.Tensor:
        for axis, factors in pruned.inside.axis_scales(name).items():
            shape = [-1 if dim == axis else 1 for dim in range(parameter.ndim)]
            parameter = parameter.double() / torch.tensor(factors).reshape(shape)
        return parameter

    def reloaded(self, entry: Entry, pruned: Pruned, folder: Path) -> nn.Module:
        secateur.save(pruned.model, pruned.inside, folder / "saved")
        return secateur.load(folder / "saved", lambda: built(entry))

    def patch(self, entry: Entry, pruned: Pruned) -> bool:
        return False


LIBRARY = _Secateur()


def _entry_point(entry: Entry, inputs: Any) -> dict[str, Any]:
    """The arguments of ``trace`` as a user would give them."""
    return {"example_inputs": inputs} if entry.run is None else {"run": lambda model: called(entry, model, inputs)}


def _doubled(entry: Entry, inputs: Any) -> tuple[nn.Module, Any]:
    """Model and inputs in double precision, or as they are where the model can't be run in it."""
    model, doubled = built(entry).double(), in_double(inputs)
    try:
        with torch.no_grad():
            outputs_of(entry, model, doubled)
    except RuntimeError:  # somewhere in the model single precision is written down
        return built(entry), inputs
    return model, doubled


def _without_place(reason: str) -> str:
    """A reason without its module's path, so that all layers of a model count together."""
    return re.sub(r" in \S+ at ", " at ", reason)

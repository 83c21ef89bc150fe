"""Every model of the zoo: shrunk in place as well as anew, its plan through JSON, and the result through a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from secateur import io
from secateur.graph.entry_point import EntryPoint, tensors_in
from secateur.graph.storage import tied_names
from secateur.plan import PruningPlan, named_tensors
from secateur.surgery import apply
from tests.models.case import Case
from tests.models.zoo import CASES
from tests.removal import largest_difference, outputs, random_plan

STORABLE = [case for case in CASES if torch.complex128 not in {t.dtype for t in named_tensors(case.model()).values()}]


@pytest.mark.parametrize("case", STORABLE, ids=lambda case: case.name)
def test_every_way_to_the_smaller_model_gives_the_same(case: Case, tmp_path: Path) -> None:
    run, dense = case.entry_point(), case.model()
    made = random_plan(case.graph(), 0)
    small = apply(dense, made)
    expected = outputs(run, small)
    assert PruningPlan.from_json(made.to_json()) == made
    assert tied_names(named_tensors(small)) == made.tied

    io.save(small, made, tmp_path / "small")
    loaded = io.load(tmp_path / "small", case.model)
    assert tied_names(named_tensors(loaded)) == made.tied
    assert largest_difference(outputs(run, loaded), expected) == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training_goes_on_in_place(case: Case) -> None:
    """In the middle of a training, its last graph still alive: the same outputs, and the optimiser steps on."""
    run, model = case.entry_point(), case.model()
    made = random_plan(case.graph(), 1)
    optimizer = torch.optim.Adam(model.parameters())
    last_loss = train_step(run, model, optimizer)
    expected = outputs(run, apply(model, made))
    small = apply(model, made, inplace=True, optimizer=optimizer)
    assert largest_difference(outputs(run, small), expected) == 0
    assert train_step(run, small, optimizer).grad_fn is not last_loss.grad_fn
    assert largest_difference(outputs(run, small), expected) > 0


def train_step(run: EntryPoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    optimizer.zero_grad()
    loss = torch.stack([t.pow(2).sum() for t in tensors_in(run(model)) if t.requires_grad]).sum()
    loss.backward()
    optimizer.step()
    return loss

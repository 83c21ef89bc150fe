"""What Torch-Pruning chose, against the model that it has pruned itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import secateur
from secateur.errors import InfeasibleError
from secateur.experiments.tdmpc.agent_graph import trace_agent
from secateur.experiments.tdmpc.reproduction.whole_model import WholeModel
from tests.experiments.tdmpc.small_agent import LATENT, random_visits, small_told

VISITS = random_visits(24, dtype=torch.float32)
MODEL = small_told(dtype=torch.float32)
GRAPH = trace_agent(MODEL, VISITS)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("is_global", [False, True], ids=["local", "global"])
def test_the_plan_makes_the_model_that_torch_pruning_makes(is_global: bool) -> None:
    whole = WholeModel(MODEL, GRAPH, VISITS, is_global)
    pruned: Any = copy.deepcopy(MODEL)
    whole._pruner(pruned, 0.4).step()
    small = secateur.apply(MODEL, whole._at(0.4))
    assert {n: p.shape for n, p in small.named_parameters()} == {n: p.shape for n, p in pruned.named_parameters()}
    assert parameters(small) < 0.8 * parameters(MODEL)
    for ours, theirs in zip(VISITS.run(small), VISITS.run(pruned), strict=True):
        assert torch.equal(ours, theirs)


def test_the_ratio_meets_the_sparsity() -> None:
    wide = small_told(width=48, dtype=torch.float32)
    small = secateur.apply(wide, WholeModel(wide, trace_agent(wide, VISITS), VISITS).prune(0.6))
    assert 1 - parameters(small) / parameters(wide) == pytest.approx(0.6, abs=0.02)


def test_a_sparsity_out_of_reach_is_an_error() -> None:
    with pytest.raises(InfeasibleError, match=r"Torch-Pruning comes no nearer to a sparsity of 0\.999 than 0\.9"):
        WholeModel(MODEL, GRAPH, VISITS).prune(0.999)


def test_its_groups_are_the_hidden_layers_and_the_latent_state() -> None:
    groups = WholeModel(MODEL, GRAPH, VISITS).groups()
    assert sorted(group.size for group in groups) == [LATENT] + [16] * 11
    (latent,) = [group for group in groups if group.size == LATENT]
    layers = {"encoder.2", "dynamics.4", "dynamics.0", "reward.0", "pi.0", "q1.0", "q2.0"}
    assert set(latent.layers) == layers
    rows = sum(MODEL.get_parameter(f"{name}.weight").shape[1] + 1 for name in ("encoder.2", "dynamics.4"))
    assert latent.parameters == LATENT * (rows + 16 * (len(layers) - 2))

"""The agent's graph: hidden layers inside the five components, and one latent that all of them share."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.allocation import Smallest, Sparsity
from secateur.errors import CalibrationError, SecateurWarning, TargetError, TraceError
from secateur.experiments.tdmpc.agent_graph import limited, trace_agent
from secateur.experiments.tdmpc.told import Told
from tests.experiments.tdmpc.small_agent import LATENT, random_visits, small_told

LATENT_MEMBERS = {
    *("encoder.2.weight[0]", "encoder.2.bias[0]", "dynamics.4.weight[0]", "dynamics.4.bias[0]"),
    *("dynamics.0.weight[1]", "reward.0.weight[1]", "pi.0.weight[1]", "q1.0.weight[1]", "q2.0.weight[1]"),
}
HIDDEN = {
    "encoder.0": "encoder",
    **{f"{part}.{layer}": part for part in ("dynamics", "reward", "pi") for layer in (0, 2)},
    **{f"{head}.{layer}": "q" for head in ("q1", "q2") for layer in (0, 3)},
}


def test_one_interface_and_the_hidden_layers() -> None:
    graph = trace_agent(small_told(), random_visits())
    assert [c.name for c in graph.components] == ["encoder", "dynamics", "reward", "pi", "q"]
    (latent,) = graph.interfaces
    assert (latent.name, latent.size, latent.components) == (
        "encoder.2",
        LATENT,
        ("encoder", "dynamics", "reward", "pi", "q"),
    )
    assert {str(member) for member in latent.members} == LATENT_MEMBERS
    assert {g.name: g.components for g in graph.groups if g is not latent} == {n: (c,) for n, c in HIDDEN.items()}
    assert {g.name for g in graph.groups if g.mixing} == {"q1.0", "q2.0"}


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_horizon_changes_nothing(horizon: int) -> None:
    """Policy and values read the encoder's latent and the dynamics': one step suffices to make these agree."""
    groups, three = (trace_agent(small_told(), random_visits(horizon=steps)).groups for steps in (horizon, 3))
    assert [repr(group) for group in groups] == [repr(group) for group in three]


@pytest.mark.parametrize(
    ("which", "shrinks"),
    [("both", {*HIDDEN, "encoder.2"}), ("internal", set(HIDDEN)), ("interface", {"encoder.2"})],
)
def test_what_may_shrink(which: Any, shrinks: set[str]) -> None:
    graph = trace_agent(small_told(), random_visits())
    target = limited(Sparsity(0.3, protected=["reward.0"], minimum_width=3), graph, which)
    assert (target.rho, target.minimum_width) == (0.3, 3)
    assert {g.name for g in graph.groups} - set(target.protected) == shrinks - {"reward.0"}


def test_wrong_limits() -> None:
    graph = trace_agent(small_told(), random_visits())
    with pytest.raises(TargetError, match="which must be one of 'both', 'internal', 'interface', not 'latent'"):
        limited(0.5, graph, "latent")  # type: ignore[arg-type]
    with pytest.raises(TargetError, match=re.escape("must lie in (0, 1)")):
        limited(1.5, graph, "both")
    with pytest.raises(TargetError, match="a fraction to remove or a Sparsity, not Smallest"):
        limited(Smallest(), graph, "both")  # type: ignore[arg-type]


def test_a_component_that_is_never_reached_is_named_and_stays_whole() -> None:
    """A policy's run asks neither for rewards nor for values."""

    def policy(model: nn.Module) -> Tensor:
        assert isinstance(model, Told)
        return model.act(model.encode(torch.zeros(3, 4, dtype=torch.float64)))

    with pytest.warns(SecateurWarning, match="never reaches 'dynamics', 'reward', 'q'") as caught:
        graph = trace_agent(small_told(), random_visits(), run=policy)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert {g.name for g in graph.groups} == {"encoder.0", "encoder.2", "pi.0", "pi.2"}


def test_the_rollout_reaches_all() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace_agent(small_told(), random_visits())


def test_a_model_that_is_no_agent() -> None:
    with pytest.raises(TraceError, match=r"component 'encoder'.*no module or parameter 'encoder'"):
        trace_agent(nn.Linear(4, 2), random_visits())


def test_another_tasks_visits() -> None:
    with pytest.raises(CalibrationError, match=r"recorded on task 'stroll', whose observations have 4 numbers"):
        trace_agent(Told(24, 6, encoder_width=8, width=8, latent=5), random_visits())


def test_multiply_adds_are_of_the_rows_that_are_traced() -> None:
    few, many = (trace_agent(small_told(), random_visits(), rows=rows).cost().macs for rows in (4, 12))
    assert many == 3 * few

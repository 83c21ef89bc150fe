"""The dependency graph of a TD-MPC agent: five components, and the latent state that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

from torch import nn

from secateur.allocation import Sparsity
from secateur.errors import TargetError, warn
from secateur.experiments.tdmpc.visits import Visits
from secateur.graph.entry_point import EntryPoint
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Component
from secateur.graph.trace import trace

COMPONENTS: Mapping[str, Any] = {
    "encoder": "encoder",
    "dynamics": "dynamics",
    "reward": "reward",
    "pi": "pi",
    "q": ["q1", "q2"],
}
"""The five components; both value heads are one."""

Which = Literal["both", "internal", "interface"]
"""What may shrink: all groups; those inside one component; or those that components share: the latent state."""

TRACED_ROWS = 16
"""Of the visits that the rollout is traced, and pruning proved, on."""


def trace_agent(
    model: nn.Module, visits: Visits, *, rows: int = TRACED_ROWS, run: EntryPoint | None = None
) -> DependencyGraph:
    """Trace a planner's rollout.

    The latent state is one interface group: policy and values read what the encoder makes, and what the dynamics make.

    Args:
        model: a :class:`secateur.experiments.tdmpc.told.Told`, or another model with the same methods and parts.
        visits: of the model's task.
        rows: of the visits that the entry point runs on; its multiply-adds and latency are of so many rows.
        run: instead of the rollout over them, other code that exercises the model.

    Warns:
        SecateurWarning: the entry point never reaches a component, which therefore stays whole.

    Raises:
        CalibrationError: the visits are of another task.
        TraceError: the model lacks a component, or the entry point fails.
    """
    graph = trace(model, run=run or visits.head(rows).run, components=COMPONENTS)
    unreached = [component.name for component in graph.components if not _is_reached(graph, component)]
    if unreached:
        warn(
            f"the entry point never reaches {', '.join(map(repr, unreached))}: nothing of it can be pruned; call it in "
            "run= if it should be"
        )
    return graph


def _is_reached(graph: DependencyGraph, component: Component) -> bool:
    """Whether some parameter of the component is read: each that is has a role in a product, a norm or a sum."""
    return any(consumer.parameter in component.parameters for consumer in graph.consumers)


def limited(target: float | Sparsity, graph: DependencyGraph, which: Which) -> Sparsity:
    """The target, with the groups that may not shrink protected.

    Args:
        target: fraction of the parameters to remove, in (0, 1); or a target with limits of its own, which stay.
        graph: of the agent.
        which: what may shrink.

    Raises:
        TargetError: ``which`` is unknown, or the target is malformed.
    """
    if which not in get_args(Which):
        raise TargetError(f"which must be one of {', '.join(map(repr, get_args(Which)))}, not {which!r}")
    if not isinstance(target, (int, float, Sparsity)):
        raise TargetError(f"an agent's target must be a fraction to remove or a Sparsity, not {target}")
    given = target if isinstance(target, Sparsity) else Sparsity(target)
    if which == "both":
        return given
    stays = [group.name for group in graph.groups if group.is_interface == (which == "internal")]
    return replace(given, protected=(*given.protected, *stays))

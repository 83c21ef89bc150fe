"""Torch-Pruning, over the whole model at once: the peer that knows dependencies but no components.

Set up as its documentation does: magnitude importance over a dependency group, one step, the output layers ignored. The
model has no forward pass, so the planner's rollout is given as ``forward_fn``. Fang et al., "DepGraph" (arXiv
2301.12900). Needs the extra ``secateur[peers]``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

import secateur
from secateur.errors import InfeasibleError
from secateur.experiments.tdmpc.rollout import rollout
from secateur.experiments.tdmpc.visits import Visits
from secateur.extras import needs

_HEADS = ("reward", "pi", "q1", "q2")
"""Their last layers make what leaves the model: rewards, actions and values keep their sizes."""

_TRACED_ROWS = 8
_BISECTIONS = 12


@dataclass(frozen=True)
class FoundGroup:
    """A group that Torch-Pruning finds.

    Attributes:
        size: channels.
        parameters: how many touch one of them.
        layers: names of the layers that own these.
    """

    size: int
    parameters: int
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class WholeModel:
    """Torch-Pruning on an agent's model.

    Attributes:
        model: the dense model; untouched.
        graph: of that model; group names are those of the layers that make a group's channels.
        visits: what the model is run on to find its dependencies.
        is_global: rank the channels of all layers together, instead of the same fraction from each.
    """

    model: nn.Module
    graph: secateur.DependencyGraph
    visits: Visits
    is_global: bool = False

    def prune(self, rho: float) -> secateur.PruningPlan:
        """The channels that it keeps, as a plan, at the pruning ratio that comes nearest to a sparsity.

        Raises:
            InfeasibleError: no ratio comes within 0.02.
            SecateurError: Torch-Pruning isn't installed.
        """
        low, high = 0.0, 1.0
        best = self._at(rho)
        for _ in range(_BISECTIONS):
            ratio = (low + high) / 2
            found = self._at(ratio)
            if abs(self._sparsity(found) - rho) < abs(self._sparsity(best) - rho):
                best = found
            low, high = (ratio, high) if self._sparsity(found) < rho else (low, ratio)
        if abs(self._sparsity(best) - rho) > 0.02:
            raise InfeasibleError(
                f"Torch-Pruning comes no nearer to a sparsity of {rho:g} than {self._sparsity(best):.3f}"
            )
        return best

    def groups(self) -> list[FoundGroup]:
        """The groups that it finds.

        Raises:
            SecateurError: Torch-Pruning isn't installed.
        """
        model = copy.deepcopy(self.model)
        pruner = self._pruner(model, 0.5)
        found = pruner.DG.get_all_groups(ignored_layers=pruner.ignored_layers, root_module_types=[nn.Linear])
        return [FoundGroup(len(group[0].idxs), _touched(group), _layers(group, model)) for group in found]

    def _at(self, ratio: float) -> secateur.PruningPlan:
        model = copy.deepcopy(self.model)
        pruner = self._pruner(model, ratio)
        stays = {group.name: np.ones(group.size) for group in self.graph.groups}
        for group in pruner.step(interactive=True):
            for layer, indices in _producers(group, model):
                if layer in stays:
                    stays[layer][indices] = 0
            group.prune()
        coefficients = {name: min(1 - mask.mean(), 1 - 1 / len(mask)) for name, mask in stays.items()}
        return secateur.plan(self.graph, stays, coefficients)

    def _sparsity(self, plan: secateur.PruningPlan) -> float:
        kept = {name: len(channels) for name, channels in plan.groups.items()}
        return 1 - self.graph.cost(kept).parameters / self.graph.cost().parameters

    def _pruner(self, model: nn.Module, ratio: float) -> Any:
        with needs("torch_pruning", extra="peers"):
            import torch_pruning
        visits = self.visits.head(_TRACED_ROWS)
        return torch_pruning.pruner.BasePruner(
            model,
            (visits.observations, visits.actions),
            torch_pruning.importance.MagnitudeImportance(p=2),
            global_pruning=self.is_global,
            pruning_ratio=ratio,
            ignored_layers=_output_layers(model),
            forward_fn=_roll_out,
        )


def _roll_out(model: Any, inputs: tuple[Tensor, Tensor]) -> list[Tensor]:
    return list(rollout(model, *inputs))


def _output_layers(model: nn.Module) -> list[nn.Module]:
    heads = (model.get_submodule(head) for head in _HEADS)
    return [[layer for layer in head.modules() if isinstance(layer, nn.Linear)][-1] for head in heads]


def _producers(group: Any, model: nn.Module) -> Iterator[tuple[str, Sequence[int]]]:
    """Names of the Linear layers that lose outputs with a group, and which."""
    names = {module: name for name, module in model.named_modules()}
    for dependency, indices in group:
        layer = dependency.target.module
        if isinstance(layer, nn.Linear) and dependency.handler.__name__ == "prune_out_channels":
            yield names[layer], indices


def _touched(group: Any) -> int:
    """Parameters that leave if all of a group's channels do."""
    count = 0
    for dependency, indices in group:
        layer = dependency.target.module
        if isinstance(layer, nn.Linear):
            is_output = dependency.handler.__name__ == "prune_out_channels"
            each = layer.in_features + (layer.bias is not None) if is_output else layer.out_features
            count += len(indices) * each
        elif isinstance(layer, nn.LayerNorm):
            count += 2 * len(indices)
    return count


def _layers(group: Any, model: nn.Module) -> tuple[str, ...]:
    names = {module: name for name, module in model.named_modules()}
    return tuple(names[d.target.module] for d, _ in group if isinstance(d.target.module, (nn.Linear, nn.LayerNorm)))

"""PyTorch's own structured pruning, ``torch.nn.utils.prune``, of the layers that make channel groups.

It zeroes rows of weights and removes nothing: biases, and what later layers make of them, stay. So that it can be
compared at equal size, the common amount can be chosen such that removing the zeroed rows would give a sparsity.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import secateur
from secateur.errors import InfeasibleError
from secateur.graph import Group
from secateur.importance import Scores

_AMOUNTS = np.linspace(0, 0.999, 1_000)

_NEAR = 0.02
"""How far below a sparsity the largest amount may stay."""


@dataclass(frozen=True, eq=False)
class Masked:
    """A model with rows of weights zeroed by PyTorch.

    Attributes:
        model: as PyTorch leaves it, of the dense model's shapes.
        plan: the same rows, to be removed.
        amount: the fraction of rows zeroed in every layer.
    """

    model: nn.Module
    plan: secateur.PruningPlan
    amount: float


def random_rows(layer: nn.Module, amount: float) -> None:
    """Zero rows drawn at random, from torch's global generator."""
    torch_prune.random_structured(layer, "weight", amount, dim=0)


def smallest_rows(layer: nn.Module, amount: float) -> None:
    """Zero the rows of least L2 norm."""
    torch_prune.ln_structured(layer, "weight", amount, n=2, dim=0)


def mask_rows(
    dense: nn.Module,
    graph: secateur.DependencyGraph,
    rho: float,
    prune: Callable[[nn.Module, float], None],
    *,
    groups: Sequence[Group] | None = None,
) -> Masked:
    """Zero the same fraction of rows in every layer that makes a channel group, as many as a sparsity needs.

    Args:
        dense: the trained model; untouched. Every group's name is that of the Linear layer that makes its channels.
        graph: of that model.
        rho: sparsity that removing the zeroed rows gives, as nearly as an amount for all layers can.
        prune: zeroes a fraction of a layer's rows.
        groups: those whose layers lose rows; all if not given.

    Raises:
        InfeasibleError: not even the largest amount comes within 0.02.
    """
    chosen = graph.groups if groups is None else groups
    return mask_fraction(dense, graph, _amount(graph, rho, chosen), prune, groups=chosen)


def mask_fraction(
    dense: nn.Module,
    graph: secateur.DependencyGraph,
    amount: float,
    prune: Callable[[nn.Module, float], None],
    *,
    groups: Sequence[Group] | None = None,
) -> Masked:
    """Zero a fraction of the rows in every layer that makes a channel group.

    Args:
        dense: as in :func:`mask_rows`.
        graph: as in :func:`mask_rows`.
        amount: the fraction, in [0, 1).
        prune: as in :func:`mask_rows`.
        groups: as in :func:`mask_rows`.
    """
    model = copy.deepcopy(dense)
    stays = {group.name: np.ones(group.size) for group in graph.groups}
    for group in graph.groups if groups is None else groups:
        layer = model.get_submodule(group.name)
        prune(layer, amount)
        stays[group.name] = layer.weight_mask[:, 0].to(torch.float64).numpy()  # type: ignore[index]
        torch_prune.remove(layer, "weight")
    coefficients = {name: 1 - mask.sum() / len(mask) for name, mask in stays.items()}
    return Masked(model, secateur.plan(graph, stays, coefficients), amount)


def _amount(graph: secateur.DependencyGraph, rho: float, groups: Sequence[Group]) -> float:
    sizes = np.array([group.size for group in graph.groups])
    names = {group.name for group in groups}
    shrinks = np.array([group.name in names for group in graph.groups])
    # PyTorch rounds the number of rows to zero as Python's round does, and numpy's.
    zeroed = np.rint(_AMOUNTS[:, None] * sizes).astype(np.int64) * shrinks
    zeroed = zeroed[(zeroed < sizes).all(axis=1)]  # a layer without rows can't be removed; the first amount zeroes none
    sparsities = 1 - graph.cost_model.parameters(sizes - zeroed) / graph.cost().parameters
    if rho - sparsities[-1] > _NEAR:
        raise InfeasibleError(
            f"removing the rows of PyTorch's masks comes no nearer to a sparsity of {rho:g} than {sparsities[-1]:.3f}"
        )
    return float(_AMOUNTS[np.abs(sparsities - rho).argmin()])


class RowNorms:
    """Scores by the L2 norm of the weights that make a channel, and of nothing else, as PyTorch ranks rows.

    Every group's name is that of the Linear layer that makes its channels.
    """

    def __call__(self, graph: secateur.DependencyGraph, model: nn.Module) -> Scores:
        """Group name to the norms of the rows, shape (group size,)."""
        rows = {group.name: model.get_parameter(f"{group.name}.weight").detach() for group in graph.groups}
        return {name: weight.double().norm(dim=1).numpy() for name, weight in rows.items()}

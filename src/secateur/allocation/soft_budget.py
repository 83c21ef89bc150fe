"""The sparsities that a target asks for, as smooth functions of the coefficients, and the way back onto them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from secateur.allocation.problem import Goal, Problem
from secateur.allocation.soft_cost import SoftCost
from secateur.allocation.soft_masks import variable_of_group

_LEAST = 5e-4
"""Coefficients stay so far from 0 and 1, where their logits are infinite; no channel of a thousand is lost to it."""

_NEWTON_STEPS = 20

_EXACT = 1e-9
"""Goals that are missed by less than this are met."""

_REACHED = 1e-8
"""Caps from which a sparsity is no further than this are reached."""

_FLAT = 1e-12
"""Slopes below this are none."""

_LARGEST_SHIFT = 2.0
"""No Newton step moves logits further: the cost flattens out at both ends."""


class SoftBudget:
    """The goals and caps of a problem for real-valued coefficients, given by their logits, shape (variables,).

    Attributes:
        low: smallest logits that the target's limits allow, shape (variables,).
        high: largest, likewise; equal to ``low`` where a variable has no choice.
        goals: how many of the constraints are goals, to be met; the others are caps, not to be exceeded.
        aims: what the constraints' sparsities should be, or be at most, shape (constraints,).
    """

    def __init__(self, problem: Problem) -> None:
        graph, constraints = problem.graph, (*problem.goals, *problem.caps)
        self.goals = len(problem.goals)
        self.aims = torch.tensor([c.rho for c in problem.goals] + [c.high for c in problem.caps], dtype=torch.float64)
        self._cost = SoftCost(graph.cost_model, problem.target.of)
        self._full = torch.from_numpy(graph.cost_model.full.astype(np.float64))
        self._variable_of = torch.from_numpy(variable_of_group(graph))
        self._counted = self._counted_by(constraints, graph.cost_model.component_names)
        self.low = _logit(torch.tensor([1 - float(f[0]) for f in problem.fractions], dtype=torch.float64))
        high = _logit(torch.tensor([1 - float(f[-1]) for f in problem.fractions], dtype=torch.float64))
        # What serves no goal stays as it is.
        serving = np.concatenate([np.zeros(0, dtype=np.int64), *(goal.variables for goal in problem.goals)])
        self.high = torch.where(torch.from_numpy(np.isin(np.arange(len(high)), serving)), high, self.low)

    @property
    def free(self) -> Tensor:
        """Which variables have a choice, shape (variables,)."""
        return self.high > self.low

    def sparsities(self, logits: Tensor) -> Tensor:
        """What the constraints are about, shape (constraints,)."""
        kept = self._full * torch.sigmoid(-logits)[self._variable_of]
        return 1 - self._counted @ self._cost(kept)

    def slopes(self, logits: Tensor) -> Tensor:
        """Derivatives of the sparsities by the logits, shape (constraints, variables)."""
        point = logits.detach().requires_grad_()
        with torch.enable_grad():
            rows = [torch.autograd.grad(value, point, retain_graph=True)[0] for value in self.sparsities(point)]
        return torch.stack(rows) * self.free if rows else torch.zeros(0, len(logits), dtype=torch.float64)

    def binding(self, logits: Tensor) -> Tensor:
        """Which constraints bind: the goals, and the caps that are reached; shape (constraints,)."""
        binds = self.sparsities(logits.detach()) >= self.aims - _REACHED
        binds[: self.goals] = True
        return binds

    def met(self, logits: Tensor) -> Tensor:
        """Logits near these that meet every goal and exceed no cap.

        Where the limits don't allow that, as near as they do.
        """
        binds = torch.arange(len(self.aims)) < self.goals
        while True:
            logits = self._solved(logits, binds)
            exceeded = ~binds & (self.sparsities(logits) > self.aims + _REACHED)
            if not bool(exceeded.any()):
                return logits
            binds |= exceeded

    def _solved(self, logits: Tensor, binds: Tensor) -> Tensor:
        """The binding constraints met as equalities, by Newton's method within the limits."""
        movable = self.free
        for _ in range(_NEWTON_STEPS):
            logits = torch.maximum(torch.minimum(logits, self.high), self.low)
            missing = (self.aims - self.sparsities(logits))[binds]
            if float(missing.abs().sum()) <= _EXACT:
                break
            slopes = self.slopes(logits)[binds] * movable
            # Under one goal, this moves all logits alike.
            directions = slopes / slopes.abs().sum(dim=0).clamp(min=_FLAT)
            shift = directions.T @ torch.linalg.lstsq(slopes @ directions.T, missing, driver="gelsd").solution
            stuck = ((logits >= self.high) & (shift > 0)) | ((logits <= self.low) & (shift < 0))
            movable = movable & ~stuck
            logits = logits + (shift * movable).clamp(-_LARGEST_SHIFT, _LARGEST_SHIFT)
        return torch.maximum(torch.minimum(logits, self.high), self.low)

    def _counted_by(self, constraints: Sequence[Goal], names: Sequence[str]) -> Tensor:
        """One unit of each component's cost, in units of what a constraint counts, shape (constraints, components)."""
        counted = [[c.component in (None, name) for name in names] for c in constraints]
        table = torch.tensor(counted, dtype=torch.float64).reshape(len(constraints), len(names))
        return table / (table @ self._cost(self._full))[:, None]


def logits_of(coefficients: np.ndarray) -> Tensor:
    """Logits of coefficients, shape (variables,), those at 0 and 1 moved inside a little."""
    return _logit(torch.from_numpy(np.asarray(coefficients, dtype=np.float64)))


def _logit(coefficients: Tensor) -> Tensor:
    return torch.logit(coefficients.clamp(_LEAST, 1 - _LEAST))

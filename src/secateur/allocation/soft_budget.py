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

_NEWTON_STEPS = 12

_EXACT = 1e-9
"""Goals that are missed by less than this are met."""

_LARGEST_SHIFT = 2.0
"""No Newton step moves logits further: the cost flattens out at both ends."""


class SoftBudget:
    """The goals and caps of a problem for real-valued coefficients, given by their logits, shape (variables,).

    Attributes:
        low: smallest logits that the target's limits allow, shape (variables,).
        high: largest, likewise; equal to ``low`` where a variable has no choice.
        aims: what the goals' sparsities should be, shape (goals,).
        caps: what the capped components' sparsities may be at most, shape (caps,).
    """

    def __init__(self, problem: Problem) -> None:
        graph = problem.graph
        self.low = _logit(torch.tensor([1 - float(f[0]) for f in problem.fractions], dtype=torch.float64))
        self.high = _logit(torch.tensor([1 - float(f[-1]) for f in problem.fractions], dtype=torch.float64))
        self.aims = torch.tensor([goal.rho for goal in problem.goals], dtype=torch.float64)
        self.caps = torch.tensor([cap.high for cap in problem.caps], dtype=torch.float64)
        self._cost = SoftCost(graph.cost_model, problem.target.of)
        self._full = torch.from_numpy(graph.cost_model.full.astype(np.float64))
        self._variable_of = torch.from_numpy(variable_of_group(graph))
        self._counted_by_goals = self._counted(problem, problem.goals)
        self._counted_by_caps = self._counted(problem, problem.caps)
        self._serves = _served(problem.goals, len(problem.fractions))
        # What serves no goal stays as it is.
        self.high = torch.where(self._serves.any(dim=1), self.high, self.low)

    @property
    def free(self) -> Tensor:
        """Which variables have a choice, shape (variables,)."""
        return self.high > self.low

    def sparsities(self, logits: Tensor) -> Tensor:
        """What the goals are about, shape (goals,)."""
        return 1 - self._counted_by_goals @ self._cost_at(logits)

    def capped(self, logits: Tensor) -> Tensor:
        """What the caps are about, shape (caps,)."""
        return 1 - self._counted_by_caps @ self._cost_at(logits)

    def slopes(self, logits: Tensor) -> Tensor:
        """Derivatives of the goals' sparsities, shape (goals, variables)."""
        point = logits.detach().requires_grad_()
        with torch.enable_grad():
            rows = [torch.autograd.grad(v, point, retain_graph=True)[0] for v in self.sparsities(point)]
        return torch.stack(rows) * self.free if rows else torch.zeros(0, len(logits), dtype=torch.float64)

    def met(self, logits: Tensor) -> Tensor:
        """Logits that meet every goal, by Newton's method; all variables of a goal are moved by the same amount.

        Where the limits don't allow that, as near as they do.
        """
        for _ in range(_NEWTON_STEPS):
            logits = torch.maximum(torch.minimum(logits, self.high), self.low)
            missing = self.aims - self.sparsities(logits)
            if float(missing.abs().sum()) <= _EXACT:
                break
            shifts = torch.linalg.lstsq(self.slopes(logits) @ self._serves, missing[:, None], driver="gelsd").solution
            logits = logits + (self._serves @ shifts.clamp(-_LARGEST_SHIFT, _LARGEST_SHIFT))[:, 0]
        return torch.maximum(torch.minimum(logits, self.high), self.low)

    def _cost_at(self, logits: Tensor) -> Tensor:
        """Cost by component, shape (components,)."""
        return self._cost(self._full * torch.sigmoid(-logits)[self._variable_of])

    def _counted(self, problem: Problem, goals: Sequence[Goal]) -> Tensor:
        """What one unit of each component's cost is of the cost that a goal counts, shape (goals, components)."""
        names = problem.graph.cost_model.component_names
        counted = [[goal.component in (None, name) for name in names] for goal in goals]
        table = torch.tensor(counted, dtype=torch.float64).reshape(len(goals), len(names))
        return table / (table @ self._cost(self._full))[:, None]


def logits_of(coefficients: np.ndarray) -> Tensor:
    """Logits of coefficients, shape (variables,), those at 0 and 1 moved inside a little."""
    return _logit(torch.from_numpy(np.asarray(coefficients, dtype=np.float64)))


def _logit(coefficients: Tensor) -> Tensor:
    return torch.logit(coefficients.clamp(_LEAST, 1 - _LEAST))


def _served(goals: Sequence[Goal], variables: int) -> Tensor:
    """1 where a variable serves a goal, shape (variables, goals)."""
    table = torch.zeros(variables, len(goals), dtype=torch.float64)
    for column, goal in enumerate(goals):
        table[torch.from_numpy(goal.variables), column] = 1
    return table

"""Coefficients by augmented Lagrangian: Adam on their logits against gradient ascent on the multipliers of the budget.

Minimises a loss subject to ``sparsity(c) = rho`` for every goal and ``sparsity(c) <= cap`` for every cap, with Cooper's
alternating primal-dual steps. The cost is closed form, so after every step the coefficients are moved back onto the
budget: the multipliers are raised by how far the step has left it, and what is left of that is removed at once. Without
this way back the steps are spent on swinging about the budget: on the MNIST autoencoder (six pairs of order and
sparsity, three seeds, 100 steps) PSNR is 0.3 to 1.2 dB lower, and depends on the rates; with it they hardly matter.

The loss is scaled by the ratio of its gradient to the sparsities', so that no rate depends on the loss's unit.
"""

from __future__ import annotations

import torch
from cooper.cmp import CMPState, ConstrainedMinimizationProblem
from cooper.constraints.constraint import Constraint
from cooper.constraints.constraint_state import ConstraintState
from cooper.formulations.formulations import AugmentedLagrangian
from cooper.multipliers.multipliers import DenseMultiplier
from cooper.optim.constrained_optimizers.alternating_optimizer import AlternatingPrimalDualOptimizer
from cooper.penalty_coefficients.penalty_coefficients import DensePenaltyCoefficient
from cooper.utils.annotations import ConstraintType
from torch import Tensor

from secateur.allocation.soft_budget import SoftBudget

_DUAL_RATE = 3.0
_PENALTY = 1.0
_CAP_PENALTY = 10.0
_BETAS = (0.9, 0.99)


class CoefficientDescent:
    """Constrained descent of the coefficients, one step at a time.

    Args:
        budget: the goals and caps.
        logits: of the first coefficients, shape (variables,).
        learning_rate: how far a step moves the logits, about.
    """

    def __init__(self, budget: SoftBudget, logits: Tensor, learning_rate: float) -> None:
        self._budget = budget
        self._logits = budget.met(logits).requires_grad_()
        self._problem = _Lagrangian(budget, self._logits)
        primal = torch.optim.Adam([self._logits], lr=learning_rate, betas=_BETAS)
        dual = torch.optim.SGD(list(self._problem.dual_parameters()), lr=_DUAL_RATE, maximize=True)
        self._optimizer = AlternatingPrimalDualOptimizer(self._problem, primal, dual)

    @property
    def coefficients(self) -> Tensor:
        """The coefficients now, shape (variables,), float64; on the budget."""
        return torch.sigmoid(self._logits.detach())

    def step(self, gradient: Tensor) -> None:
        """Move against the gradient of the loss with respect to the coefficients, shape (variables,)."""
        self._problem.hear(gradient)
        self._optimizer.roll()
        met = self._budget.met(self._logits.detach())
        with torch.no_grad():
            self._logits.copy_(met)


class _Lagrangian(ConstrainedMinimizationProblem):
    """The loss to first order, with the budget's goals as equalities and its caps as inequalities."""

    def __init__(self, budget: SoftBudget, logits: Tensor) -> None:
        super().__init__()
        self._budget, self._logits = budget, logits
        self._scale = 0.0  # the largest ratio of the loss's gradient to the sparsities' so far
        self._gradient = torch.zeros_like(logits)
        self._multipliers = DenseMultiplier(len(budget.aims), dtype=torch.float64)
        self.goals = _constraint(ConstraintType.EQUALITY, self._multipliers, _PENALTY)
        cap_multipliers = DenseMultiplier(len(budget.caps), dtype=torch.float64)
        self.caps = _constraint(ConstraintType.INEQUALITY, cap_multipliers, _CAP_PENALTY)

    def hear(self, gradient: Tensor) -> None:
        """Take the loss's gradient with respect to the coefficients; the first one gives the first multipliers, too."""
        coefficients = torch.sigmoid(self._logits.detach())
        by_logits = gradient.to(coefficients) * coefficients * (1 - coefficients) * self._budget.free
        slopes = self._budget.slopes(self._logits)
        is_first = self._scale == 0.0
        self._scale = max(self._scale, float(by_logits.norm() / slopes.norm().clamp(min=1e-12)))
        self._gradient = by_logits / (self._scale or 1.0)
        if is_first and self._scale > 0:
            # Least squares: with these, the first step stays on the budget.
            first = torch.linalg.lstsq(slopes.T, -self._gradient[:, None], driver="gelsd").solution
            self._multipliers.weight.data.copy_(first[:, 0])

    def compute_cmp_state(self) -> CMPState:
        """The loss to first order and the violations, differentiable by the logits."""
        return CMPState(loss=self._gradient @ self._logits, observed_constraints=self._violations())

    def compute_violations(self) -> CMPState:
        """The violations alone, after the primal step."""
        return CMPState(observed_constraints=self._violations())

    def _violations(self) -> dict[Constraint, ConstraintState]:
        budget, logits = self._budget, self._logits
        return {
            self.goals: ConstraintState(budget.sparsities(logits) - budget.aims),
            self.caps: ConstraintState(budget.capped(logits) - budget.caps),
        }


def _constraint(kind: ConstraintType, multipliers: DenseMultiplier, penalty: float) -> Constraint:
    penalties = DensePenaltyCoefficient(torch.full_like(multipliers.weight.detach(), penalty))
    return Constraint(kind, AugmentedLagrangian, multipliers, penalties)

"""The size target: what fraction of which cost to remove, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

from secateur.errors import TargetError

_COSTS = ("params", "macs")


@dataclass(frozen=True)
class Sparsity:
    """How much to remove: ``Sparsity(0.5)`` is half of the parameters, to within 0.01.

    Attributes:
        rho: fraction of the whole model's cost to remove, in (0, 1); None if only components have targets.
        tolerance: how far from its target an achieved sparsity may be, in [0, 1).
        of: the cost: ``"params"`` (parameters) or ``"macs"`` (multiply-adds of one run of the entry point).
        components: component name to the fraction of its own cost to remove, in (0, 1). A component's target is met
            with its internal groups; ``rho`` then with all others, interfaces included. Without ``rho`` the others stay
            whole.
        minimum_width: channels that every group keeps at least; a group that is narrower stays whole.
        round_to: a group that shrinks keeps a multiple of this many channels; one that has fewer stays whole.

    Raises:
        TargetError: a value outside its range, or no target at all.
    """

    rho: float | None = None
    tolerance: float = 0.01
    of: str = "params"
    components: Mapping[str, float] = field(default_factory=dict)
    minimum_width: int = 1
    round_to: int = 1

    def __post_init__(self) -> None:
        if self.rho is None and not self.components:
            raise TargetError("give a target: Sparsity(0.5), or Sparsity(components={'encoder': 0.5})")
        if self.rho is not None:
            _check_fraction(self.rho, "the target sparsity")
        if not isinstance(self.components, Mapping):
            raise TargetError(f"components must map component names to sparsities, not be {self.components!r}")
        for name, rho in self.components.items():
            _check_fraction(rho, f"the target sparsity of component {name!r}")
        if not _is_number(self.tolerance) or not 0 <= self.tolerance < 1:
            raise TargetError(f"the tolerance must lie in [0, 1); it is {self.tolerance!r}")
        if self.of not in _COSTS:
            raise TargetError(f"sparsity of {self.of!r} is not offered; choose one of {', '.join(map(repr, _COSTS))}")
        for name in ("minimum_width", "round_to"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise TargetError(f"{name} must be a whole number of channels, at least 1; it is {value!r}")


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _check_fraction(value: float, what: str) -> None:
    if not _is_number(value) or not 0 < value < 1:
        raise TargetError(f"{what} must lie in (0, 1), the fraction to remove; it is {value!r}")

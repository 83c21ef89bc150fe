"""The size target: what fraction of which cost to remove, or the smallest that will do, and within which limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from secateur.errors import TargetError
from secateur.metrics.checks import is_number, is_whole

_COSTS = ("params", "macs", "latency")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a target counts, and what it may not touch.

    Attributes:
        of: the cost: ``"params"`` (parameters), ``"macs"`` (multiply-adds of one run of the entry point) or
            ``"latency"`` (measured seconds of one run of the entry point).
        caps: the most that may leave: of a component, the fraction of its own cost (of its multiply-adds where the
            target is of latency); of a group, the fraction of its channels. By name; a component's comes first.
        protected: names of components and groups that stay whole. Of a component that is every group that touches it.
        minimum_width: channels that every group keeps at least; a group that is narrower stays whole.
        round_to: a group that shrinks keeps a multiple of this many channels; one that has fewer stays whole.
    """

    of: str = "params"
    caps: Mapping[str, float] = field(default_factory=dict)
    protected: Sequence[str] = ()
    minimum_width: int = 1
    round_to: int = 1

    def __post_init__(self) -> None:
        if self.of not in _COSTS:
            raise TargetError(f"sparsity of {self.of!r} is not offered; choose one of {', '.join(map(repr, _COSTS))}")
        for name, cap in _checked_mapping(self.caps, "caps").items():
            if not is_number(cap) or not 0 <= cap < 1:
                raise TargetError(f"the cap of {name!r} must lie in [0, 1), the most to remove; it is {cap!r}")
        if not _are_names(self.protected):
            raise TargetError(f"protected must be a list of names of components and groups; it is {self.protected!r}")
        for name in ("minimum_width", "round_to"):
            value = getattr(self, name)
            if not is_whole(value, 1):
                raise TargetError(f"{name} must be a whole number of channels, at least 1; it is {value!r}")


@dataclass(frozen=True, kw_only=True)
class Sparsity(Limits):
    """How much to remove: ``Sparsity(0.5)`` is half of the parameters, to within 0.01.

    Attributes:
        rho: fraction of the whole model's cost to remove, in (0, 1); None if only parts have targets.
        tolerance: how far from its target an achieved sparsity may be, in [0, 1).
        components: component name to the fraction of its own cost to remove, in (0, 1). A component's target is met
            with its internal groups; ``rho`` then with all others, interfaces included. Without ``rho`` the others stay
            whole.
        interfaces: group name to the fraction of its channels to remove, in [0, 1), rounded to whole channels.

    Raises:
        TargetError: a value outside its range, or no target at all.
    """

    rho: float | None = field(default=None, kw_only=False)
    tolerance: float = 0.01
    components: Mapping[str, float] = field(default_factory=dict)
    interfaces: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rho is None and not self.components and not self.interfaces:
            raise TargetError("give a target: Sparsity(0.5), or Sparsity(components={'encoder': 0.5})")
        if self.rho is not None:
            _check_fraction(self.rho, "the target sparsity")
        for name, rho in _checked_mapping(self.components, "components").items():
            _check_fraction(rho, f"the target sparsity of component {name!r}")
            if self.caps.get(name, 1) < rho:
                raise TargetError(f"component {name!r} can't lose {rho:g} of its cost: its cap is {self.caps[name]:g}")
        for name, rho in _checked_mapping(self.interfaces, "interfaces").items():
            if not is_number(rho) or not 0 <= rho < 1:
                raise TargetError(f"the coefficient of interface {name!r} must lie in [0, 1); it is {rho!r}")
        if not is_number(self.tolerance) or not 0 <= self.tolerance < 1:
            raise TargetError(f"the tolerance must lie in [0, 1); it is {self.tolerance!r}")
        if self.of == "latency" and (self.rho is None or self.components):
            raise TargetError("a target of latency is one of the whole model: Sparsity(0.5, of='latency')")


@dataclass(frozen=True, kw_only=True)
class Smallest(Limits):
    """The smallest model that satisfies every constraint, found by bisection over the sparsity.

    Where candidates are measured with less than the result has, as by ``Search(refit_steps=0)`` or
    ``Search(calibration=...)``, what they measure only ranks them. The best that a search finds at a sparsity is then
    measured in full, refitted on the result's own calibration data with as many steps, and that decides whether more
    may leave. With the default ``Search()`` all are measured in full.

    Attributes:
        resolution: the result's sparsity is at most this much below the largest one found to satisfy, in (0, 1).
        largest: no more than this is removed, in (0, 1).

    Raises:
        TargetError: a value outside its range.
    """

    resolution: float = 0.005
    largest: float = 0.98

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fraction(self.resolution, "the resolution")
        _check_fraction(self.largest, "the largest sparsity")


Target = Sparsity | Smallest


def _checked_mapping(value: Mapping[str, float], name: str) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise TargetError(f"{name} must map names to fractions, not be {value!r}")
    return value


def _are_names(value: object) -> bool:
    """Whether these are names that can be gone through again and again, as those of an iterator can't."""
    if not isinstance(value, Collection) or isinstance(value, (str, Mapping)):
        return False
    return all(isinstance(name, str) for name in value)


def _check_fraction(value: float, what: str) -> None:
    if not is_number(value) or not 0 < value < 1:
        raise TargetError(f"{what} must lie in (0, 1), the fraction to remove; it is {value!r}")

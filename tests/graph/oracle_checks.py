"""The oracle's checks: what an operator does, by running it, against what its rule claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from secateur.graph.dispatch import EagerDispatchMode
from tests.graph.oracle import Axis, Case, Kept, Observation, Place, broadcast

_TRIALS = 100
_DRAWS = 400


class _Masking(EagerDispatchMode):
    """Runs an operator's tensors through masks on the way."""

    def __init__(self, keep: dict[tuple[int, int], torch.Tensor]) -> None:
        super().__init__()
        self._keep = keep
        self._number = -1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._number += 1
        position = -1

        def mask(item: Any) -> Any:
            nonlocal position
            if not isinstance(item, torch.Tensor):
                return item
            position += 1
            keep = self._keep.get((self._number, position))
            return item if keep is None else item.masked_fill(~keep, 0)

        args, kwargs = tree_map(mask, (args, kwargs or {}))
        return func(*args, **kwargs)


def outputs_masked(seen: Observation, removed: set[int]) -> list[torch.Tensor]:
    """The outputs on full inputs, with the removed indices zeroed wherever they are summed over."""
    keep: dict[tuple[int, int], torch.Tensor] = {}
    for mask in seen.masks:
        stays = torch.from_numpy(seen.stay((mask.factor,), mask.shape, removed))
        place = (mask.call, mask.position)
        keep[place] = keep[place] & stays if place in keep else stays
    return seen.case.outputs(seen.case.tensors, seen.case.dense(), mode=_Masking(keep))


def outputs_removed(seen: Observation, kept: Kept) -> list[torch.Tensor]:
    """The outputs on inputs of which only these indices are kept."""
    small = []
    for i, tensor in enumerate(seen.case.tensors):
        for a in range(tensor.dim()):
            tensor = tensor.index_select(a, torch.from_numpy(kept[i, a]))
        small.append(tensor)
    return seen.case.outputs(small, kept)


def perturbed(case: Case, places: Sequence[Place], trial: int) -> list[torch.Tensor]:
    """The inputs with fresh values at these indices."""
    generator = torch.Generator().manual_seed(100 + trial)
    tensors = [t.clone() for t in case.tensors]
    for (i, a), index in places:
        tensors[i].select(a, index).copy_(_other(case.tensors[i], generator).select(a, index))
    return tensors


def _other(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Other values from the same range: positive stays positive, integers and bools come from those that occur."""
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    if tensor.is_complex():
        return tensor + torch.complex(noise, noise.flip(0))
    if not tensor.is_floating_point():
        low, high = (0, 1) if tensor.dtype == torch.bool else (int(tensor.min()), int(tensor.max()))
        return torch.randint(low, high + 1, tensor.shape, generator=generator).to(tensor.dtype)
    if not tensor.isfinite().all():
        return noise
    if not (tensor > 0).all():
        return tensor + 3 * noise
    scale = (0.3 * noise).exp()
    return tensor.pow(scale) if (tensor < 1).all() else tensor * scale


def moved(seen: Observation, places: Sequence[Place], trial: int) -> list[NDArray[np.bool_]]:
    """The elements of the outputs that differ once the inputs do at these indices."""
    case = seen.case
    base = case.outputs(case.tensors, case.dense(), seed=trial) if case.random else seen.base
    other = case.outputs(perturbed(case, places, trial), case.dense(), seed=trial if case.random else 0)
    return [_differ(a, b, 0) for a, b in zip(base, other, strict=True)]


def _differ(a: torch.Tensor, b: torch.Tensor, tolerance: float | None = None) -> NDArray[np.bool_]:
    if tolerance is None:
        tolerance = _tolerance(a.dtype)
    return np.asarray(~torch.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def _tolerance(dtype: torch.dtype) -> float:
    """What rounding may change: a different order of a few additions."""
    if not dtype.is_floating_point and not dtype.is_complex:
        return 0
    return max(1e-12, 10 * torch.finfo(dtype).eps)


def check_run(seen: Observation) -> None:
    """The operators named ran, and every one that saw labels had a rule."""
    assert not set(seen.case.ops.split()) - set(seen.recorder.ran), f"ran only {seen.recorder.ran}"
    assert not seen.recorder.trace.missing_rules


def check_pins(seen: Observation) -> None:
    """Exactly the expected indices are pinned, and exactly the expected axes mixed."""
    pinned, mixed = {}, []
    for axis, labels in seen.inputs.items():
        if seen.pinned[labels].any():
            pinned[axis] = np.flatnonzero(seen.pinned[labels]).tolist()
        if seen.mixed[labels].any():
            mixed.append(axis)
    expected = {
        axis: (list(range(len(seen.inputs[axis])))[which] if isinstance(which, slice) else list(which))
        for axis, which in seen.case.pinned.items()
    }
    reasons = {n.reason for n in seen.recorder.facts.fixed}
    assert pinned == expected, f"pinned {pinned}, expected {expected}: {reasons}"
    assert sorted(mixed) == sorted(seen.case.mixed), f"mixed {mixed}, expected {list(seen.case.mixed)}"


def check_moves(seen: Observation) -> None:
    """What moves with an index is what carries its label, both ways."""
    alive: dict[Axis, bool] = {}
    constant = _never_moving(seen)
    for channel, places in seen.channels.items():
        claimed = seen.carriers(channel)
        places = [(axis, index) for axis, index in places if axis[0] not in seen.case.deaf]
        closed = not (seen.case.rejects or seen.pinned[channel] or seen.mixed[channel] or seen.summed[channel])
        for axis, index in places:
            now = moved(seen, [(axis, index)], 0)
            alive[axis] = alive.get(axis, False) or any(m.any() for m in now)
            if closed:
                wrong = any((m & ~c).any() for m, c in zip(now, claimed, strict=True))
                assert not wrong, f"index {index} of {axis} moves more than its label claims"
        if places and not seen.pinned[channel]:
            _check_claims(seen, places, [c & ~k for c, k in zip(claimed, constant, strict=True)])
    dead = [axis for axis, lives in alive.items() if not lives and not _alive(seen, axis)]
    assert not dead, f"nothing moves with {dead}: not a test"


def _never_moving(seen: Observation) -> list[NDArray[np.bool_]]:
    """The elements of the outputs that depend on no input at all, such as padding."""
    everywhere = [(axis, index) for axis, labels in seen.inputs.items() for index in range(len(labels))]
    return _still(seen, everywhere, [np.ones(tuple(t.shape), dtype=bool) for t in seen.base])


def _alive(seen: Observation, axis: Axis) -> bool:
    places = [(axis, index) for index in range(len(seen.inputs[axis]))]
    still = _still(seen, places, [np.ones(tuple(t.shape), dtype=bool) for t in seen.base])
    return any(not s.all() for s in still)


def _check_claims(seen: Observation, places: list[Place], claimed: list[NDArray[np.bool_]]) -> None:
    for i, still in enumerate(_still(seen, places, claimed)):
        assert not still.any(), f"output {i} carries the label of {places}, but {int(still.sum())} elements never move"


def _still(seen: Observation, places: list[Place], elements: list[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """Those of the elements that no perturbation moves."""
    still = [e.copy() for e in elements]
    for trial in range(_TRIALS):
        if not any(s.any() for s in still):
            break
        still = [s & ~now for s, now in zip(still, moved(seen, places, trial), strict=True)]
    return still


def check_removal(seen: Observation) -> None:
    """On inputs without some channels, the outputs are the original's without those channels' elements."""
    free = [c for c in seen.channels if not seen.pinned[c]]
    uncovered = set(free)
    mixing_seen = False
    random = np.random.default_rng(0)
    for _ in range(_DRAWS):
        if not uncovered:
            break
        removed = {c for c in free if random.random() < 0.35}
        kept = seen.kept(removed)
        if not removed & uncovered or not _possible(seen, removed, kept):
            continue
        uncovered -= removed
        mixing_seen |= not _check_removed(seen, removed, kept)
    assert not uncovered, f"no way to remove {[seen.channels[c] for c in uncovered]}"
    assert mixing_seen or not seen.mixed[free].any() or seen.case.random, "noted as mixed, but removal is exact"


def _possible(seen: Observation, removed: set[int], kept: Kept) -> bool:
    """Whether equal counts stay equal, and no axis becomes trivial that wasn't nearly so before."""
    enough = all(len(kept[axis]) >= min(2, len(labels) - 1) for axis, labels in seen.inputs.items())
    return enough and seen.balanced(removed)


def _check_removed(seen: Observation, removed: set[int], kept: Kept) -> bool:
    """Whether values agree, which they must unless a mixed channel is removed; shapes always must."""
    small = outputs_removed(seen, kept)
    full = outputs_masked(seen, removed)
    same = True
    for i, (now, before, factors) in enumerate(zip(small, full, seen.factors, strict=True)):
        expected = seen.without(before, factors, removed)
        assert now.shape == expected.shape, f"output {i} without {removed}: {now.shape}, expected {expected.shape}"
        same = same and not _differ(now, expected).any()
    mixing = any(seen.mixed[c] for c in removed)
    places = [seen.channels[c] for c in removed]
    assert same or mixing or seen.case.random, f"removing {places} changes what stays"
    return same


def check_macs(seen: Observation) -> None:
    """Multiply-adds, of all channels and of some, as torch's own counter has them."""
    if seen.case.macs is not None:
        assert seen.macs(set()) == seen.case.macs, f"{seen.macs(set())} multiply-adds claimed"
        return
    free = [c for c in seen.channels if not seen.pinned[c]]
    random = np.random.default_rng(1)
    for share in (0.0, *[0.35] * 30):
        removed = {c for c in free if random.random() < share}
        kept = seen.kept(removed)
        if not _possible(seen, removed, kept):
            continue
        with FlopCounterMode(display=False) as counter:
            outputs_removed(seen, kept)
        claimed, counted = seen.macs(removed), counter.get_total_flops() // 2
        assert claimed == counted, f"{claimed} multiply-adds claimed, {counted} counted, without {removed}"


def check_ties(seen: Observation) -> None:
    """No index is tied to another for nothing: removed alone, it breaks the operator or changes what stays."""
    if seen.case.coarse:
        return
    alone: dict[Axis, list[bool]] = {}
    for channel, places in seen.channels.items():
        if len(places) == 1 or seen.pinned[channel]:
            continue
        for axis, index in places:
            kept = {**seen.case.dense(), axis: np.delete(np.arange(len(seen.inputs[axis])), index)}
            alone.setdefault(axis, []).append(_leaves_alone(seen, axis, index, kept))
    # Operators without a size check may read the first entries of a vector that is too long: not for every index.
    needless = [axis for axis, found in alone.items() if all(found)]
    assert not needless, f"indices of {needless} could leave alone"


def _leaves_alone(seen: Observation, axis: Axis, index: int, kept: Kept) -> bool:
    try:
        small = outputs_removed(seen, kept)
    except (RuntimeError, IndexError, ValueError, TypeError):
        return False
    before = seen.case.outputs(seen.case.tensors, seen.case.dense())
    gone = moved(seen, [(axis, index)], 0)
    return all(_is_part(s, b, g) for s, b, g in zip(small, before, gone, strict=True))


def _is_part(small: torch.Tensor, full: torch.Tensor, gone: NDArray[np.bool_]) -> bool:
    """Whether ``small`` is ``full`` without indices of one dimension that are gone from end to end."""
    for dim in range(full.dim()):
        others = tuple(d for d in range(full.dim()) if d != dim)
        whole = np.asarray(gone.all(axis=others))
        if not whole.any() or (gone & ~broadcast((dim,), whole, full.dim())).any():
            continue
        part = full.index_select(dim, torch.from_numpy(np.flatnonzero(~whole)))
        if part.shape == small.shape and not _differ(part, small).any():
            return True
    return False


def check_all(seen: Observation) -> None:
    """Every check but that of the multiply-adds."""
    check_run(seen)
    check_pins(seen)
    check_moves(seen)
    check_removal(seen)
    check_ties(seen)

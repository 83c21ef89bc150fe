"""Remove channels drawn at random, and the same by zeroing, without any of the library's own proof."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from secateur.graph import DependencyGraph, Group, Role
from secateur.graph.entry_point import EntryPoint, tensors_in
from secateur.graph.kernels import plain_kernels
from secateur.plan import PruningPlan, plan


def random_plan(graph: DependencyGraph, seed: int, *, keep: Collection[str] = ()) -> PruningPlan:
    """A plan that removes some channels of every group, except of those in ``keep`` and what is tied to them."""
    rng = np.random.default_rng(seed)
    scores = {group.name: rng.random(group.size) for group in graph.groups}
    coefficients = {}
    for tie in graph.ties:
        groups = [graph.groups[i] for i in tie]
        units = groups[0].units
        left = units if any(g.name in keep for g in groups) else int(rng.integers(max(1, units // 3), units))
        coefficients.update({g.name: 1 - left / units for g in groups})
    return plan(graph, scores, coefficients)


def masked(model: nn.Module, graph: DependencyGraph, plan: PruningPlan, *, everything: bool = False) -> nn.Module:
    """A copy of the model in which removed channels are zeroed where they are consumed.

    A group that no parameter consumes (queries and keys, contracted with each other) is zeroed where it is produced;
    with ``everything``, all groups are zeroed wherever they occur, which is right if zero passes unchanged.
    """
    copied = copy.deepcopy(model)
    tensors = dict([*copied.named_parameters(), *copied.named_buffers()])
    for group in graph.groups:
        gone = np.setdiff1d(np.arange(group.size), plan.groups[group.name])
        consumers = group.members_with(Role.CONSUMER)
        for member in group.members if everything or not consumers else consumers:
            tensor = tensors[member.parameter].data
            tensor.index_fill_(member.axis, torch.from_numpy(member.indices[gone].ravel()), 0)
    return copied


def mixing_groups(graph: DependencyGraph) -> list[Group]:
    """The groups that a mixing operation meets."""
    return [group for group in graph.groups if group.mixing]


def outputs(run: EntryPoint, model: nn.Module) -> list[torch.Tensor]:
    """Every tensor that the entry point returns."""
    with torch.no_grad():
        return list(tensors_in(run(model)))


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest absolute difference between two lists of outputs."""
    assert [t.shape for t in ours] == [t.shape for t in theirs]
    assert all(t.isfinite().all() for t in ours)
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def counted_macs(run: EntryPoint, model: nn.Module) -> int:
    """MACs of one run as torch's own FLOP counter sees them, without fused kernels that hide them."""
    with plain_kernels(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run(model)
    return int(counter.get_total_flops()) // 2


def counted_parameters(model: nn.Module) -> int:
    """Elements of all parameters, shared ones once."""
    # On the meta device there is no memory to be shared.
    by_storage = {p.untyped_storage().data_ptr() or id(p): p.numel() for p in model.parameters()}
    return sum(by_storage.values())


def train_step(run: EntryPoint, model: nn.Module) -> Any:
    """One step of gradient descent on the sum of the squared outputs; returns the parameters that got a gradient."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    loss = torch.stack([t.pow(2).sum() for t in tensors_in(run(model)) if t.requires_grad]).sum()
    loss.backward()
    optimizer.step()
    return [name for name, p in model.named_parameters() if p.grad is not None]

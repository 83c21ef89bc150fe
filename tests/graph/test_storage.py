"""Ties by storage, and overlaps that are no ties."""

from __future__ import annotations

import torch
from torch import nn

from secateur.graph import trace
from secateur.graph.storage import overlapping_names, tied_names


def test_same_memory_seen_alike_is_tied() -> None:
    a = torch.zeros(4, 6)
    tensors = {"a": a, "b": a.detach(), "c": a.clone(), "d": a.T}
    assert tied_names(tensors) == {"b": "a"}
    assert overlapping_names(tensors) == {"a": "d", "d": "a"}


def test_neighbours_in_one_buffer_are_neither() -> None:
    flat = torch.zeros(24)
    tensors = {"a": flat[:12].view(3, 4), "b": flat[12:].view(4, 3)}
    assert tied_names(tensors) == overlapping_names(tensors) == {}


def test_empty_and_meta_tensors_are_told_apart() -> None:
    tensors = {"a": torch.empty(0), "b": torch.empty(0), "c": torch.empty(3, device="meta")}
    tensors["d"] = torch.empty(3, device="meta")
    assert tied_names(tensors) == overlapping_names(tensors) == {}


def test_a_parameter_that_is_anothers_transpose_stays_whole() -> None:
    first, second = nn.Linear(6, 8, bias=False), nn.Linear(8, 6, bias=False)
    second.weight = nn.Parameter(first.weight.data.T)
    graph = trace(nn.Sequential(first, second), torch.ones(2, 6))
    assert graph.groups == ()
    assert any("shares a part of its memory" in reason for u in graph.unprunable for reason in u.reasons)


def test_parts_of_one_buffer_overlap_the_whole_and_not_each_other() -> None:
    flat = torch.zeros(24)
    tensors = {"flat": flat, "a": flat[:6], "b": flat[6:12].view(2, 3), "c": flat[12:]}
    assert overlapping_names(tensors) == {"flat": "a", "a": "flat", "b": "flat", "c": "flat"}


def test_sparse_tensors_are_told_apart_by_object() -> None:
    graph = torch.eye(3).to_sparse()
    tensors = {"a": graph, "b": torch.eye(3).to_sparse(), "c": graph}
    assert tied_names(tensors) == {"c": "a"}
    assert overlapping_names(tensors) == {}

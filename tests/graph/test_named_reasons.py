"""What can't follow says why, and what to do: the reasons of operators that treat their channels as a whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur.graph import DependencyGraph, trace

Function = Callable[[torch.Tensor], torch.Tensor]


class Odd(nn.Module):
    """A function of the first layer's channels, and one more layer after it."""

    def __init__(self, odd: Function, width: int) -> None:
        super().__init__()
        self.first, self.odd = nn.Linear(4, 6), odd
        self.second, self.last = nn.Linear(width, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.last(torch.relu(self.second(self.odd(self.first(x)))))
        return result


def _graph(odd: Function) -> DependencyGraph:
    x = torch.zeros(3, 4)
    return trace(Odd(odd, odd(torch.ones(3, 6)).shape[-1]), x)


def _quantised(h: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
        return torch.quantize_per_tensor(h, 0.1, 0, torch.qint8).dequantize()


def _square(h: torch.Tensor) -> torch.Tensor:
    return h.T @ h + torch.eye(6)


ODD: dict[str, Function] = {
    "sorted along its channels (aten.sort in ": lambda h: h.sort(-1).values,
    "sorted along its channels (aten.topk in ": lambda h: h.topk(3).values,
    "a Fourier transform over its channels (aten._fft_r2c in ": lambda h: torch.fft.rfft(h).abs(),
    "a determinant over its channels (aten._linalg_det in ": lambda h: torch.linalg.det(_square(h)) + h[:, :1] * 0,
    "a matrix inverse over its channels (aten.linalg_inv_ex in ": lambda h: torch.linalg.inv(_square(h)),
    "a QR factorisation over its channels (aten.linalg_qr in ": lambda h: torch.linalg.qr(_square(h)).Q,
    "a matrix exponential over its channels (aten.linalg_matrix_exp in ": lambda h: torch.linalg.matrix_exp(
        0 * _square(h)
    ),
    "a system of linear equations over its channels (aten._linalg_solve_ex in ": lambda h: torch.linalg.solve(
        _square(h), torch.eye(6)
    ),
    "read as data (aten.masked_select in ": lambda h: h.masked_select(torch.ones_like(h) > 0).view(-1, 3),
    "picked by an index tensor (aten.index in ": lambda h: h[:, torch.tensor([0, 2, 1])],
    "written at indices named by a tensor (aten.scatter in ": lambda h: h.scatter(1, torch.zeros(3, 1).long(), 1.0),
    "quantised; prune the model before it is quantised (aten.quantize_per_tensor in ": _quantised,
    "a sparse tensor, whose indices aren't followed; make it dense while pruning (aten._to_sparse in ": lambda h: (
        h.to_sparse().to_dense()
    ),
    "converted to mkldnn; prune the model before (aten.to_mkldnn in ": lambda h: h.to_mkldnn().to_dense(),
    "cut into sliding windows (aten.unfold in ": lambda h: h.unfold(1, 2, 2).sum(-1),
    "pooled, padded or resized position (aten.avg_pool2d in ": lambda h: F.local_response_norm(h[..., None], 3)[..., 0],
    "addressed by raw strides (aten.as_strided in ": lambda h: h.as_strided((3, 2), (6, 1)),
}


@pytest.mark.parametrize("reason", ODD)
def test_what_stays_says_why_and_the_rest_is_pruned(reason: str) -> None:
    graph = _graph(ODD[reason])
    found = {(u.parameter, u.axis): u.reasons for u in graph.unprunable}
    assert any(r.startswith(reason) and "test_named_reasons.py" in r for r in found["first.weight", 0]), found
    assert [group.name for group in graph.groups] == ["second"]
    assert not graph.missing_rules


class Ragged(nn.Module):
    """A layer of sequences of several lengths, its channels taken apart and put together again, and one more layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ragged = torch.nested.nested_tensor([x, x[:2]], layout=torch.jagged)
        ragged = self.first(ragged)
        pieces = ragged.reshape(len(ragged), ragged.shape[1], 6).unflatten(-1, (2, 3)).values()
        result: torch.Tensor = self.last(torch.relu(self.second(pieces.flatten(1))))
        return result


def test_nested_tensors_stay_and_say_what_to_do_whatever_is_asked_of_their_sizes() -> None:
    graph = trace(Ragged(), torch.zeros(3, 4))
    found = {(u.parameter, u.axis): u.reasons for u in graph.unprunable}
    reason = next(r for r in found["first.weight", 0] if r.startswith("a nested tensor"))
    assert "pad it while pruning" in reason
    assert "test_named_reasons.py" in reason
    assert [group.name for group in graph.groups] == ["second"]


class Placed(nn.Module):
    """Positions kept as a plain tensor, which moves and shrinks with nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = torch.ones(9, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.positions[: len(x)].double()


def test_a_plain_tensor_of_a_module_is_named_and_a_buffer_is_advised() -> None:
    model = nn.Sequential(nn.Linear(4, 6), Placed(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    graph = trace(model, torch.zeros(3, 4).double())
    assert [group.name for group in graph.groups] == ["2"]
    found = {(u.parameter, u.axis): u.reasons for u in graph.unprunable}
    assert (
        "meets 1.positions, a tensor that is neither parameter nor buffer, which stays as it is; "
        "self.register_buffer('positions', ...) would follow"
    ) in found["0.weight", 0]

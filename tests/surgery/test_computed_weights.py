"""Weights computed by a hook before every call: they are the smaller ones as soon as the plan has been applied."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from secateur.graph import trace
from secateur.plan import plan
from secateur.surgery import apply
from tests.handmade import random_scores

X = torch.randn(4, 5, dtype=torch.float64)


def by_hook(how: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(how(nn.Linear(5, 9)), nn.Tanh(), how(nn.Linear(9, 8)), nn.Tanh(), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize("how", [nn.utils.weight_norm, nn.utils.spectral_norm], ids=["weight", "spectral"])
def test_computed_weights_are_the_smaller_ones(how: Callable[[nn.Module], nn.Module], inplace: bool) -> None:
    model = by_hook(how)
    graph = trace(model, X)
    model(X).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = plan(graph, random_scores(graph), 0.5)
    small = apply(model, made, inplace=inplace)
    first, second = small[0], small[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    assert (first.weight.shape, second.weight.shape) == ((5, 5), (4, 5))
    assert (first.out_features, second.in_features, second.out_features) == (5, 5, 4)
    kept = before["0.weight_u"][made.kept["0.bias", 0].tolist()] if how is nn.utils.spectral_norm else None
    assert kept is None or torch.equal(small.state_dict()["0.weight_u"], kept)
    small(X).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    if not inplace:
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert model.state_dict()["0.bias"].shape == (9,)


def test_torch_itself_cant_copy_such_a_model() -> None:
    """Were this to change, nothing special would be left to do."""
    with pytest.raises(RuntimeError, match="support the deepcopy protocol"):
        copy.deepcopy(by_hook(nn.utils.weight_norm))

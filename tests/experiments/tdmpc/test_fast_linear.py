from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.experiments.tdmpc.fast_linear import FastLinear

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def gradients(inputs: Tensor, layers: nn.Module) -> list[Tensor]:
    of = [each for each in (inputs, *layers.parameters()) if each.requires_grad]
    return list(torch.autograd.grad(torch.sin(layers(inputs)).sum(), of))


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_pytorchs_own(shape: tuple[int, ...], bias: bool) -> None:
    layers = nn.Sequential(nn.Linear(5, 7, bias=bias), nn.ELU(), nn.Linear(7, 1))
    inputs = torch.randn(shape, requires_grad=True)
    with FastLinear():
        outputs, found = layers(inputs), gradients(inputs, layers)
    torch.testing.assert_close(outputs, layers(inputs), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found, gradients(inputs, layers), atol=1e-5, rtol=1e-5)


def test_tensors_that_are_not_contiguous() -> None:
    inputs, weight = torch.randn(5, 4).t(), torch.randn(5, 3).t().requires_grad_()
    expected = F.linear(inputs, weight)
    with FastLinear():
        outputs = F.linear(inputs, weight)
    torch.testing.assert_close(outputs, expected, atol=1e-6, rtol=1e-5)
    (found,) = torch.autograd.grad(outputs.square().sum(), weight)
    torch.testing.assert_close(found, (2 * expected.t() @ inputs).detach(), atol=1e-5, rtol=1e-5)


def test_only_what_needs_a_gradient_gets_one() -> None:
    layer, inputs = nn.Linear(3, 2), torch.randn(4, 3)
    with FastLinear():
        layer(inputs).sum().backward()
        layer.requires_grad_(False)
        frozen = layer(inputs.clone().requires_grad_())
        with torch.no_grad():
            assert not layer(inputs).requires_grad
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, torch.tensor([4.0, 4.0]))
    layer.zero_grad()
    frozen.sum().backward()
    assert layer.weight.grad is None


@needs_onednn
def test_it_is_used_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []

    def count(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        calls.append(rows.dtype)
        return rows @ weight.t() + (0 if bias is None else bias)

    monkeypatch.setattr("secateur.experiments.tdmpc.fast_linear._product", count)
    layer = nn.Linear(3, 2).requires_grad_(False)
    layer(torch.randn(4, 3))
    with FastLinear():
        layer(torch.randn(4, 3))
        layer.double()(torch.randn(4, 3, dtype=torch.float64))
        layer.float()(torch.randn(0, 3))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with FastLinear():
        layer(torch.randn(4, 3))
    assert calls == [torch.float32]

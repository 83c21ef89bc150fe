from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.errors import InfeasibleError
from secateur.experiments.autoencoder import Autoencoder
from secateur.experiments.torch_masks import RowNorms, mask_fraction, mask_rows, random_rows, smallest_rows

LAYERS = ("encoder.0", "encoder.2", "encoder.4", "decoder.0", "decoder.2")


@pytest.fixture(scope="module")
def dense() -> Autoencoder:
    torch.manual_seed(3)
    return Autoencoder(16, (40, 20, 10)).eval()


@pytest.fixture(scope="module")
def graph(dense: Autoencoder) -> secateur.DependencyGraph:
    return secateur.trace(dense, torch.zeros(1, 16))


def weight(model: nn.Module, layer: str) -> torch.Tensor:
    return model.get_parameter(f"{layer}.weight").detach()


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.8])
def test_removing_the_zeroed_rows_gives_the_asked_sparsity(
    dense: Autoencoder, graph: secateur.DependencyGraph, rho: float
) -> None:
    masked = mask_rows(dense, graph, rho, smallest_rows)
    small = secateur.apply(dense, masked.plan)
    parameters = [sum(p.numel() for p in model.parameters()) for model in (dense, small)]
    assert 1 - parameters[1] / parameters[0] == pytest.approx(rho, abs=0.02)
    for layer in LAYERS:
        zeroed = int((weight(masked.model, layer).abs().sum(dim=1) == 0).sum())
        assert zeroed == round(masked.amount * len(weight(dense, layer)))
        assert zeroed == len(weight(dense, layer)) - len(weight(small, layer))


def test_a_sparsity_that_no_amount_gives(dense: Autoencoder, graph: secateur.DependencyGraph) -> None:
    only = [group for group in graph.groups if group.name == "encoder.4"]
    with pytest.raises(InfeasibleError, match=r"PyTorch's masks comes no nearer to a sparsity of 0\.9 than 0\.1"):
        mask_rows(dense, graph, 0.9, smallest_rows, groups=only)


def test_pytorch_zeroes_the_rows_of_least_norm_and_leaves_biases(
    dense: Autoencoder, graph: secateur.DependencyGraph
) -> None:
    masked = mask_rows(dense, graph, 0.5, smallest_rows)
    for layer in LAYERS:
        norms = weight(dense, layer).norm(dim=1).numpy()
        kept = masked.plan.groups[layer].tolist()
        assert set(kept) == set(np.argsort(norms)[len(norms) - len(kept) :])
        assert torch.equal(weight(masked.model, layer)[kept], weight(dense, layer)[kept])
        bias = f"{layer}.bias"
        assert torch.equal(masked.model.get_parameter(bias), dense.get_parameter(bias))
    assert torch.equal(weight(masked.model, "decoder.4"), weight(dense, "decoder.4"))


def test_random_rows_are_those_of_the_seed(dense: Autoencoder, graph: secateur.DependencyGraph) -> None:
    def drawn(seed: int) -> secateur.PruningPlan:
        torch.manual_seed(seed)
        return mask_rows(dense, graph, 0.5, random_rows).plan

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_the_dense_model_stays_as_it_is(dense: Autoencoder, graph: secateur.DependencyGraph) -> None:
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    mask_rows(dense, graph, 0.5, smallest_rows)
    assert before.keys() == dense.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())


def test_row_norms_are_those_of_the_producing_weights(dense: Autoencoder, graph: secateur.DependencyGraph) -> None:
    scores = RowNorms()(graph, dense)
    assert list(scores) == list(LAYERS)
    expected = weight(dense, "encoder.4").double().square().sum(dim=1).sqrt()
    assert np.allclose(scores["encoder.4"], expected)


def test_groups_that_are_left_out_stay_whole(dense: Autoencoder, graph: secateur.DependencyGraph) -> None:
    internal = [group for group in graph.groups if not group.is_interface]
    masked = mask_rows(dense, graph, 0.5, smallest_rows, groups=internal)
    small = secateur.apply(dense, masked.plan)
    parameters = [sum(p.numel() for p in model.parameters()) for model in (dense, small)]
    assert 1 - parameters[1] / parameters[0] == pytest.approx(0.5, abs=0.02)
    (latent,) = graph.interfaces
    assert len(masked.plan.groups[latent.name]) == latent.size
    assert torch.equal(weight(masked.model, latent.name), weight(dense, latent.name))


def test_a_fraction_of_the_rows_of_every_layer(dense: Autoencoder, graph: secateur.DependencyGraph) -> None:
    masked = mask_fraction(dense, graph, 0.25, smallest_rows)
    assert {name: len(kept) for name, kept in masked.plan.groups.items()} == {
        group.name: group.size - round(0.25 * group.size) for group in graph.groups
    }

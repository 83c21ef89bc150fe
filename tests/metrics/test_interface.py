"""Drift and similarity of an interface, from their formulas and on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.errors import CalibrationError, ObjectiveError
from secateur.metrics import LatentDrift, Similarity

ROWS = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, width))
        self.decoder = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


def pruned(dense: nn.Module, coefficients: dict[str, float]) -> tuple[nn.Module, secateur.PruningPlan]:
    graph = secateur.trace(dense, ROWS[:2])
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, dense), coefficients)
    return secateur.apply(dense, plan), plan


def latents(model: nn.Module, rows: Tensor = ROWS) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model.get_submodule("encoder")(rows).double())


# --- drift ------------------------------------------------------------------------------------------------------------


def test_drift_is_the_relative_distance() -> None:
    dense, model = Net(), Net(seed=1)
    z, moved = latents(dense), latents(model)
    expected = np.linalg.norm(z - moved) / np.linalg.norm(z)
    functions = [lambda m, rows=rows: m(rows) for rows in ROWS.split(37)]
    for calibration in ([ROWS], list(ROWS.split(37)), lambda m: m(ROWS), functions, [ROWS[:9], lambda m: m(ROWS[9:])]):
        assert LatentDrift(dense, "encoder", calibration)(model) == pytest.approx(expected, rel=1e-6)
    assert LatentDrift(dense, "encoder", [ROWS])(dense) == 0


def test_drift_of_a_pruned_interface_compares_the_kept_channels() -> None:
    dense = Net()
    small, plan = pruned(dense, {"encoder.0": 0.5, "encoder.2": 0.25, "decoder.0": 0.5})
    kept = plan.groups["encoder.2"]
    z, moved = latents(dense), latents(small)
    assert moved.shape[1] == len(kept) == 6
    distance = ((z[:, kept] - moved) ** 2).sum()
    drift = LatentDrift(dense, "encoder", [ROWS], group="encoder.2").measure(small, plan)
    assert drift == pytest.approx(np.sqrt(distance / (z[:, kept] ** 2).sum()), rel=1e-6)
    lost = ((z**2).sum() - (z[:, kept] ** 2).sum()) / (z**2).sum()
    everything = LatentDrift(dense, "encoder", [ROWS], group="encoder.2", count_removed=True).measure(small, plan)
    assert everything == pytest.approx(np.sqrt(distance / (z**2).sum() + lost), rel=1e-6)


def test_a_pruned_interface_alone_does_not_drift() -> None:
    dense = Net()
    small, plan = pruned(dense, {"encoder.2": 0.5})
    assert LatentDrift(dense, "encoder.2", [ROWS]).measure(small, plan) == pytest.approx(0, abs=1e-6)


def test_drift_of_feature_maps() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    images = torch.randn(5, 3, 9, 9)
    graph = secateur.trace(dense, images)
    scores = {g.name: np.arange(g.size, dtype=float) for g in graph.groups}
    plan = secateur.plan(graph, scores, {"0": 0.5})
    small = secateur.apply(dense, plan)
    assert list(plan.groups["0"]) == [4, 5, 6, 7]
    drifts = [LatentDrift(dense, "0", [images]), LatentDrift(dense, "1", [images], group="0", channel_dim=-3)]
    assert [d.measure(small, plan) for d in drifts] == pytest.approx([0, 0], abs=1e-6)
    with torch.no_grad():
        for parameter in small[0].parameters():
            parameter.mul_(0.9)
    assert [d.measure(small, plan) for d in drifts] == pytest.approx([0.1, 0.1], rel=1e-5)


def test_drift_over_the_calls_of_a_rollout() -> None:
    dense, model = Net(width=10), Net(width=10, seed=1)

    def rollout(m: nn.Module) -> None:
        x = ROWS
        for _ in range(3):
            x = m.get_submodule("encoder")(x)

    with torch.no_grad():
        steps = []
        for m in (dense, model):
            x, outputs = ROWS, []
            for _ in range(3):
                x = m.encoder(x)
                outputs.append(x)
            steps.append(torch.cat(outputs).double())
    expected = float((steps[0] - steps[1]).norm() / steps[0].norm())
    assert LatentDrift(dense, "encoder", rollout)(model) == pytest.approx(expected, rel=1e-6)


def test_channels_that_cannot_be_matched() -> None:
    dense = Net()
    small, plan = pruned(dense, {"encoder.2": 0.5})
    with pytest.raises(ObjectiveError, match="'encoder' has 8 channels in the dense model and 4 in the smaller one"):
        LatentDrift(dense, "encoder", [ROWS]).measure(small, plan)
    with pytest.raises(ObjectiveError, match=r"the channel group they are; those of that size are 'encoder\.2'"):
        LatentDrift(dense, "encoder", [ROWS]).measure(small, plan)
    with pytest.raises(ObjectiveError, match="give group="):
        LatentDrift(dense, "encoder.2", [ROWS])(small)
    with pytest.raises(ObjectiveError, match=r"group 'encoder\.0' has 16 channels and keeps 16, but 'encoder' has 8"):
        LatentDrift(dense, "encoder", [ROWS], group="encoder.0").measure(small, plan)


# --- similarity -------------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """A module ``latent`` that gives these values, whatever it reads."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.latent = nn.Identity()
        self.values = nn.Parameter(values)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.latent(self.values[rows])
        return out


INDICES = list(torch.arange(300).split(90))


def similarity(x: Tensor, y: Tensor) -> float:
    return Similarity(Fixed(x), "latent", INDICES)(Fixed(y))


def cka(x: Tensor, y: Tensor) -> float:
    """By Gram matrices of examples, the definition of centred kernel alignment (equations 2 and 3)."""
    n = len(x)
    centring = np.eye(n) - 1 / n
    k, m = (centring @ (v.double() @ v.double().T).numpy() @ centring for v in (x, y))
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_similarity_is_the_alignment_of_the_kernels() -> None:
    x = torch.randn(300, 6)
    y = torch.cat([x @ torch.randn(6, 3) + 0.5 * torch.randn(300, 3), torch.randn(300, 1)], dim=1) + 20
    assert similarity(x, y) == pytest.approx(cka(x, y), rel=1e-6)
    assert similarity(y, x) == pytest.approx(cka(x, y), rel=1e-6)


def test_rotation_scale_order_and_offset_do_not_matter() -> None:
    x = torch.randn(300, 7) * torch.arange(1, 8)
    rotation = torch.linalg.qr(torch.randn(7, 7))[0]
    same = Fixed(x)
    assert Similarity(same, "latent", INDICES)(same) == pytest.approx(1, abs=1e-6)
    assert similarity(x, x) == pytest.approx(1, abs=1e-6)
    assert similarity(x, x @ rotation) == pytest.approx(1, abs=1e-6)
    assert similarity(x, 0.01 * x[:, torch.randperm(7)]) == pytest.approx(1, abs=1e-6)
    assert similarity(x, x + 1e3) == pytest.approx(1, abs=1e-5)


def test_independent_noise_is_not_similar() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(300, 4), torch.randn(300, 5)
    assert similarity(x, y) < 0.05
    assert similarity(torch.cat([x, y], dim=1), x) == pytest.approx(np.sqrt(4 / 9), abs=0.05)


def test_similarity_of_a_narrower_interface() -> None:
    dense = Net()
    small, _plan = pruned(dense, {"encoder.2": 0.5})
    z, kept = latents(dense), latents(small)
    found = Similarity(dense, "encoder", list(ROWS.split(50)))(small)
    assert found == pytest.approx(cka(torch.from_numpy(z), torch.from_numpy(kept)), rel=1e-6)
    assert 0 < found < 1


# --- wrong input ------------------------------------------------------------------------------------------------------


def test_wrong_input() -> None:
    dense = Net()
    with pytest.raises(ObjectiveError, match="the dense model has no module 'latent'; give a dotted path"):
        Similarity(dense, "latent", [ROWS])
    with pytest.raises(CalibrationError, match="calibration is a single Tensor"):
        LatentDrift(dense, "encoder", ROWS)
    for metric in (LatentDrift(dense, "encoder", lambda m: None), Similarity(dense, "encoder", lambda m: None)):
        with pytest.raises(ObjectiveError, match="the calibration data never reaches 'encoder'"):
            metric(dense)


def test_activations_that_say_nothing() -> None:
    zeros, noise = torch.zeros(300, 3), torch.randn(300, 3)
    with pytest.raises(ObjectiveError, match="'latent' are all zero in the dense model; nothing can drift"):
        LatentDrift(Fixed(zeros), "latent", INDICES)(Fixed(noise))
    with pytest.raises(ObjectiveError, match="'latent' don't vary in the smaller model"):
        similarity(noise, zeros + 1)


def test_a_module_that_returns_no_tensor() -> None:
    model = nn.Sequential(nn.LSTM(10, 4))
    with pytest.raises(ObjectiveError, match="a LSTM returns a tuple, whose activations can't be compared"):
        Similarity(model, "0", [ROWS])(model)


def test_modes_and_random_state_stay() -> None:
    dense, model = Net().train(), Net(seed=1)
    model.decoder.train(False)
    state = torch.get_rng_state()
    LatentDrift(dense, "encoder", [ROWS])(model)
    Similarity(dense, "encoder", [ROWS])(model)
    assert dense.encoder.training
    assert model.training
    assert not model.decoder.training
    assert torch.equal(state, torch.get_rng_state())

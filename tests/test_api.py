from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.allocation.objective import evaluate
from secateur.metrics.estimate import Estimate


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 8))
        self.decoder = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.decoder(self.encoder(x))
        return out


INPUTS = torch.randn(256, 12, generator=torch.Generator().manual_seed(0))


def error(model: nn.Module) -> float:
    """Mean squared distance from what the model of ``fixed`` computes."""
    with torch.no_grad():
        return torch.mean((model(INPUTS) - fixed()(INPUTS)) ** 2).item()


def fixed() -> Autoencoder:
    torch.manual_seed(3)
    return Autoencoder()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_a_model_and_its_inputs_are_enough() -> None:
    model = fixed()
    before = copy.deepcopy(model.state_dict())
    result = secateur.prune(model, INPUTS[:1])
    assert isinstance(result.model, Autoencoder)
    assert result.model is not model
    assert result.before.parameters == parameters(model)
    assert result.after.parameters == parameters(result.model)
    assert abs(1 - result.after.parameters / result.before.parameters - 0.5) <= 0.01
    assert result.before.objective is None
    assert result.model(INPUTS).shape == (256, 12)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_macs_are_those_of_the_small_model() -> None:
    result = secateur.prune(fixed(), INPUTS[:1], target=0.4, of="macs")
    linear = [m for m in result.model.modules() if isinstance(m, nn.Linear)]
    assert result.after.macs == sum(m.in_features * m.out_features for m in linear)
    assert abs(1 - result.after.macs / result.before.macs - 0.4) <= 0.01


def test_calibration_repairs() -> None:
    objective = secateur.Minimize(error)
    plain = secateur.prune(fixed(), INPUTS[:1], target=0.3, objective=objective)
    repaired = secateur.prune(fixed(), INPUTS[:1], target=0.3, objective=objective, calibration=[INPUTS])
    assert plain.before.objective == repaired.before.objective == 0
    assert plain.after.objective is not None
    assert repaired.after.objective is not None
    assert repaired.after.objective < 0.5 * plain.after.objective


def test_a_generator_of_calibration_is_as_good_as_a_list() -> None:
    def batches() -> Iterator[torch.Tensor]:
        yield from INPUTS.split(64)

    once, listed = (
        secateur.prune(fixed(), INPUTS[:1], calibration=data, objective=error) for data in (batches(), [*batches()])
    )
    assert once.after.objective == listed.after.objective


@pytest.mark.parametrize(
    "strategy",
    [secateur.Uniform(), secateur.Sensitivity(points=(0.5,), evaluations=10)],
    ids=["uniform", "sensitivity"],
)
def test_functions_of_the_model_are_calibration_like_their_inputs(strategy: Any) -> None:
    functions = [lambda m, rows=rows: m(rows) for rows in INPUTS.split(64)]
    by_functions, by_inputs = (
        secateur.prune(
            fixed(), INPUTS[:1], calibration=data, objective=secateur.Minimize(error), strategy=strategy, search=search
        )
        for data, search in (
            (functions, secateur.Search(calibration=functions[:2])),
            ([*INPUTS.split(64)], secateur.Search(calibration=[*INPUTS.split(64)][:2])),
        )
    )
    assert by_functions.allocation.coefficients == by_inputs.allocation.coefficients
    assert by_functions.after.objective == by_inputs.after.objective


def test_with_an_entry_point_components_protection_and_criterion() -> None:
    def run(model: Any) -> torch.Tensor:
        latent = model.encoder(INPUTS)
        out: torch.Tensor = model.decoder(latent)
        return out

    result = secateur.prune(
        fixed(),
        run=run,
        components={"everything": ["encoder", "decoder"]},
        protect=["encoder.2"],
        target=secateur.Sparsity(0.4, tolerance=0.02),
        criterion=secateur.importance.Random(seed=1),
        strategy=secateur.Uniform(),
        calibration=run,
    )
    assert [c.name for c in result.graph.components] == ["everything"]
    assert [group.size for group in result.graph.groups] == [24, 24]
    assert abs(1 - result.after.parameters / result.before.parameters - 0.4) <= 0.02


def test_save_then_load(tmp_path: Path) -> None:
    result = secateur.prune(fixed(), INPUTS[:1])
    result.save(tmp_path / "pruned")
    loaded = secateur.load(tmp_path / "pruned", Autoencoder)
    assert torch.equal(loaded(INPUTS), result.model(INPUTS))


def test_printed_it_shows_before_and_after() -> None:
    text = str(secateur.prune(fixed(), INPUTS[:1], objective=lambda model: 1.5))
    for word in ("before", "after", "objective", "1.50", "encoder", "decoder", "total", "parameters", "MACs"):
        assert word in text


@pytest.mark.parametrize("target", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_target_outside_0_and_1_is_an_error(target: float) -> None:
    with pytest.raises(secateur.TargetError):
        secateur.prune(fixed(), INPUTS[:1], target=target)


def test_inputs_that_do_not_fit_keep_the_models_own_error_and_the_model() -> None:
    model = fixed()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(secateur.TraceError, match="mat1 and mat2 shapes cannot be multiplied"):
        secateur.prune(model, torch.zeros(1, 13))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_no_inputs_at_all_is_an_error() -> None:
    with pytest.raises(secateur.TraceError, match="neither given"):
        secateur.prune(fixed())


# --- objectives -------------------------------------------------------------------------------------------------------


def test_minimize_gives_the_metrics_own_value() -> None:
    assert evaluate(secateur.Minimize(lambda model: 0.25), nn.Identity()) == Estimate(0.25, 0.25, 0.25)


def test_an_objective_may_return_a_scalar_tensor() -> None:
    assert evaluate(lambda model: torch.tensor(2.0), nn.Identity()).value == 2.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the metric '<lambda>' must return a number for a model; it returned None"),
        ("high", "must return a number for a model; it returned 'high'"),
        (torch.zeros(2, 3), r"must return a number for a model; it returned a tensor of shape \(2, 3\)"),
        (np.zeros((2, 1)), r"must return a number for a model; it returned array\(\[\[0\.\], \[0\.\]\]\)"),
        (float("nan"), "must return a finite number for a model; it returned nan"),
    ],
)
def test_an_objective_without_a_finite_value_is_an_error(value: Any, message: str) -> None:
    with pytest.raises(secateur.SecateurError, match=message):
        evaluate(lambda model: value, nn.Identity())


def test_an_objective_that_fails_is_one_clear_error() -> None:
    def failing(model: nn.Module) -> float:
        raise KeyError("episode")

    with pytest.raises(secateur.SecateurError, match="the metric 'failing' failed: KeyError: 'episode'"):
        secateur.prune(fixed(), INPUTS[:1], objective=failing)


def test_a_search_is_not_lost_where_the_dense_model_alone_fails() -> None:
    model = fixed()

    def ratio(candidate: nn.Module) -> float:
        return 1 / error(candidate)  # infinite for the model itself

    with pytest.warns(secateur.SecateurWarning, match="of the dense model isn't reported: the metric 'ratio' failed"):
        result = secateur.prune(model, INPUTS[:1], objective=ratio, strategy=secateur.Random(draws=3))
    assert result.before.objective is None
    assert result.after.objective is not None
    assert str(result)


class Asked:
    """Gives one value for the dense model and another for all smaller ones; counts how often it is asked."""

    def __init__(self, dense: Any) -> None:
        self.dense, self.count = dense, 0

    def __call__(self, model: nn.Module) -> Any:
        self.count += 1
        if parameters(model) < parameters(fixed()):
            return 1.0
        if isinstance(self.dense, Exception):
            raise self.dense
        return self.dense


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize(
    ("dense", "reason"),
    [
        (OSError("no simulator"), "the metric 'Asked' failed: OSError: no simulator"),
        (float("nan"), "must return a finite number for a model; it returned nan"),
        (None, "must return a number for a model; it returned None"),
        (float("inf"), "must return a finite number for a model; it returned (-?)inf"),
    ],
)
def test_an_objective_that_fails_for_the_dense_model_is_found_at_once(dense: Any, reason: str, minimize: bool) -> None:
    scored = []

    def criterion(graph: Any, model: nn.Module) -> Any:
        scored.append(model)
        return secateur.importance.Magnitude()(graph, model)

    if dense == float("inf"):  # infinitely good is another case
        dense = dense if minimize else -dense
    asked = Asked(dense)
    objective = secateur.Minimize(asked) if minimize else asked
    with pytest.raises(secateur.ObjectiveError, match=f"fails for the dense model, so nothing is searched: .*{reason}"):
        secateur.prune(fixed(), INPUTS[:1], objective=objective, strategy=secateur.Random(draws=3), criterion=criterion)
    assert asked.count == 1
    assert scored == []


@pytest.mark.parametrize("strategy", [secateur.Uniform(), secateur.Random(draws=3)], ids=["uniform", "random"])
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_an_objective_that_is_infinitely_good_for_the_dense_model_is_searched_by(
    strategy: Any, infinity: float
) -> None:
    asked = Asked(infinity)
    objective = asked if infinity > 0 else secateur.Minimize(asked)
    with pytest.warns(secateur.SecateurWarning, match=f"the metric 'Asked' is {infinity} for it"):
        result = secateur.prune(fixed(), INPUTS[:1], objective=objective, strategy=strategy)
    assert result.before.objective is None
    assert result.after.objective == 1.0


def test_psnr_against_the_models_own_outputs_is_infinite_for_it_alone() -> None:
    with torch.no_grad():
        psnr = secateur.metrics.Psnr(INPUTS, fixed()(INPUTS))
    repeated = secateur.metrics.Repeats(lambda model, seed: psnr(model), seeds=2)
    found = []
    for objective in (psnr, repeated):
        with pytest.warns(secateur.SecateurWarning, match="of the dense model isn't reported: the metric .* is inf"):
            result = secateur.prune(fixed(), INPUTS[:1], objective=objective, strategy=secateur.Random(draws=3))
        found.append(result.after.objective)
    assert found[0] == found[1]
    assert found[0] is not None
    assert 0 < found[0] < 50


def test_the_result_is_measured_as_candidates_are() -> None:
    model, strategy = fixed(), secateur.Random(draws=3)
    random_state = torch.get_rng_state()
    result = secateur.prune(model, INPUTS[:1], objective=lambda m: torch.rand(()).item(), strategy=strategy)
    assert result.allocation.best is not None
    assert result.before.objective == result.after.objective == result.allocation.best.objective
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("strategy", "given"), [(secateur.BlackBox, "BlackBox"), ("uniform", "'uniform'"), (3, "3")], ids=str
)
def test_a_strategy_that_is_none(strategy: Any, given: str) -> None:
    with pytest.raises(secateur.SecateurError, match=rf"must be one such as Uniform\(\) or .*, not {given}$"):
        secateur.prune(fixed(), INPUTS[:1], strategy=strategy)


def test_public_names_are_there() -> None:
    assert all(hasattr(secateur, name) for name in secateur.__all__)
    assert callable(secateur.plan)
    assert callable(secateur.verify)


def test_a_sparsity_that_the_other_arguments_contradict() -> None:
    model, x = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3)), torch.ones(2, 5)
    with pytest.raises(secateur.TargetError, match="of='macs' contradicts the target"):
        secateur.prune(model, x, target=secateur.Sparsity(0.5), of="macs")
    with pytest.raises(secateur.TargetError, match=r"tolerance=0\.2 contradicts the target"):
        secateur.prune(model, x, target=secateur.Sparsity(0.5), tolerance=0.2)
    assert secateur.prune(model, x, target=secateur.Sparsity(0.5, tolerance=0.2), tolerance=0.2).plan.groups


# --- what stays -------------------------------------------------------------------------------------------------------


def test_a_sparsity_out_of_reach_names_the_parameter_axes_that_stay() -> None:
    with pytest.raises(secateur.InfeasibleError, match=r"the largest possible is 0\.\d+\. What stays: ") as caught:
        secateur.prune(fixed(), INPUTS[:1], protect=["encoder.0", "decoder.0"], target=0.9)
    assert "What stays: encoder.0.weight[0] (288 parameters): protected: encoder.0; decoder.2" in str(caught.value)
    assert "decoder.2.weight[1] (288 parameters): protected: decoder.0; " in str(caught.value)
    with pytest.raises(secateur.InfeasibleError, match=r"no channel group serves it.* What stays: ") as caught:
        secateur.prune(fixed(), INPUTS[:1], protect=[nn.Linear], target=0.1, of="macs")
    assert "encoder.0.weight[0] and 1 alike (480 parameters): protected: encoder.0" in str(caught.value)


def test_a_sparsity_between_two_that_can_be_met_names_only_these() -> None:
    with pytest.raises(secateur.InfeasibleError, match=r"the nearest that can be met are [\d.]+ and [\d.]+$"):
        secateur.prune(fixed(), INPUTS[:1], target=secateur.Sparsity(0.5, tolerance=1e-7))


def test_a_tolerance_that_lets_next_to_nothing_leave_is_warned_of() -> None:
    target = secateur.Sparsity(0.9, tolerance=0.8)
    with pytest.warns(
        secateur.SecateurWarning, match=r"only \d+\.\d% of the parameters leave where 90\.0% was"
    ) as caught:
        secateur.prune(fixed(), INPUTS[:1], protect=["encoder.0", "decoder.0"], target=target)
    assert "protected: decoder.0" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_warnings_of_the_objective_point_at_the_line_that_called() -> None:
    with pytest.warns(secateur.SecateurWarning, match="of the dense model isn't reported") as caught:
        secateur.prune(fixed(), INPUTS[:1], objective=Asked(float("inf")))
    assert caught[0].filename == __file__


# --- granularity ------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Four heads of six channels."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.embed, self.qkv, self.out = nn.Linear(6, 24), nn.Linear(24, 72), nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        b, n, _ = h.shape
        q, k, v = self.qkv(h).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        out: torch.Tensor = self.out(heads.transpose(1, 2).reshape(b, n, -1))
        return out


@pytest.mark.parametrize(
    ("granularity", "heads", "multiple"), [("width", 4, 12), ("heads", 2, 18), ({"*": "heads"}, 2, 18)], ids=str
)
def test_what_leaves_of_an_attention_is_the_users_choice(granularity: Any, heads: int, multiple: int) -> None:
    result = secateur.prune(
        Attention(), torch.ones(2, 5, 6), target=0.4, tolerance=0.1, protect="embed", granularity=granularity
    )
    small: Any = result.model
    assert small.heads == heads
    assert len(small.qkv.weight) % multiple == 0
    assert len(small.qkv.weight) < 72

"""The calibration argument, the matrix form of every module type, and the survey of a model's consumers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from secateur.calibration import InputMoments, as_calibration, collect_moments, evaluating, layouts, survey
from secateur.calibration.layouts import layout_of
from secateur.errors import CalibrationError
from secateur.graph.groups import Consumer

MODULES: list[tuple[Callable[[], nn.Module], tuple[int, ...]]] = [
    (lambda: nn.Linear(5, 3), (4, 5)),
    (lambda: nn.Linear(5, 3, bias=False), (2, 3, 5)),
    (lambda: nn.Linear(5, 3), (5,)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    (lambda: nn.Conv1d(4, 6, 3), (4, 9)),
    (lambda: nn.Conv1d(4, 6, 4, padding="same", dilation=3), (2, 4, 9)),
    (lambda: nn.Conv1d(4, 6, 3, padding="valid"), (2, 4, 9)),
    (lambda: nn.Conv1d(4, 6, 3, padding=2, padding_mode="circular"), (2, 4, 9)),
    (lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1), groups=2), (3, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), (3, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, (3, 5), padding=(2, 1), padding_mode="reflect"), (3, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"), (3, 4, 7, 8)),
    (lambda: nn.Conv2d(4, 6, 1), (4, 7, 8)),
    (lambda: nn.Conv3d(4, 2, (2, 3, 2), stride=2, padding=(0, 1, 1), groups=2), (2, 4, 5, 6, 7)),
    (lambda: nn.ConvTranspose1d(4, 6, 3, stride=3, padding=1, output_padding=2), (2, 4, 5)),
    (lambda: nn.ConvTranspose1d(4, 6, 2, padding=3), (2, 4, 9)),
    (lambda: nn.ConvTranspose1d(4, 6, 3, dilation=2), (4, 5)),
    (lambda: nn.ConvTranspose2d(4, 6, (3, 4), stride=2, padding=(1, 0), output_padding=(1, 0), groups=2), (2, 4, 5, 3)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=(1, 2), dilation=(2, 3), bias=False), (2, 4, 5, 3)),
    (lambda: nn.ConvTranspose3d(4, 6, 2, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 3, 2, 3)),
]
FORMS = pytest.mark.parametrize(("make", "shape"), MODULES, ids=[f"{i}-{m()}" for i, (m, _) in enumerate(MODULES)])


def rows_of(module: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor:
    layout = layout_of(module)
    assert layout is not None
    return torch.cat(list(layout.features(module, inputs, outputs)), dim=1)


@FORMS
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("block", [2**22, 100, 1])
def test_features_times_matrix_is_the_output(
    make: Callable[[], nn.Module], shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "BLOCK_ELEMENTS", block)
    module: Any = make().double()
    layout = layout_of(module)
    assert layout is not None
    inputs = torch.randn(shape, dtype=torch.float64)
    outputs = module(inputs)
    product = rows_of(module, inputs, outputs) @ layout.matrix(module, module.weight).mT
    bias = 0 if module.bias is None else module.bias
    expected = layout.rows(module, outputs)
    torch.testing.assert_close(product.movedim(0, 1).flatten(1) + bias, expected, rtol=0, atol=1e-12)


@FORMS
def test_matrix_and_weight_are_inverse(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    module: Any = make()
    layout = layout_of(module)
    assert layout is not None
    assert torch.equal(layout.weight(module, layout.matrix(module, module.weight)), module.weight)


@FORMS
def test_each_index_of_the_consumer_axis_owns_its_features(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """Zeroing one index of the weight zeroes exactly the matrix columns that the layout says it owns."""
    module: Any = make()
    layout = layout_of(module)
    assert layout is not None
    features = layout.features_of(module)
    assert len(features) == module.weight.shape[layout.axis]
    for index, owned in enumerate(features):
        weight = torch.zeros_like(module.weight)
        weight.select(layout.axis, index).fill_(1)
        touched = layout.matrix(module, weight).ne(0).any(dim=1).flatten()
        assert touched.nonzero().flatten().tolist() == sorted(owned.tolist())


def test_transposed_convolution_with_an_output_size() -> None:
    module = nn.ConvTranspose1d(2, 3, 3, stride=3).double()
    layout = layout_of(module)
    assert layout is not None
    inputs = torch.randn(2, 2, 4, dtype=torch.float64)
    outputs = module(inputs, output_size=[14])
    assert module.bias is not None
    product = rows_of(module, inputs, outputs)[0] @ layout.matrix(module, module.weight)[0].T + module.bias
    torch.testing.assert_close(product, layout.rows(module, outputs))


def test_a_forward_of_its_own_has_no_layout() -> None:
    class Masked(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    class Plain(nn.Linear):
        pass

    assert layout_of(Masked(2, 2)) is None
    assert layout_of(Plain(2, 2)) is layout_of(nn.Linear(2, 2))


# --- the calibration argument -------------------------------------------------------------------------------------


class Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.seen: list[Any] = []

    def forward(self, x: Tensor, scale: float = 1.0) -> Any:
        self.seen.append((x, scale, self.training, torch.is_grad_enabled()))
        return self.linear(x) * scale


def test_items_are_called_like_example_inputs() -> None:
    model, x = Recorder(), torch.ones(1, 2)
    as_calibration([x, (x, 2.0), {"x": x, "scale": 3.0}]).run(model)
    assert [scale for _, scale, *_ in model.seen] == [1.0, 2.0, 3.0]
    assert not any(grad for *_, grad in model.seen)


def test_one_shot_iterators_run_again() -> None:
    model = Recorder()
    calibration = as_calibration(torch.ones(1, 2) for _ in range(3))
    calibration.run(model)
    calibration.run(model)
    assert len(model.seen) == 6


def test_runs_of_a_shuffled_loader_see_the_same_items() -> None:
    loader = DataLoader(TensorDataset(torch.arange(20.0).reshape(10, 2)), batch_size=2, shuffle=True)
    models = Recorder(), Recorder()
    runs = as_calibration(loader).runs(2)
    for run, model in zip(runs, models, strict=True):
        run(model)
    first, second = (torch.cat([x for x, *_ in model.seen]) for model in models)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.ones(3, 2), r"single Tensor; give a list of inputs"),
        ({"x": torch.ones(1, 2)}, r"single dict; give a list of inputs"),
        (np.ones(3), r"single ndarray"),
        (7, r"must be an iterable of inputs or a function that takes the model, not int"),
        (None, r"not NoneType"),
    ],
)
def test_what_is_no_calibration(data: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        as_calibration(data)


def test_empty_data() -> None:
    with pytest.raises(CalibrationError, match="the calibration data is empty"):
        as_calibration([]).run(Recorder())


def test_a_failing_run_is_named_and_keeps_its_cause() -> None:
    with pytest.raises(CalibrationError, match="failed on the model: RuntimeError: mat1 and mat2") as caught:
        as_calibration([torch.ones(1, 3)]).run(Recorder())
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_evaluating_puts_modes_and_random_state_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    model[1].eval()
    before = torch.get_rng_state()

    def fail() -> None:
        with evaluating(model):
            assert not any(m.training for m in model.modules())
            torch.rand(3), np.random.rand()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [m.training for m in model.modules()] == [True, True, False, True]
    assert torch.equal(before, torch.get_rng_state())


# --- the survey ---------------------------------------------------------------------------------------------------


def surveyed(model: nn.Module, *weights: str, data: Any = None, axis: int = 1) -> Any:
    return survey(model, [Consumer(w, axis) for w in weights], as_calibration(data or [torch.ones(3, 4)]))


def names(readers: Iterable[Any]) -> list[str]:
    return [reader.parameter for reader in readers]


class Forked(nn.Module):
    """Two branches, one of two layers, that join again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.left2 = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.right, self.head = nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x).relu_()
        out = torch.empty(len(x), 8)
        out[:, :4] = self.left2(self.left(x))
        out[:, 4:].copy_(self.right(x))
        return self.head(out)


def test_stages_follow_the_data_through_branches_and_writes_in_place() -> None:
    stages = surveyed(Forked(), *(f"{n}.weight" for n in ("stem", "left", "left2", "right", "head"))).stages()
    assert [names(stage) for stage in stages] == [
        ["stem.weight"],
        ["left.weight", "right.weight"],
        ["left2.weight"],
        ["head.weight"],
    ]


def test_stages_of_a_loop_follow_the_order_given() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.b(self.a(x))
            return x

    assert [names(s) for s in surveyed(Loop(), "b.weight", "a.weight").stages()] == [["b.weight"], ["a.weight"]]


def test_a_module_the_run_never_reaches() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "idle": nn.Linear(4, 4)})
    with pytest.raises(CalibrationError, match="calibration never reaches 'idle', which consumes pruned channels"):
        surveyed(model, "used.weight", "idle.weight", data=lambda m: m["used"](torch.ones(1, 4)))


def functional_only(model: Any) -> None:
    F.linear(torch.ones(1, 4), model.a.weight)


def inside_and_outside(model: Any) -> None:
    F.linear(model.a(torch.ones(1, 4)), model.a.weight.T)


def bias_outside(model: Any) -> None:
    model.a(torch.ones(1, 4)) + model.a.bias


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (functional_only, "used in functional form: 'a' itself is never called"),
        (inside_and_outside, "its weight or bias is also used outside 'a'"),
        (bias_outside, "its weight or bias is also used outside 'a'"),
    ],
)
def test_functional_uses_are_skipped(run: Callable[[Any], None], reason: str) -> None:
    (skipped,) = surveyed(nn.ModuleDict({"a": nn.Linear(4, 4)}), "a.weight", data=run).skipped
    assert skipped.reason == reason
    assert str(skipped) == f"a.weight[1]: {reason}"


def test_tied_bare_foreign_and_turned_weights_are_skipped() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.matrix = nn.Parameter(torch.ones(4, 4))
            self.norm = nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Any:
            return self.norm(self.c(self.b(self.a(x))) @ self.matrix)

    model = Odd()
    consumers = [Consumer(*c) for c in (("a.weight", 1), ("matrix", 0), ("norm.weight", 0), ("c.weight", 0))]
    result = survey(model, consumers, as_calibration([torch.ones(1, 4)]))
    assert result.readers == ()
    assert [s.reason for s in result.skipped] == [
        "tied: shares its tensor with b.weight",
        "not the weight of a Linear, Conv or ConvTranspose module, but a parameter of Odd",
        "not the weight of a Linear, Conv or ConvTranspose module, but a parameter of LayerNorm",
        "contracted over axis 0, not over the input axis of its module",
    ]


def test_multi_head_attention_uses_its_output_layer_in_functional_form() -> None:
    model = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    result = surveyed(
        model, "self_attn.out_proj.weight", "linear1.weight", "linear2.weight", data=[torch.ones(1, 3, 4)]
    )
    assert "self_attn.out_proj.weight" in names(result.skipped)


def test_one_module_under_two_names_is_not_tied() -> None:
    shared = nn.Linear(4, 4)
    assert names(surveyed(nn.Sequential(shared, nn.ReLU(), shared), "0.weight").readers) == ["0.weight"]


def test_survey_leaves_no_hook_behind() -> None:
    model = Forked()
    with pytest.raises(CalibrationError):
        surveyed(model, "stem.weight", "left.weight", data=[torch.ones(3, 5)])
    surveyed(model, "stem.weight", "left.weight")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# --- moments ------------------------------------------------------------------------------------------------------


def test_moments_are_sums_over_all_calls() -> None:
    model = Forked().double()
    result = surveyed(model.float(), "left.weight", "right.weight")
    data = [torch.randn(5, 4), torch.randn(2, 4)]
    moments = collect_moments(model, result.readers, as_calibration(data))["left.weight"]
    hidden = torch.cat([model.stem(x).relu() for x in data]).double()
    assert moments.rows == 7
    torch.testing.assert_close(moments.gram[0], hidden.T @ hidden)
    torch.testing.assert_close(moments.total[0], hidden.sum(0))
    centred = hidden - hidden.mean(0)
    torch.testing.assert_close(moments.solved_gram(centred=True)[0], centred.T @ centred)


def test_a_feature_that_never_varies_has_no_variance() -> None:
    rows = torch.randn(1, 300, 3, dtype=torch.float64) * torch.tensor([1.0, 0.0, 1e-4]) + torch.tensor([0.0, 7.7, 30.0])
    moments = InputMoments(rows)
    for block in rows.split(70, dim=1):
        moments.add(block)
    gram = moments.solved_gram(centred=True)[0]
    assert gram[1].abs().max() == gram[:, 1].abs().max() == 0
    centred = (rows - rows.mean(dim=1))[0]
    torch.testing.assert_close(gram[[0, 2]][:, [0, 2]], (centred.T @ centred)[[0, 2]][:, [0, 2]], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(bad: float) -> None:
    model = Forked()
    result = surveyed(model, "left.weight")
    with pytest.raises(CalibrationError, match="'left' reads or makes values that aren't finite"):
        collect_moments(model, result.readers, as_calibration([torch.ones(1, 4), torch.full((1, 4), bad)]))

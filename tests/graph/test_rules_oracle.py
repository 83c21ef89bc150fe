"""Every operator rule against the oracle: the cases are in ``rule_cases``, one table per family of rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from secateur.graph.labels import Factor, Factors, Facts
from secateur.graph.rules import RULES, OpCall
from secateur.graph.rules.base import WHOLE, Rule
from secateur.graph.rules.unfollowed import UNFOLLOWED
from tests.graph.oracle import Axis, Case, observe
from tests.graph.oracle_checks import check_all, check_macs
from tests.graph.rule_cases import (
    contraction,
    creation,
    diagonals,
    fourier,
    gathering,
    indexing,
    linear_algebra,
    losses,
    pointwise,
    quantization,
    recurrent,
    reduction,
    shape,
    spatial,
    unfollowed,
)
from tests.graph.rule_cases.inputs import ROWS, X, aten, positive

FAMILIES = (
    pointwise,
    contraction,
    shape,
    spatial,
    reduction,
    indexing,
    gathering,
    diagonals,
    fourier,
    linear_algebra,
    losses,
    recurrent,
    quantization,
    creation,
    unfollowed,
)
PRODUCTS = [*contraction.CASES, *linear_algebra.PRODUCTS]
CASES: list[Case] = [*(case for family in FAMILIES for case in family.CASES), *linear_algebra.PRODUCTS]

ALIASES = {
    "cudnn_convolution": ("convolution", "needs cuDNN, which is off while tracing"),
    "mkldnn_convolution": ("convolution", "is off while tracing"),
    "cudnn_batch_norm": ("native_batch_norm", "needs cuDNN, which is off while tracing"),
    "miopen_batch_norm": ("native_batch_norm", "needs a ROCm build"),
    "cudnn_affine_grid_generator": ("affine_grid_generator", "needs cuDNN, which is off while tracing"),
    "_cudnn_ctc_loss": ("_ctc_loss", "needs cuDNN, which is off while tracing"),
    "_fused_dropout": ("native_dropout", "needs a GPU"),
    "_masked_scale": ("mul", "needs a GPU"),
    "_fw_primal": ("alias", "needs forward-mode differentiation"),
    "transformers.grouped_mm_fallback": ("_grouped_mm", "is defined by the package transformers"),
    "_scaled_dot_product_flash_attention": ("_scaled_dot_product_flash_attention_for_cpu", "needs a GPU"),
    "_scaled_dot_product_efficient_attention": ("_scaled_dot_product_flash_attention_for_cpu", "needs a GPU"),
    "_scaled_dot_product_cudnn_attention": ("_scaled_dot_product_flash_attention_for_cpu", "needs a GPU"),
    "_scaled_dot_product_fused_attention_overrideable": (
        "_scaled_dot_product_flash_attention_for_cpu",
        "needs an accelerator from outside torch",
    ),
}
"""Operators that can't run here: the tested operator whose rule they share, and why."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_agrees_with_operator(case: Case) -> None:
    check_all(observe(case))


@pytest.mark.parametrize("case", PRODUCTS, ids=str)
def test_macs_are_torchs_own(case: Case) -> None:
    check_macs(observe(case))


ROLES = [
    (Case("addmm", F.linear, [(2, 3), (4, 3), (4,)], weights=(1, 2)), [(1, 0), (2, 0)], [(1, 1)]),
    (Case("mm", lambda x, w: F.linear(x, w.T), [(2, 3), (3, 4)], "transposed", weights=(1,)), [(1, 1)], [(1, 0)]),
    (
        Case("convolution", F.conv1d, [(2, 4, 6), (3, 4, 2), (3,)], weights=(1, 2)),
        [(1, 0), (2, 0)],
        [(1, 1)],
    ),
    (
        Case("convolution", F.conv_transpose1d, [(2, 4, 6), (4, 3, 2), (3,)], "transposed", weights=(1, 2)),
        [(1, 1), (2, 0)],
        [(1, 0)],
    ),
    (
        Case("convolution", lambda x, w: F.conv1d(x, w, groups=2), [(2, 4, 6), (6, 2, 2)], "two groups", weights=(1,)),
        [(1, 0)],
        [(1, 1)],
    ),
    (
        Case(
            "convolution",
            lambda x, w: F.conv1d(x, w, groups=4),
            [(2, 4, 6), (4, 1, 2)],
            "depthwise",
            weights=(1,),
            resizable=True,
        ),
        [(1, 0)],
        [],
    ),
    (Case("embedding", lambda w: F.embedding(ROWS, w), [X], weights=(0,)), [(0, 1)], []),
    (Case("mul", torch.mul, [X, (4,)], weights=(1,)), [(1, 0)], []),
    (Case("mul", torch.mul, [X, (4,)], "weights alone", weights=(0, 1)), [], []),
    (Case("cat", lambda x, w: torch.cat([w, x]), [X, (2, 4)], weights=(1,)), [(1, 0), (1, 1)], []),
    (Case("native_layer_norm", lambda x, w: F.layer_norm(x, (4,), w), [X, (4,)], weights=(1,)), [(1, 0)], []),
    (
        Case("native_batch_norm", lambda x, m, v: F.batch_norm(x, m, v), [X, (4,), positive(4)], weights=(1, 2)),
        [(1, 0), (2, 0)],
        [],
    ),
    (Case("sum", lambda w: w.sum(1), [X], weights=(0,)), [], [(0, 1)]),
]
"""Case, the axes that produce channels, the axes that consume them."""


@pytest.mark.parametrize(("case", "producers", "consumers"), ROLES, ids=[str(case) for case, _, _ in ROLES])
def test_roles_of_parameters(case: Case, producers: list[Axis], consumers: list[Axis]) -> None:
    seen = observe(case)
    assert seen.axes_with(seen.recorder.trace.produced) == producers
    assert seen.axes_with(seen.recorder.trace.consumed) == consumers


# --- the oracle itself, and the table ---------------------------------------------------------------------------------


def _labels_nothing(call: OpCall) -> list[Factors]:
    return [() for _ in call.outputs]


def _pins_everything(call: OpCall) -> list[Factors]:
    for tensor in call.tensors():
        call.fix_dims(call.labels_of(tensor), range(tensor.dim()), "anyway")
    return _labels_nothing(call)


def _passes_unmixed(call: OpCall) -> list[Factors]:
    return [call.factors("self") for _ in call.outputs]


def _mixes_everything(call: OpCall) -> list[Factors]:
    call.mix(call.factors("self"), "anyway")
    return _passes_unmixed(call)


def _ties_everything(call: OpCall) -> list[Factors]:
    for factor in call.factors("self"):
        call.facts.equate(factor.labels, factor.labels[:1], "anyway")
    return _passes_unmixed(call)


def _moves_by_one(call: OpCall) -> list[Factors]:
    return [tuple(Factor(f.dims, np.roll(f.labels, 1)) for f in call.factors("self"))]


def _product_without_masks(call: OpCall) -> list[Factors]:
    labels = call.contract("mk,kn->mn", call.term(call["self"]), call.term(call["mat2"]))
    call.masked.clear()
    return [labels]


def _product_without_equality(call: OpCall) -> list[Factors]:
    left, right = call.factors("self"), call.factors("mat2")
    return [(*(f for f in left if f.dims == (0,)), *(f for f in right if f.dims == (1,)))]


WRONG = [
    (Case("relu", torch.relu, [X]), _labels_nothing, "moves more than its label claims"),
    (Case("relu", torch.relu, [X]), _pins_everything, "pinned"),
    (Case("relu", torch.relu, [X]), _mixes_everything, "mixed"),
    (Case("relu", torch.relu, [X], mixed=[(0, 0), (0, 1)]), _mixes_everything, "removal is exact"),
    (Case("relu", torch.relu, [X]), _ties_everything, "no way to remove"),
    (Case("relu", torch.relu, [X]), _moves_by_one, "moves more than its label claims"),
    (Case("cumsum", lambda x: x.cumsum(1), [X]), _passes_unmixed, "moves more than its label claims"),
    (Case("mm", torch.mm, [(2, 3), (3, 4)]), _product_without_masks, "moves more than its label claims"),
    (Case("mm", torch.mm, [(2, 3), (3, 4)]), _product_without_equality, "moves more than its label claims"),
    (Case("relu", lambda x: x.relu() * 0, [X]), RULES["aten.relu"], "nothing moves"),
]


@pytest.mark.parametrize(("case", "wrong", "complaint"), WRONG)
def test_oracle_catches_a_wrong_rule(case: Case, wrong: Rule, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, f"aten.{case.ops}", wrong)
    seen = observe(case)
    with pytest.raises(AssertionError, match=complaint):
        check_all(seen)


def test_rules_are_for_operators_that_are_dispatched() -> None:
    """An operator that torch composes of others doesn't reach the tracer, but for those followed whole."""
    for name in RULES.keys() - WHOLE:
        if name.startswith("aten."):
            overloads = _overloads(name.removeprefix("aten."))
            assert not all(_composed(overload) for overload in overloads), name


def _overloads(name: str) -> list[Any]:
    """All variants of an operator but those that write to given outputs."""
    packet = getattr(aten, name)
    return [getattr(packet, overload) for overload in packet.overloads() if "out" not in overload]


def _composed(overload: Any) -> bool:
    found: bool = torch._C._dispatch_has_kernel_for_dispatch_key(overload.name(), "CompositeImplicitAutograd")
    return found


def test_every_rule_has_a_case() -> None:
    tested = {_key(op) for case in CASES for op in case.ops.split()}
    aliased = {_key(op) for op in ALIASES}
    # An assertion of all channels claims nothing: it holds for those that stay.
    assert set(RULES) - tested - aliased - {_key(op) for ops in UNFOLLOWED.values() for op in ops} == {
        "aten._is_all_true"
    }
    assert aliased <= set(RULES)
    for alias, (tested_op, _) in ALIASES.items():
        assert RULES[_key(alias)] == RULES[_key(tested_op)]


def _key(name: str) -> str:
    return name if "." in name else f"aten.{name}"


@pytest.mark.parametrize("reason", UNFOLLOWED)
def test_what_is_not_followed_pins_with_its_reason(reason: str) -> None:
    """All operators of a reason share one rule; what it gives is said of one of them."""
    name, *others = map(_key, UNFOLLOWED[reason])
    labels, facts = Factor((0,), np.arange(3)), Facts()
    tensor = torch.zeros(3)
    told = {"self": tensor}
    call = OpCall(name, told, (tensor,), lambda t: (labels,), _never, _never, facts, "here", given=(tensor,))
    assert list(RULES[name](call)) == [()]
    (note,) = facts.fixed
    assert note.reason == f"{reason} ({name} in here)"
    assert note.labels.tolist() == [0, 1, 2]
    for other in others:
        assert RULES[other].keywords == {"reason": reason}  # type: ignore[attr-defined]


def _never(tensor: torch.Tensor) -> bool:
    return False

"""Element-wise operators, random ones among them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from secateur.graph.rules.base import names
from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import X, aten, bools, integers, normal, positive, unit

UNARY = [
    *(
        Case(name, getattr(aten, name), [X])
        for name in names(
            "abs alias angle asinh atan ceil celu clone cos cosh deg2rad detach elu erf erfc exp exp2 expm1 floor frac "
            "gelu hardshrink hardsigmoid hardswish hardtanh i0 leaky_relu lift lift_fresh log_sigmoid_forward mish "
            "nan_to_num neg rad2deg relu round sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink "
            "special_erfcx special_i0e tan tanh trunc"
        )
    ),
    *(
        Case(name, getattr(aten, name), [positive(*X)])
        for name in names("acosh digamma lgamma log log10 log1p log2 reciprocal rsqrt sqrt special_entr")
    ),
    *(Case(name, getattr(aten, name), [unit(*X)]) for name in ("acos", "asin", "atanh", "erfinv", "logit")),
    Case("isinf", torch.isinf, [torch.full(X, torch.inf)]),
    Case("isnan", torch.isnan, [torch.full(X, torch.nan)]),
    Case("isposinf", torch.isposinf, [torch.full(X, torch.inf)]),
    Case("isneginf", torch.isneginf, [torch.full(X, -torch.inf)]),
    Case("bitwise_not", torch.bitwise_not, [integers(*X)]),
    Case("logical_not", torch.logical_not, [bools(*X)]),
    Case("threshold", lambda x: F.threshold(x, 0.1, 20.0), [X]),
    Case("_conj", aten._conj, [normal(*X).to(torch.complex128)]),
    Case("view_as_complex", torch.view_as_complex, [(3, 4, 2)], pinned={(0, 2): ALL}),
    Case("view_as_complex_copy", torch.view_as_complex_copy, [(3, 4, 2)], pinned={(0, 2): ALL}),
    Case("view_as_real", torch.view_as_real, [normal(*X).to(torch.complex128)]),
    Case("view_as_real_copy", torch.view_as_real_copy, [normal(*X).to(torch.complex128)]),
    Case("_to_copy", lambda x: x.to(torch.float32), [X]),
    Case("relu", lambda x: (x + 0).relu_(), [X], "in place"),
    Case("abs", lambda x: torch.abs(x, out=torch.empty_like(x)), [X], "out="),
    *(Case(f"{name}_like", getattr(torch, f"{name}_like"), [X], deaf=[0]) for name in ("zeros", "ones")),
    Case("empty_like zero", lambda x: torch.empty_like(x).zero_(), [X], deaf=[0]),
    Case("zero", torch.ops.aten.zero, [X], deaf=[0]),
    Case("full_like", lambda x: torch.full_like(x, 2), [X], deaf=[0]),
    Case("fill", lambda x: torch.fill(x, 2), [X], "scalar", deaf=[0]),
    Case("fill", torch.fill, [X, ()], "tensor", deaf=[0]),
]

RANDOM = [
    *(Case(f"{name}_like", getattr(torch, f"{name}_like"), [X], deaf=[0], random=True) for name in ("rand", "randn")),
    Case("randint_like", lambda x: torch.randint_like(x, 9), [X], deaf=[0], random=True),
    *(
        Case(name, lambda x, name=name: getattr(aten, name)(x), [X], deaf=[0], random=True)
        for name in ("cauchy", "exponential", "uniform", "log_normal")
    ),
    Case("geometric", lambda x: aten.geometric(x, 0.3), [X], deaf=[0], random=True),
    Case("normal", lambda x: x.normal_(), [X], "in place", deaf=[0], random=True),
    Case("random", lambda x: x.random_(), [X], "in place", deaf=[0], random=True),
    Case("normal", lambda x: torch.normal(x, 1.0), [X], "mean", random=True),
    Case("normal", torch.normal, [X, unit(*X)], "mean and deviation", random=True),
    Case("bernoulli", torch.bernoulli, [unit(*X)], random=True),
    Case("bernoulli", lambda x, p: x.bernoulli_(p), [X, unit(*X)], "in place", deaf=[0], random=True),
    Case("bernoulli", lambda x: F.dropout(x, 0.5, training=True), [X], "dropout", random=True),
    Case("native_dropout", lambda x: torch.native_dropout(x, 0.5, True), [X], random=True),
    Case("rrelu_with_noise", lambda x: F.rrelu(-x, 0.1, 0.9, training=True), [positive(*X)], random=True),
]

BINARY = [
    *(
        case
        for name in names(
            "add atan2 copysign div fmax fmin hypot logaddexp logaddexp2 maximum minimum mul rsub sub remainder fmod "
            "gt ge lt le floor_divide"
        )
        for case in (
            Case(name, getattr(aten, name), [X, X]),
            Case(name, getattr(aten, name), [(2, 3, 4), (3, 1)], "broadcast"),
            Case(name, getattr(aten, name), [(4,), (3, 4)], "broadcast the first"),
        )
    ),
    *(
        Case(name, getattr(aten, name), [integers(*X), integers(*X)])
        for name in names("eq ne bitwise_and bitwise_or bitwise_xor")
    ),
    *(Case(name, getattr(aten, name), [bools(*X), bools(*X)]) for name in names("logical_and logical_or logical_xor")),
    *(Case(name, getattr(aten, name), [positive(*X), positive(*X)]) for name in names("pow xlogy special_xlog1py")),
    Case("heaviside", torch.heaviside, [integers(*X).double() - 2, X]),
    Case("nextafter", torch.nextafter, [X, X]),
    Case("add", lambda x: x + 2, [X], "a number"),
    Case("add", lambda x, s: x + s, [X, ()], "a tensor without dimensions"),
    Case("add", lambda x, y: (x * 1).add_(y), [X, (4,)], "in place"),
    Case("add", lambda x, y: torch.add(x, y, out=torch.empty_like(x)), [X, (4,)], "out="),
    Case("add", torch.add, [X, (1, 4)], "length one"),
    Case("div", lambda x, y: torch.div(x, y, rounding_mode="floor"), [X, (4,)], "rounding"),
    Case("pow", lambda x: torch.pow(2.0, x), [X], "scalar base"),
    Case("pow", lambda x: x**2, [X], "scalar exponent"),
    Case("eq", lambda x: x == 1, [integers(*X)], "a number"),
    Case("rsub", lambda x: 1 - x, [X], "a number"),
    Case("clamp", lambda x: x.clamp(-1, 1), [X], "numbers"),
    Case("clamp", torch.clamp, [X, (4,), unit(3, 1)], "tensors"),
    Case("clamp_min", lambda x: x.clamp_min(0), [X], "a number"),
    Case("clamp_min", torch.clamp_min, [X, (4,)], "a tensor"),
    Case("clamp_max", torch.clamp_max, [X, (3, 1)]),
    Case("lerp", lambda x, y: torch.lerp(x, y, 0.3), [X, (4,)], "a number"),
    Case("lerp", torch.lerp, [X, (4,), (3, 1)], "tensors"),
    Case("addcmul", torch.addcmul, [X, (4,), (3, 1)]),
    Case("addcdiv", torch.addcdiv, [X, (4,), positive(3, 1)]),
    Case("copy", lambda x, y: x.copy_(y), [X, (4,)], "in place", deaf=[0]),
    Case("copy", aten.copy, [X, X], deaf=[0]),
    Case("masked_fill", lambda x, mask: x.masked_fill(mask, 0.5), [X, bools(*X)], "a number"),
    Case("masked_fill", torch.masked_fill, [X, bools(*X), ()], "a tensor"),
    Case("where", torch.where, [bools(*X), X, (4,)]),
    Case("where", lambda c, x: torch.where(c, x, 0.5), [bools(*X), X], "a number"),
    Case("where", lambda c, x: torch.where(c, 2.0, x), [bools(*X), X], "a number first"),
    Case("_prelu_kernel", F.prelu, [(2, 3, 4), (3,)]),
    Case("expand", lambda x: x.expand(2, len(x), 4), [(3, 1)], "a new dimension and a longer one"),
    Case("expand", lambda x: x.expand(-1, 5, -1), [(3, 1, 4)]),
    Case("expand_copy", lambda x: aten.expand_copy(x, (-1, 5, -1)), [(3, 1, 4)]),
    Case("complex", torch.complex, [X, (4,)]),
    Case("polar", torch.polar, [positive(*X), (4,)]),
]

CASES = [*UNARY, *RANDOM, *BINARY]

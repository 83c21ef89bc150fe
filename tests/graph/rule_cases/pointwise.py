"""Element-wise operators, random ones among them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from secateur.graph.rules.base import names
from tests.graph.oracle import ALL, Case
from tests.graph.rule_cases.inputs import X, aten, bools, integers, normal, positive, unit

COMPLEX = torch.complex(normal(*X), normal(*X, seed=7))
SHORT = (torch.float16, torch.bfloat16, torch.float32)

UNARY = [
    *(
        Case(name, getattr(aten, name), [X])
        for name in names(
            "_neg_view _neg_view_copy abs alias alias_copy angle asinh atan ceil celu clone cos cosh "
            "deg2rad detach detach_copy elu erf erfc exp exp2 expm1 floor frac frexp gelu hardshrink hardsigmoid "
            "hardswish hardtanh i0 leaky_relu lift lift_fresh lift_fresh_copy log_sigmoid_forward mish nan_to_num neg "
            "rad2deg relu round sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink "
            "special_airy_ai special_bessel_j0 special_bessel_j1 special_erfcx special_i0e special_i1 special_i1e "
            "special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1 special_spherical_bessel_j0 tan "
            "tanh trunc"
        )
    ),
    *(
        Case(name, getattr(aten, name), [positive(*X)])
        for name in names(
            "acosh digamma lgamma log log10 log1p log2 reciprocal rsqrt special_bessel_y0 "
            "special_bessel_y1 special_entr special_modified_bessel_k0 special_modified_bessel_k1 "
            "special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 sqrt"
        )
    ),
    *(
        Case(name, getattr(aten, name), [unit(*X)])
        for name in ("acos", "asin", "atanh", "erfinv", "logit", "special_ndtri")
    ),
    Case("polygamma", lambda x: torch.polygamma(1, x), [positive(*X)]),
    Case("mvlgamma", lambda x: torch.mvlgamma(x, 2), [positive(*X)]),
    Case("isinf", torch.isinf, [torch.full(X, torch.inf)]),
    Case("isnan", torch.isnan, [torch.full(X, torch.nan)]),
    Case("isposinf", torch.isposinf, [torch.full(X, torch.inf)]),
    Case("isneginf", torch.isneginf, [torch.full(X, -torch.inf)]),
    Case("bitwise_not", torch.bitwise_not, [integers(*X)]),
    Case("logical_not", torch.logical_not, [bools(*X)]),
    Case("threshold", lambda x: F.threshold(x, 0.1, 20.0), [X]),
    *(Case(name, getattr(aten, name), [COMPLEX]) for name in ("_conj", "_conj_copy", "_conj_physical")),
    Case("conj_physical_", lambda x: (x * 1).conj_physical_(), [COMPLEX], "in place"),
    Case("abs", torch.abs, [COMPLEX], "complex"),
    Case("angle", torch.angle, [COMPLEX], "complex"),
    Case("view_as_real select", lambda x: x.real, [COMPLEX], "real part"),
    Case("_neg_view", lambda x: x.conj().imag, [COMPLEX], "imaginary part of a conjugate"),
    Case("view_as_complex", torch.view_as_complex, [(3, 4, 2)], pinned={(0, 2): ALL}),
    Case("view_as_complex_copy", torch.view_as_complex_copy, [(3, 4, 2)], pinned={(0, 2): ALL}),
    Case("view_as_real", torch.view_as_real, [COMPLEX]),
    Case("view_as_real_copy", torch.view_as_real_copy, [COMPLEX]),
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
    *(
        Case(name, getattr(aten, name), [positive(*X)], random=True, rejects=True)
        for name in ("poisson", "_standard_gamma")
    ),
    Case("binomial", lambda n, p: aten.binomial(n, p), [positive(*X).round() * 5, unit(*X)], random=True, rejects=True),
    Case("normal_functional", aten.normal_functional, [X], deaf=[0], random=True),
    Case(
        "rrelu_with_noise_functional",
        lambda x: aten.rrelu_with_noise_functional(-x, torch.ones_like(x), training=True)[0],
        [positive(*X)],
        random=True,
    ),
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
        for name in names("eq ne bitwise_and bitwise_or bitwise_xor gcd lcm")
    ),
    *(
        Case(name, getattr(aten, name), [integers(*X), integers(*X)])
        for name in names("__lshift__ __rshift__ bitwise_left_shift bitwise_right_shift ldexp")
    ),
    *(
        Case(name, lambda x, y, name=name: getattr(aten, name)(x.clone(), y), [integers(*X), integers(*X)])
        for name in ("__ilshift__", "__irshift__")
    ),
    *(Case(name, getattr(aten, name), [positive(*X), positive(*X)]) for name in ("igamma", "igammac", "special_zeta")),
    *(
        Case(f"special_{name}", getattr(aten, f"special_{name}"), [unit(*X), integers(4) + 1])
        for name in names(
            "chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v chebyshev_polynomial_w "
            "hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p "
            "shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u shifted_chebyshev_polynomial_v "
            "shifted_chebyshev_polynomial_w"
        )
    ),
    Case("_add_relu", aten._add_relu, [X, (4,)]),
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

GRADIENTS = [
    *(
        Case(f"{name}_backward", getattr(aten, f"{name}_backward"), [X, X])
        for name in ("hardsigmoid", "hardswish", "sigmoid", "tanh")
    ),
    Case("gelu_backward", aten.gelu_backward, [X, X]),
    Case("logit_backward", aten.logit_backward, [X, unit(*X)]),
    Case("threshold_backward", lambda g, x: aten.threshold_backward(g, x, 0), [X, X]),
    Case("elu_backward", lambda g, x: aten.elu_backward(g, 1, 1, 1, False, x), [X, X]),
    Case("leaky_relu_backward", lambda g, x: aten.leaky_relu_backward(g, x, 0.1, False), [X, X]),
    Case("hardtanh_backward", lambda g, x: aten.hardtanh_backward(g, x, -1, 1), [X, X]),
    Case("softplus_backward", lambda g, x: aten.softplus_backward(g, x, 1, 20), [X, X]),
    *(
        Case(f"{name}_backward", lambda g, x, name=name: getattr(aten, f"{name}_backward")(g, x, 0.5), [X, X])
        for name in ("hardshrink", "softshrink")
    ),
    Case("native_dropout_backward", lambda g, m: aten.native_dropout_backward(g, m, 2.0), [X, bools(*X)]),
    Case(
        "rrelu_with_noise_backward",
        lambda g, x, n: aten.rrelu_with_noise_backward(g, x, n, 0.1, 0.3, True, False),
        [X, X, X],
        deaf=[1],
    ),
    Case("_prelu_kernel_backward", lambda g, x, w: aten._prelu_kernel_backward(g, x, w)[0], [X, X, (3, 1)]),
]

PRECISIONS = [
    *(
        Case(name, run, [t.to(dtype) for t in inputs], str(dtype).removeprefix("torch."))
        for dtype in SHORT
        for name, run, inputs in (
            ("silu", F.silu, [normal(*X)]),
            ("mul", torch.mul, [normal(*X), normal(4)]),
            ("mm", torch.mm, [normal(2, 3), normal(3, 4)]),
        )
    ),
    Case("mul", torch.mul, [COMPLEX, COMPLEX[0]], "complex"),
    Case("mm", lambda x, y: x @ y.mH, [COMPLEX, COMPLEX[:2]], "complex"),
]

CASES = [*UNARY, *RANDOM, *BINARY, *GRADIENTS, *PRECISIONS]

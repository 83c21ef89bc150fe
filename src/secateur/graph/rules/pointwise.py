"""Element-wise operators: aligned labels leave together, and nothing moves."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.labels import Factor, Factors
from secateur.graph.rules.base import OpCall, names, rule

UNARY = names("""
_conj _conj_copy _conj_physical _fused_dropout _fw_primal _masked_scale _neg_view _neg_view_copy
_standard_gamma _to_copy abs acos acosh alias alias_copy angle asin asinh atan atanh bernoulli bitwise_not cauchy ceil
celu clone conj_physical_ cos cosh deg2rad detach detach_copy digamma elu empty_like erf erfc erfinv exp exp2 expm1
exponential fill floor frac frexp full_like gelu geometric hardshrink hardsigmoid hardswish hardtanh i0 isinf isnan
isneginf isposinf leaky_relu lgamma lift lift_fresh lift_fresh_copy log log10 log1p log2 log_normal
log_sigmoid_forward logical_not logit mish mvlgamma nan_to_num native_dropout neg normal normal_functional ones_like
poisson polygamma rad2deg rand_like randint_like randn_like random reciprocal relu round rrelu_with_noise
rrelu_with_noise_functional rsqrt sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink special_airy_ai
special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_entr special_erfcx special_i0e
special_i1 special_i1e special_log_ndtr special_modified_bessel_i0 special_modified_bessel_i1
special_modified_bessel_k0 special_modified_bessel_k1 special_ndtri special_scaled_modified_bessel_k0
special_scaled_modified_bessel_k1 special_spherical_bessel_j0 sqrt tan tanh threshold trunc uniform zero zeros_like
""")

BROADCASTING = names("""
__ilshift__ __irshift__ __lshift__ __rshift__ _add_relu _prelu_kernel add addcdiv addcmul atan2 binomial bitwise_and
bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor clamp clamp_max clamp_min complex copy copysign div eq
floor_divide fmax fmin fmod gcd ge gt heaviside hypot igamma igammac lcm ldexp le lerp logaddexp logaddexp2
logical_and logical_or logical_xor lt masked_fill maximum minimum mul ne nextafter polar pow remainder rsub
special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
special_chebyshev_polynomial_w special_hermite_polynomial_h special_hermite_polynomial_he special_laguerre_polynomial_l
special_legendre_polynomial_p special_shifted_chebyshev_polynomial_t special_shifted_chebyshev_polynomial_u
special_shifted_chebyshev_polynomial_v special_shifted_chebyshev_polynomial_w special_xlog1py special_zeta sub where
xlogy
""")

GRADIENTS = names("""
_prelu_kernel_backward elu_backward gelu_backward hardshrink_backward hardsigmoid_backward hardswish_backward
hardtanh_backward leaky_relu_backward logit_backward native_dropout_backward rrelu_with_noise_backward
sigmoid_backward softplus_backward softshrink_backward tanh_backward threshold_backward
""")
"""Of activations, for models that take gradients inside ``forward``: forces of an energy, penalties."""


@rule(*UNARY, *BROADCASTING, *GRADIENTS)
def pointwise(call: OpCall) -> Sequence[Factors]:
    """Every output has the labels of the arguments, broadcast together."""
    labels = call.aligned(call.tensors(), call.out.dim())
    return [labels if out.shape == call.out.shape else () for out in call.outputs]


@rule("view_as_complex", "view_as_complex_copy")
def view_as_complex(call: OpCall) -> Sequence[Factors]:
    """The last dimension, of a real and an imaginary part, disappears."""
    last = call["self"].dim() - 1
    return [call.fix_dims(call.factors("self"), [last], "real and imaginary part")]


@rule("view_as_real", "view_as_real_copy")
def view_as_real(call: OpCall) -> Sequence[Factors]:
    """A last dimension of a real and an imaginary part appears."""
    return [call.factors("self")]


@rule("expand", "expand_copy")
def expand(call: OpCall) -> Sequence[Factors]:
    """Dimensions of length one are repeated, as often as what they meet needs; the others keep their labels.

    Where the new length is known to be a number that can't follow, it carries no labels.
    """
    rank = call["self"].dim()
    shift = call.out.dim() - rank
    result = [f.moved([d + shift for d in range(rank)]) for f in call.factors("self")]
    for dim, size in enumerate(call.out.shape):
        repeated = size > 1 and (dim < shift or call["self"].shape[dim - shift] == 1)
        if repeated and (call.flexible is None or dim in call.flexible):
            result.append(Factor((dim,), call.facts.fresh(size)))
    return [tuple(result)]

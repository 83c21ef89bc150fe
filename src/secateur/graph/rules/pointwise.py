"""Element-wise operators: aligned labels leave together, and nothing moves."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.graph.labels import Factor, Factors
from secateur.graph.rules.base import OpCall, names, rule

UNARY = names("""
_conj _to_copy abs acos acosh alias angle asin asinh atan atanh bernoulli bitwise_not cauchy ceil celu clone cos cosh
deg2rad detach digamma elu empty_like erf erfc erfinv exp exp2 expm1 exponential fill floor frac full_like gelu
geometric hardshrink hardsigmoid hardswish hardtanh i0 isinf isnan isneginf isposinf leaky_relu lgamma lift lift_fresh
log log10 log1p log2 log_normal log_sigmoid_forward logical_not logit mish nan_to_num native_dropout neg normal
ones_like rad2deg rand_like randint_like randn_like random reciprocal relu round rrelu_with_noise rsqrt sgn sigmoid
sign signbit silu sin sinc sinh softplus softshrink special_entr special_erfcx special_i0e sqrt tan tanh threshold
trunc uniform zero zeros_like
""")

BROADCASTING = names("""
_prelu_kernel add addcdiv addcmul atan2 bitwise_and bitwise_or bitwise_xor clamp clamp_max clamp_min complex copy
copysign div eq floor_divide fmax fmin fmod ge gt heaviside hypot le lerp logaddexp logaddexp2 logical_and logical_or
logical_xor lt masked_fill maximum minimum mul ne nextafter polar pow remainder rsub special_xlog1py sub where xlogy
""")


@rule(*UNARY, *BROADCASTING)
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
